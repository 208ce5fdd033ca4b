"""Getting a shim: ask the zygote of this user and root, and start it when it is not there.

``ShimLauncher(exec_root).start(...)`` is what ``containerd-shim-boxship-v2 start`` does, and what a containerd
in Python does without executing anything.  The caller needs no other cleanup than what a shim's own protocol
asks for (Delete, Shutdown, ``delete``).
"""

import os
import sys
from _blake2 import blake2b
from fcntl import LOCK_EX, flock

from boxship.errors import FailedPrecondition, Internal, PermissionDenied, Unavailable
from boxship.ttrpc.blocking import BlockingClient

from .bootstrap import StartShimRequest, StartShimResponse, Zygote

EXEC_ROOT = "/run/boxship"
EXEC_ROOT_VARIABLE = "BOXSHIP_EXEC_ROOT"
PADDING = "-" * 1024
"""An argument whose memory shims write their process title to; longer titles are cut (see shim.title)."""


def default_exec_root() -> str:
    return os.environ.get(EXEC_ROOT_VARIABLE) or EXEC_ROOT


def shim_socket(request: StartShimRequest, group: str) -> str:
    """The path of the shim for ``group`` (a container or a pod): the same question has the same answer."""
    name = blake2b(digest_size=16)
    for part in (request.address, request.namespace, group):
        name.update(part.encode() + b"\0")
    return (request.socket_dir or request.exec_root + "/s") + "/" + name.hexdigest()


class ShimLauncher:
    """Starts shims below one exec root.  Safe to use from several threads and processes at once."""

    def __init__(self, exec_root: str = "") -> None:
        self.exec_root = exec_root or default_exec_root()
        self.socket = self.exec_root + "/zygote.sock"

    def start(
        self, namespace: str, id: str, bundle: str, address: str, ttrpc_address: str, *, socket_dir: str = ""
    ) -> str:
        """The address (``unix://PATH``) of a shim for container ``id``; it takes connections already.

        ``bundle`` is an absolute directory with config.json; ``address`` is containerd's own socket;
        events go to ``ttrpc_address`` (empty: nowhere).
        """
        return self.request(
            StartShimRequest(
                namespace=namespace, id=id, bundle=bundle, address=address, ttrpc_address=ttrpc_address,
                socket_dir=socket_dir, exec_root=self.exec_root,
            )
        ).address  # fmt: skip

    async def start_async(
        self, namespace: str, id: str, bundle: str, address: str, ttrpc_address: str, *, socket_dir: str = ""
    ) -> str:
        """``start`` in a worker thread (a few milliseconds, or some fifty when the zygote must be started)."""
        import asyncio

        return await asyncio.to_thread(
            self.start, namespace, id, bundle, address, ttrpc_address, socket_dir=socket_dir
        )

    def request(self, request: StartShimRequest) -> StartShimResponse:
        """Ask the zygote, at most twice: once for the one that is there, once for a new one."""
        try:
            return self._ask(self.socket, request)
        except FailedPrecondition:
            return self._once(request)
        except Unavailable:
            self.ensure_zygote()
        try:
            return self._ask(self.socket, request)
        except FailedPrecondition:
            return self._once(request)

    @staticmethod
    def _ask(path: str, request: StartShimRequest) -> StartShimResponse:
        with BlockingClient.connect(path, timeout=5.0) as client:
            return client.call(Zygote.Start, request, timeout=30.0)

    def ensure_zygote(self) -> None:
        """Start the zygote unless it answers; callers that come together start one."""
        try:
            os.makedirs(self.exec_root, mode=0o711, exist_ok=True)
            lock = os.open(self.exec_root + "/zygote.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            raise PermissionDenied(
                f"exec root {self.exec_root}", cause="EACCES", remedy=f"be root, or set {EXEC_ROOT_VARIABLE}"
            ) from error
        try:
            flock(lock, LOCK_EX)
            try:
                BlockingClient.connect(self.socket, timeout=5.0).close()
            except Unavailable:
                self._spawn(self.socket, once=False)
        finally:
            os.close(lock)

    def _once(self, request: StartShimRequest) -> StartShimResponse:
        """A shim for a caller in other namespaces than the zygote: fork it from a zygote that ends then."""
        path = f"{self.exec_root}/zygote-{os.getpid()}.sock"
        self._spawn(path, once=True)
        return self._ask(path, request)

    def _spawn(self, path: str, *, once: bool) -> None:
        """Start a zygote that serves ``path`` and belongs to init; return when it takes connections."""
        read, write = os.pipe()
        file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "shim", "zygote.py")
        log = os.open(self.exec_root + "/zygote.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        flags = ["--once"] if once else []
        arguments = [sys.executable, "-I", "-S", os.path.normpath(file), *flags, "3", path, PADDING]
        high = os.dup(write) if write == 3 else write
        try:
            pid = os.posix_spawn(
                sys.executable,
                arguments,
                {"PATH": os.environ.get("PATH", os.defpath), EXEC_ROOT_VARIABLE: self.exec_root},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
                    (os.POSIX_SPAWN_DUP2, 0, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                    (os.POSIX_SPAWN_DUP2, high, 3),
                ],
            )
        finally:
            os.close(write)
            if high != write:
                os.close(high)
            os.close(log)
        try:
            os.read(read, 1)  # end of file: it serves, or it died
        finally:
            os.close(read)
        try:
            os.waitpid(pid, 0)  # the process that we spawned has forked the zygote and ended
        except ChildProcessError:
            pass  # the caller ignores SIGCHLD, or reaps everything itself
        if not os.path.exists(path):
            raise Internal("the zygote did not start", remedy=f"see {self.exec_root}/zygote.log")
