"""Starting shims: ours by a fork of the zygote, any other by the runtime v2 binary protocol.

``io.containerd.runc.v2`` names the binary ``containerd-shim-runc-v2`` on PATH; an absolute path names itself
(containerd, core/runtime/v2/README.md). The binary runs in the bundle, writes the address of its Task service to
its standard output and leaves a server behind; ``delete`` cleans up after a server that died.
"""

import asyncio
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

from boxship.api.task.task import DeleteResponse
from boxship.api.task.zygote import ShimLauncher
from boxship.containerd.bundles import Bootstrap, Bundle, parse_bootstrap
from boxship.errors import DeadlineExceeded, Internal, InvalidArgument, NotFound
from boxship.protobuf import Any

log = logging.getLogger("boxship.containerd")

OURS = "io.containerd.boxship.v2"
OUR_BINARY = "containerd-shim-boxship-v2"
_DELETE_TIMEOUT = 30.0
_START_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """What shims are told about us."""

    grpc: str
    ttrpc: str


class Runtimes:
    def __init__(self, addresses: Addresses, exec_root: str) -> None:
        self._addresses = addresses
        self._launcher = ShimLauncher(exec_root)
        self._exec_root = exec_root

    async def start(self, runtime: str, bundle: Bundle, options: "Any | None", debug: bool = False) -> Bootstrap:
        """Start (or find, for a pod) the shim of ``bundle``. Raises NotFound (no such runtime), Internal."""
        if runtime == OURS:
            address = await self._launcher.start_async(
                bundle.namespace, bundle.id, bundle.path, self._addresses.grpc, self._addresses.ttrpc
            )
            return Bootstrap(3, address)
        command = [*_command(runtime), *self._flags(bundle), *(["-debug"] if debug else []), "start"]
        stdin = options.encode() if options is not None else b""
        out = await self._run(command, bundle, stdin, _START_TIMEOUT, merge=True)
        return parse_bootstrap(out)

    async def delete(self, runtime: str, bundle: Bundle) -> DeleteResponse:
        """Clean up what a dead shim left, and learn how its init ended. Raises NotFound, Internal."""
        command = [*_command(runtime), *self._flags(bundle), "-bundle", bundle.path, "delete"]
        out = await self._run(command, bundle, b"", _DELETE_TIMEOUT, merge=False)
        return DeleteResponse.decode(out)

    def _flags(self, bundle: Bundle) -> "list[str]":
        return [
            *("-namespace", bundle.namespace),
            *("-address", self._addresses.grpc),
            *("-publish-binary", shutil.which("boxship-containerd") or sys.argv[0]),
            *("-id", bundle.id),
        ]

    async def _run(self, command: "list[str]", bundle: Bundle, stdin: bytes, timeout: float, *, merge: bool) -> bytes:
        environment = {
            **os.environ,
            "TTRPC_ADDRESS": self._addresses.ttrpc,
            "GRPC_ADDRESS": self._addresses.grpc,
            "NAMESPACE": bundle.namespace,
            "MAX_SHIM_VERSION": "3",
            "GOMAXPROCS": "2",  # as containerd: the start binary is short-lived
            "BOXSHIP_EXEC_ROOT": self._exec_root,
        }
        # In a thread: the loops' own subprocesses differ in whose descriptors a child inherits, and a shim's server
        # that keeps one of them open would be waited for.
        try:
            done = await asyncio.to_thread(
                subprocess.run,
                command,
                cwd=bundle.path,
                env=environment,
                input=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merge else subprocess.PIPE,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DeadlineExceeded(f"{command[0]} {command[-1]} of {bundle.id!r} took {timeout} s") from error
        except OSError as error:
            raise Internal(f"cannot execute {command[0]}", cause=str(error)) from error
        if done.returncode:
            text = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
            raise Internal(f"{os.path.basename(command[0])} {command[-1]} of {bundle.id!r} failed", cause=text)
        return bytes(done.stdout)


def _command(runtime: str) -> "list[str]":
    if runtime == OURS or os.path.basename(runtime) == OUR_BINARY:
        beside = os.path.join(os.path.dirname(sys.executable), OUR_BINARY)
        return [beside] if os.access(beside, os.X_OK) else [sys.executable, "-m", "boxship.shim"]
    if runtime.startswith("/"):
        binary = runtime
    else:
        parts = runtime.split(".")
        if len(parts) < 2 or not all(part.replace("-", "").isalnum() for part in parts):
            raise InvalidArgument(f"invalid runtime name {runtime!r}", remedy="use io.containerd.NAME.VERSION")
        binary = f"containerd-shim-{parts[-2]}-{parts[-1]}"
    found = shutil.which(binary)
    if found is None:
        raise NotFound(f"runtime {runtime!r} binary not installed {binary!r}: file does not exist")
    return [found]


class ShimLog:
    """The FIFO ``log`` in a bundle, which shims write their own messages to; open while the shim lives."""

    def __init__(self, bundle: Bundle) -> None:
        path = os.path.join(bundle.path, "log")
        try:
            os.mkfifo(path, 0o700)
        except FileExistsError:
            pass  # made before we restarted
        # Read and write: it never ends while we hold it, so a shim that comes back finds a reader.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._id = bundle.id
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        for line in data.decode("utf-8", "replace").splitlines():
            log.info("shim %s: %s", self._id, line)

    def close(self) -> None:
        """Closing twice is fine."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
