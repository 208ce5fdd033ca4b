"""The shim process: from the fork (or a cold start) to its last event.

It belongs to no one: leader of its own session, its streams on /dev/null, a subreaper for its containers.
It ends when Shutdown came after the last task was deleted, or by a signal; its containers do not end with it.
"""

import os
import signal
from _socket import AF_UNIX, MSG_DONTWAIT, SOCK_CLOEXEC, SOCK_STREAM, socket, socketpair
from time import gmtime, strftime
from traceback import format_exception

from .. import tracing
from ..api.task.bootstrap import StartShimRequest
from ..api.task.task import TaskV2, TaskV3
from ..linux.libc import become_subreaper
from ..protobuf import Message
from ..ttrpc.loop import Loop
from ..ttrpc.server import PendingCall, Server
from ..ttrpc.session import Call
from . import bundle as bundle_files
from .publisher import Publisher
from .service import TaskService
from .title import set_title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .runtime import Runtime

PROGRAM = "containerd-shim-boxship-v2"
FAREWELL = 3.0
"""Seconds that the last events have to reach containerd after Shutdown."""


def traced(call: PendingCall, make: "Callable[[], Message | None]") -> "Message | None":
    """Make a call inside the trace that its metadata carries, if any."""
    trace = tracing.from_metadata(call.metadata) if call.metadata else None
    if trace is None:
        return make()
    token = tracing.current.set(trace)
    try:
        with tracing.span("shim", call.name):
            return make()
    finally:
        tracing.current.reset(token)


class Shim:
    """The pieces of one shim, wired together."""

    def __init__(self, request: StartShimRequest, listener: socket, path: str, runtime: "Runtime") -> None:
        self.request = request
        self.path = path
        self.loop = Loop()
        self.loop.on_error = self.broken  # one broken stream must not end the others, or lose the exit
        self.publisher = Publisher(self.loop, request.ttrpc_address, request.namespace)
        self.runtime_root = f"{request.exec_root}/runtime/{request.namespace}"
        self.service = TaskService(
            self.loop, runtime, self.publisher, request.namespace, self.runtime_root, self.shut_down
        )
        services: dict[type, object] = {TaskV2: self.service, TaskV3: self.service}
        self.server = Server(self.loop, listener, services, traced)
        self.server.unexpected = self.unexpected  # type: ignore[method-assign]  # a hook, made to be replaced

    def unexpected(self, call: Call, error: Exception) -> None:
        self.log(f"{call.method} failed: " + "".join(format_exception(error)))

    def broken(self, error: Exception) -> None:
        self.log("in the shim's loop: " + "".join(format_exception(error)))

    def log(self, message: str) -> None:
        """One line for containerd, which reads the FIFO ``log`` in the bundle (or a file, when there is none)."""
        stamp = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime())
        text = message.strip().replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        line = f'time="{stamp}" level=error msg="{text}" id={self.request.id}\n'
        path = self.request.bundle + "/log"
        if not os.path.exists(path):
            path = self.request.bundle + "/shim.log"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except OSError:
            return  # nobody reads, or the bundle is gone
        try:
            os.write(fd, line.encode())
        except OSError:
            return  # the reader is gone or does not keep up
        finally:
            os.close(fd)

    def shut_down(self) -> None:
        """Stop when the answer to Shutdown and the last events have left, or after FAREWELL seconds.

        No longer to be found at once: the address is the container's, and a task that is made for it meanwhile
        would be given to a shim that is about to go.
        """
        self.vanish()
        rounds = int(FAREWELL / 0.02)

        def look() -> None:
            nonlocal rounds
            rounds -= 1
            if self.publisher.idle or rounds <= 0:
                self.loop.stop()
            else:
                self.loop.later(0.02, look)

        self.loop.later(0.0, look)

    def run(self) -> None:
        """Serve until ``shut_down``; the socket goes with it."""
        woken = watch_children(self.loop, self.service.reap)
        try:
            self.loop.run()
        finally:
            woken.close()
            self.vanish()
            self.server.close()
            self.publisher.close()

    def vanish(self) -> None:
        """Stop listening and remove the socket; only once, for the next one at that path is another shim's."""
        if self.server.listener.fileno() < 0:
            return
        self.server.stop_listening()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass  # ``delete`` was faster


def watch_children(loop: Loop, reap: "Callable[[], None]") -> socket:
    """Call ``reap`` in the loop whenever a child has ended.  The returned socket keeps the watch alive.

    The C-level handler of Python writes a byte to the wakeup descriptor, so nothing is done inside a handler.
    """
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    fd = theirs.detach()
    os.set_blocking(fd, False)

    def ready(_events: int) -> None:
        try:
            while len(ours.recv(4096, MSG_DONTWAIT)) == 4096:
                pass  # more bytes than one read took
        except BlockingIOError:
            pass  # drained
        try:
            reap()
        except Exception as error:
            if loop.on_error is None:
                raise
            loop.on_error(error)  # and go on watching: the next child's end must not be missed

    loop.watch(ours.fileno(), ready)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    signal.siginterrupt(signal.SIGCHLD, False)
    return ours


def settle(request: StartShimRequest) -> None:
    """Turn the calling process into one that belongs to no one; ``title`` shows whose shim it is."""
    try:
        os.setsid()
    except PermissionError:
        pass  # already a session leader: a cold start
    os.chdir(request.bundle)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    become_subreaper()
    arguments = [program(), "-namespace", request.namespace, "-id", request.id, "-address", request.address]
    set_title(arguments, PROGRAM)


def program() -> str:
    """The path that ps shows: the program beside the interpreter, where pip puts it."""
    import sys

    return os.path.join(os.path.dirname(sys.executable), PROGRAM)


def serve(request: StartShimRequest, listener: socket, path: str) -> None:
    """Be the shim that ``request`` asks for, until it is shut down."""
    from .runtime import LibcontainerRuntime

    settle(request)
    shim = Shim(request, listener, path, LibcontainerRuntime())
    bundle_files.write(request.bundle, "shim.pid", f"{os.getpid()}\n{shim.runtime_root}".encode())
    shim.run()
