"""The zygote: warm, single-threaded processes that make shims without an interpreter start.

It has the shim and libcontainer loaded and waits on ``<exec root>/zygote.sock``.  A shim is a fork of its
``template`` (1 ms).  The zygote keeps nothing that a shim needs: when it dies, shims go on and the next start
makes a new one.

It serves its own user and root only (SO_PEERCRED), and only callers in its own namespaces, since a shim mounts
and runs where it was forked; others start a shim through a zygote of their own that ends after one (``--once``).
It ends by itself when its socket file is no longer its own, or when the code on disk is newer than it.

Run as ``python -I -S zygote.py [--once] READY SOCKET <padding>``; READY is a descriptor that is closed when it
serves.
"""

if __name__ == "__main__":
    import sys

    # -I -S leave out the package's own place; the file knows it.
    sys.path.insert(0, __file__.rpartition("/boxship/")[0])

import gc
import os
import signal
import sys
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

from boxship.api.task.bootstrap import StartShimRequest, StartShimResponse, Zygote
from boxship.api.task.zygote import shim_socket
from boxship.errors import FailedPrecondition, InvalidArgument, PermissionDenied, Unavailable
from boxship.shim import bundle as bundle_files
from boxship.shim.rehearsal import rehearse, rehearse_compiling
from boxship.shim.template import Template
from boxship.shim.title import set_title
from boxship.ttrpc.loop import Loop
from boxship.ttrpc.server import PendingCall, Server

NAMESPACES = ("mnt", "net", "pid", "user", "ipc", "uts")
LOOK_AROUND = 5.0
"""Seconds between two looks at the socket file."""
SANDBOX = b"io.kubernetes.cri.sandbox-id"


def namespaces(pid: "int | str") -> "tuple[str, ...]":
    """What a process's namespaces are, comparable; PermissionDenied or ProcessLookupError surface as OSError."""
    return tuple(os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES)


