"""Runs ``criu swrk`` and talks to it: one process, one request, and what it asks on the way.

Lifecycle of a ``Swrk``: made, it has spawned criu with our end of a socket pair; ``ask`` sends the request, answers
the notifications, and returns criu's answer; ``close`` waits for criu and is called by the context manager.
A restored process is a sibling of criu (``rst_sibling``): our child.
"""

import os
from _socket import AF_UNIX, CMSG_SPACE, MSG_CMSG_CLOEXEC, SHUT_WR, SOCK_CLOEXEC, SOCK_SEQPACKET, socketpair
from fcntl import F_DUPFD_CLOEXEC, fcntl

from boxship.errors import FailedPrecondition, NotFound, PeerError

from .messages import Notify, Options, Request, RequestType, Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    # (the step, descriptors that came with it, which the handler owns)
    Handler = Callable[[Notify, list[int]], None]

FIRST_EXTRA = 4
"""The number that the first of ``extra`` has in the criu process; 3 is the socket."""

_ABOVE = 64  # our own descriptors move here before they are put into place
_LARGEST = 1 << 20


def find(program: str) -> str:
    """The path of criu; raises NotFound."""
    if "/" in program:
        found = program if os.access(program, os.X_OK) else ""
    else:
        directories = os.environ.get("PATH", os.defpath).split(":")
        found = next((path for d in directories if os.access(path := d + "/" + program, os.X_OK)), "")
    if not found:
        raise NotFound(f"program {program!r} not found", remedy="install CRIU 3.11 or later, or name it with --criu")
    return found


class Swrk:
    """One criu process; see the module. ``streams`` become its standard ones, ``extra`` those from 4 on."""

    def __init__(
        self, program: str = "criu", *, streams: "tuple[int, int, int] | None" = None, extra: "Sequence[int]" = ()
    ) -> None:
        path = find(program)
        ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
        moved: list[int] = []
        try:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            moved.append(null)
            wanted = [null if fd < 0 else fd for fd in streams or (-1, -1, -1)] + [theirs.fileno(), *extra]
            actions: list[tuple[int, int, int]] = []
            for number, fd in enumerate(wanted):
                high = fcntl(fd, F_DUPFD_CLOEXEC, _ABOVE)
                moved.append(high)
                actions.append((os.POSIX_SPAWN_DUP2, high, number))
            self.pid = os.posix_spawn(path, ["criu", "swrk", "3"], dict(os.environ), file_actions=actions)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for fd in moved:
                os.close(fd)
        self._socket = ours
        self._running = True

    def __enter__(self) -> "Swrk":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        self.close()

    def ask(self, request: Request, notified: "Handler | None" = None) -> Response:
        """The answer to a request. Raises FailedPrecondition when criu fails, PeerError when it ends early."""
        self._send(request)
        while True:
            answer, handles = self._receive()
            kind = RequestType.name_of(answer.type or 0)
            if not answer.success:
                cause = answer.cr_errmsg or (os.strerror(answer.cr_errno) if answer.cr_errno else "")
                raise FailedPrecondition(f"criu failed: type {kind} errno {answer.cr_errno or 0}", cause=cause)
            if answer.type != RequestType.NOTIFY:
                return answer
            if notified is not None and answer.notify is not None:
                notified(answer.notify, handles)
            self._send(Request(type=RequestType.NOTIFY, notify_success=True))

    def _send(self, request: Request) -> None:
        try:
            self._socket.sendall(request.encode())
        except OSError as error:
            raise PeerError("criu ended before it took the request", cause=error.strerror or "") from error

    def _receive(self) -> "tuple[Response, list[int]]":
        data, ancillary, _, _ = self._socket.recvmsg(_LARGEST, CMSG_SPACE(64), MSG_CMSG_CLOEXEC)
        raw = b"".join(rights for _, _, rights in ancillary)
        handles = [int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4)]
        if not data:
            raise PeerError("criu ended without an answer", remedy="see its log in the work directory")
        return Response.decode(data), handles

    def close(self) -> int:
        """Let criu end, and reap it; its exit code. Closing twice is fine."""
        if not self._running:
            return 0
        self._running = False
        try:
            self._socket.shutdown(SHUT_WR)
        except OSError:
            pass  # it ended already
        self._socket.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def version(program: str = "criu") -> int:
    """criu's version as it counts it: 4.2 is 40200."""
    with Swrk(program) as criu:
        answer = criu.ask(Request(type=RequestType.VERSION, opts=Options(images_dir_fd=-1)))
    found = answer.version
    if found is None:
        raise PeerError("criu does not say its version")
    return (found.major_number or 0) * 10000 + (found.minor_number or 0) * 100 + (found.sublevel or 0)
