"""The process that shims are forked from: it does nothing else, so that they share its memory for good.

A page that the parent writes to after a fork is copied just as one that the child writes to.  The zygote's
server handles requests between two forks, and so every shim of fifty had 0.9 MB for itself that only the zygote
had changed.  The template waits in one system call, forks, and answers the pid; it decodes nothing.

It belongs to one server: when that goes, the template ends, and its shims belong to init.
Shims that end are nobody's business: SIGCHLD is ignored, so the kernel reaps them (wait(2), "NOTES").
"""

import os
import signal
from _socket import (
    AF_UNIX,
    CMSG_LEN,
    MSG_CMSG_CLOEXEC,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
    socketpair,
)
from sys import byteorder

from ..api.task.bootstrap import StartShimRequest
from ..errors import Unavailable
from .main import serve
from .title import set_title


class Template:
    """The server's handle on its template."""

    def __init__(self, path: str) -> None:
        self._channel, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self._channel.close()
            _wait_and_fork(theirs, path)
        theirs.close()

    def fork(self, request: StartShimRequest, listener: socket, path: str) -> int:
        """A shim for ``request`` that serves ``listener``: its pid.  Unavailable when the template has died."""
        rights = listener.fileno().to_bytes(4, byteorder)
        data = path.encode() + b"\0" + request.encode()
        try:
            self._channel.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, rights)])
            answer = self._channel.recv(4)
        except OSError as error:
            raise Unavailable("the zygote's template has died", cause=error.strerror or "") from error
        if len(answer) != 4:
            raise Unavailable("the zygote's template has died")
        return int.from_bytes(answer, byteorder)

    @property
    def channel(self) -> int:
        """Readable when the template has died."""
        return self._channel.fileno()


def _wait_and_fork(channel: socket, path: str) -> None:
    """The template's whole life."""
    set_title(["boxship-template", path], "boxship-template")
    _close_others(channel.fileno())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        data, ancillary, _, _ = channel.recvmsg(65536, CMSG_LEN(4), MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)  # the server has gone
        fd = int.from_bytes(ancillary[0][2], byteorder)
        pid = os.fork()
        if pid == 0:
            _be_born(data, fd, channel)
        os.close(fd)
        channel.send(pid.to_bytes(4, byteorder))


def _close_others(keep: int) -> None:
    """Close what the template has from the server: its listening socket would stay open in every shim."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd != keep:
            try:
                os.close(fd)
            except OSError:
                continue  # the descriptor that listed the directory


def _be_born(data: bytes, fd: int, channel: socket) -> None:
    """The child: be the shim, and never come back into the template's loop."""
    code = 1
    bundle = "/"
    try:
        channel.close()
        path, _, message = data.partition(b"\0")
        request = StartShimRequest.decode(message)
        bundle = request.bundle
        serve(request, socket(fileno=fd), path.decode())
        code = 0
    except BaseException:
        from traceback import format_exc

        report(bundle + "/shim.log", format_exc())
    finally:
        os._exit(code)


def report(path: str, text: str) -> None:
    """Leave the last words of a process where a person looks for them."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.write(fd, text.encode())
        os.close(fd)
    except OSError:
        return  # nowhere to write