class Nursery:
    """Implements the Zygote service."""

    def __init__(self, loop: Loop, listener: socket, template: Template, path: str, *, once: bool) -> None:
        self.loop = loop
        self.template = template
        self.path = path
        self.once = once
        self._own = namespaces("self")
        self._identity = self._socket_identity()
        self._code = self._loaded_code()
        self.server = Server(loop, listener, {Zygote: self})
        loop.watch(template.channel, self._orphaned)
        loop.later(LOOK_AROUND, self._look_around)

    # -- the service

    def Start(self, request: StartShimRequest, call: PendingCall) -> StartShimResponse:
        """Fork a shim that listens; answer its address."""
        self._admit(call)
        bundle = request.bundle
        if not request.namespace or not request.id or not bundle.startswith("/"):
            raise InvalidArgument("a shim needs a namespace, an id and an absolute bundle path")
        if not os.path.isdir(bundle):
            raise InvalidArgument(f"bundle {bundle} is not a directory")
        path = shim_socket(request, self._group(request))
        address = "unix://" + path
        if self._lives(path):
            # Another container of the same pod: it goes to the shim that is there.
            bundle_files.write(bundle, "address", address.encode())
            return StartShimResponse(address=address)
        listener = self._listen(path)
        try:
            pid = self.template.fork(request, listener, path)
        finally:
            listener.close()
        bundle_files.write(bundle, "address", address.encode())
        if self.once:
            self.loop.stop()
        return StartShimResponse(address=address, pid=pid)

    def _admit(self, call: PendingCall) -> None:
        """Raise unless the caller is of this user (or root), in the same namespaces, and our code is current."""
        pid, uid, _ = call.peer
        if uid not in (0, os.getuid()):
            raise PermissionDenied(f"user {uid} may not start shims of user {os.getuid()}")
        try:
            theirs = namespaces(pid)
        except OSError as error:
            raise PermissionDenied(f"process {pid} cannot be looked at", cause=error.strerror or "") from error
        if theirs != self._own:
            raise FailedPrecondition("the caller is in other namespaces than this zygote")
        if self._loaded_code() != self._code:
            self._leave()
            raise Unavailable("this zygote runs older code than is installed")

    @staticmethod
    def _group(request: StartShimRequest) -> str:
        """Containers of one pod share a shim: the sandbox's id if config.json names one, else the container's."""
        data = bundle_files.read(request.bundle, "config.json")
        if SANDBOX not in data:  # parsing costs a millisecond that a lone container need not pay
            return request.id
        from json import loads

        try:
            annotations = loads(data).get("annotations") or {}
        except ValueError as error:
            raise InvalidArgument(f"{request.bundle}/config.json is not JSON", cause=str(error)) from error
        return str(annotations.get(SANDBOX.decode()) or request.id)

    @staticmethod
    def _lives(path: str) -> bool:
        """Whether a shim listens on ``path``."""
        if not os.path.exists(path):
            return False
        probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)  # of a shim that was killed
            return False
        finally:
            probe.close()
        return True

    @staticmethod
    def _listen(path: str) -> socket:
        """A listening socket; clients can connect before the shim runs."""
        os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
        listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        listener.listen(128)
        return listener

    # -- its own life

    def _orphaned(self, _events: int) -> None:
        """The template has died: without it nothing can be done here."""
        self.loop.forget(self.template.channel)
        self._leave()

    def _socket_identity(self) -> "tuple[int, int, int] | None":
        """Which socket file is at our path; with its time, because inode numbers are used again."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns

    @staticmethod
    def _loaded_code() -> "tuple[int, ...]":
        """When each of our loaded modules' files was last changed: a package upgraded under us shows here."""
        stamps = []
        for name, module in sys.modules.items():
            file = getattr(module, "__file__", None)
            if name.startswith("boxship.") and file:
                try:
                    stamps.append(os.stat(file).st_mtime_ns)
                except FileNotFoundError:
                    stamps.append(0)
        return tuple(stamps)

    def _look_around(self) -> None:
        """Leave when the socket is no longer ours: nobody can find this process any more."""
        if self._socket_identity() != self._identity:
            self.loop.stop()
        self.loop.later(LOOK_AROUND, self._look_around)

    def _leave(self) -> None:
        """Take the door away, so that a new zygote is started; end after the current answer."""
        if self._socket_identity() == self._identity:
            os.unlink(self.path)
        self.loop.stop()


def preload(directory: str) -> None:
    """Load and try what shims will use, so that it is shared, and keep the collector away from it.

    ``directory`` is made and removed for the trial.
    """
    import json  # noqa: F401  shims parse config.json

    from boxship.libcontainer import execute, making  # noqa: F401  load all that a create and an exec need
    from boxship.libcontainer.host import host

    host()  # the facts of this host, cached
    rehearse(directory)
    rehearse_compiling()
    gc.collect()
    # What is frozen is never visited again: a collection in a shim would write to, and so copy, every page.
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


def main(arguments: "list[str]") -> None:
    """``[--once] READY SOCKET [padding]``"""
    once = arguments[0] == "--once"
    ready, path = int(arguments[once]), arguments[once + 1]
    if os.fork():
        os._exit(0)  # whoever started us waits for this one only
    os.setsid()
    os.chdir("/")
    preload(f"{path}.play{os.getpid()}")
    template = Template(path)
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    temporary = f"{path}.{os.getpid()}"
    os.umask(0o022)
    mask = os.umask(0o177)
    listener.bind(temporary)
    os.umask(mask)
    listener.listen(64)
    os.rename(temporary, path)
    set_title(["boxship-zygote", path], "boxship-zygote")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    loop = Loop()
    nursery = Nursery(loop, listener, template, path, once=once)
    os.close(ready)
    loop.run()
    nursery.server.close()
    if once and nursery._socket_identity() == nursery._identity:
        os.unlink(path)


if __name__ == "__main__":
    main(sys.argv[1:])
