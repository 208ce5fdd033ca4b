"""A process's standard streams: what the shim puts between the container and its clients.

The container always writes to a pipe or pty of the shim's (or straight to a file), never to a client's FIFO,
so that a client that goes away neither kills it with SIGPIPE nor stops it.  For each piece of output the log is
written first, then the FIFO:

- a reader that is there slows the container down, as a pipe does: while it does not take what was read, nothing
  more is read;
- a reader that has gone costs nothing: what comes is dropped, and the FIFO is tried again at each piece of
  output and once a second;
- before the first reader came, the first 64 KiB are kept for it, and it is looked for ever less often.

The shim holds its own write end of a stdin FIFO, so that an engine that dies does not end the container's
input; ``close`` (the CloseIO call) gives it up, and the input ends when the client's end is closed too.
This is how containerd-shim-runc-v2 behaves (containerd pkg: runc/process).
"""

import os
from errno import EAGAIN, EIO, ENXIO, EPIPE
from fcntl import ioctl
from select import EPOLLIN, EPOLLOUT
from struct import pack
from termios import TIOCSWINSZ

from ..errors import InvalidArgument, NotFound
from ..ttrpc.loop import Loop, Timer
from .logs import JsonFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 65536
KEEP_FOR_FIRST_READER = 65536
RETRY = 1.0
FIRST_TRIES = (0.05, 0.5)
"""Seconds between tries before the first reader came: at first, and at last."""


class FifoWriter:
    """The write end of an output FIFO, opened whenever somebody reads it.

    ``on_ready`` is called when a ``write`` that returned False has been taken (or the reader has gone).
    """

    def __init__(self, loop: Loop, path: str, on_ready: "Callable[[], None]") -> None:
        self._loop = loop
        self._path = path
        self._on_ready = on_ready
        self._fd = -1
        self._pending = bytearray()
        self._seen_reader = False
        self._patience = FIRST_TRIES[0]
        self._timer: Timer | None = None
        self._ending = False
        self._closed = False
        try:
            os.stat(path)
        except OSError as error:
            raise NotFound(f"output FIFO {path}", cause=error.strerror or str(error)) from error
        self._open()

    def _open(self) -> None:
        """Open the FIFO if someone reads it; otherwise plan the next try."""
        try:
            # ENXIO without a reader; a reader that still waits in open(2) counts (fifo(7)).
            self._fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == ENXIO and self._timer is None:
                self._timer = self._loop.later(RETRY if self._seen_reader else self._patience, self._retry)
                self._patience = min(2 * self._patience, FIRST_TRIES[1])
            return
        self._seen_reader = True
        self._loop.watch(self._fd, self._ready, 0)  # EPOLLERR tells that the last reader has gone

    def _retry(self) -> None:
        self._timer = None
        if self._fd < 0 and not self._closed:
            self._open()
            if self._fd >= 0:
                self._flush()

    def write(self, data: bytes) -> bool:
        """Pass ``data`` on.  False: the reader has not taken all of it yet; wait for ``on_ready``."""
        if self._fd < 0 and not self._closed:
            self._open()
        if self._fd < 0:
            if not self._seen_reader and len(self._pending) < KEEP_FOR_FIRST_READER:
                self._pending += data[: KEEP_FOR_FIRST_READER - len(self._pending)]
            return True
        self._pending += data
        return self._flush()

    def _flush(self) -> bool:
        while self._pending:
            try:
                sent = os.write(self._fd, self._pending)
            except OSError as error:
                if error.errno == EAGAIN:
                    self._loop.watch(self._fd, self._ready, EPOLLOUT)
                    return False
                if error.errno != EPIPE:
                    raise
                self._lose_reader()
                return True
            del self._pending[:sent]
        if self._fd >= 0:
            self._loop.watch(self._fd, self._ready, 0)
        if self._ending:
            self.close()
        return True

    def _ready(self, events: int) -> None:
        if events & ~EPOLLOUT:
            self._lose_reader()
            self._on_ready()
        elif self._flush():
            self._on_ready()

    def _lose_reader(self) -> None:
        self._pending.clear()
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._ending:
            self.close()
        elif self._timer is None:
            self._timer = self._loop.later(RETRY, self._retry)

    def end(self) -> None:
        """No more output comes: close as soon as the reader has taken what is left."""
        self._ending = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        self._closed = True
        self._pending.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1


class FileWriter:
    """The ``file://`` target of output that the shim copies, because it comes from a pty or is logged too."""

    def __init__(self, path: str) -> None:
        self._fd = open_file(path)

    def write(self, data: bytes) -> bool:
        """Append ``data``; a full disk loses it rather than stop the container."""
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            return True
        return True

    def end(self) -> None:
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_file(path: str) -> int:
    """The file of a ``file://`` URI, made with its directory when needed, appended to."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


class Output:
    """Copies ``source`` (the read end of a pipe, or a pty master, owned by this) to the log and the target.

    ``target`` is a FIFO's path, a ``file://`` URI or empty.
    """

    def __init__(self, loop: Loop, source: int, stream: str, log: "JsonFile | None", target: str) -> None:
        self._loop = loop
        self._source = source
        self._stream = stream
        self._log = log
        self._fifo: FifoWriter | FileWriter | None = None
        scheme, path = scheme_of(target)
        if scheme == "fifo":
            self._fifo = FifoWriter(loop, path, self._resume)
        elif scheme == "file":
            self._fifo = FileWriter(path)
        self._paused = False
        os.set_blocking(source, False)
        loop.watch(source, self._readable)

    @property
    def ended(self) -> bool:
        return self._source < 0

    def _readable(self, _events: int) -> None:
        if not self._copy() and self._source >= 0:
            # The reader is slow: look at the source again when it has taken this.
            self._paused = True
            self._loop.forget(self._source)

    def _copy(self) -> bool:
        """Copy one piece.  False when no more should be read now."""
        try:
            data = os.read(self._source, CHUNK)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno != EIO:  # a pty whose last other end was closed
                raise
            data = b""
        if not data:
            self.end()
            return False
        if self._log is not None:
            self._log.write(self._stream, data)
        return self._fifo is None or self._fifo.write(data)

    def _resume(self) -> None:
        if self._paused and self._source >= 0:
            self._paused = False
            self._loop.watch(self._source, self._readable)

    def drain(self) -> None:
        """Copy what is in the pipe now: the process has ended, and this was its last word."""
        while self._source >= 0:
            try:
                data = os.read(self._source, CHUNK)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != EIO:
                    raise
                data = b""
            if not data:
                self.end()
                return
            if self._log is not None:
                self._log.write(self._stream, data)
            if self._fifo is not None:
                self._fifo.write(data)

    def end(self) -> None:
        """The source has ended: finish the log's last line, let the reader have the rest."""
        if self._source < 0:
            return
        self._loop.forget(self._source)
        os.close(self._source)
        self._source = -1
        if self._log is not None:
            self._log.finish(self._stream)
        if self._fifo is not None:
            self._fifo.end()

    def close(self) -> None:
        """Give up at once."""
        self.end()
        if self._fifo is not None:
            self._fifo.close()


class Input:
    """Copies a stdin FIFO to ``target`` (the write end of a pipe, or a pty master).

    It owns the pipe and closes it when the input ends; a pty stays open, since output comes from it too.
    """

    def __init__(self, loop: Loop, fifo: str, target: int, *, is_pty: bool) -> None:
        self._loop = loop
        self._target = target
        self._is_pty = is_pty
        self._pending = b""
        try:
            self._fifo = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound(f"input FIFO {fifo}", cause=error.strerror or str(error)) from error
        self._held = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(target, False)
        loop.watch(self._fifo, self._readable)
        if not is_pty:
            loop.watch(target, self._writable, 0)  # EPOLLERR: the container closed its input

    def _readable(self, _events: int) -> None:
        try:
            self._pending = os.read(self._fifo, CHUNK)
        except BlockingIOError:
            return
        if not self._pending:
            self.end()
            return
        self._pass_on()

    def _writable(self, events: int) -> None:
        if events & ~EPOLLOUT:
            self.end()
        else:
            self._pass_on()

    def _pass_on(self) -> None:
        try:
            sent = os.write(self._target, self._pending)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            if error.errno not in (EPIPE, EIO):
                raise
            self.end()
            return
        self._pending = self._pending[sent:]
        if self._pending:
            self._loop.forget(self._fifo)
            if self._is_pty:
                # The pty's readiness belongs to its output; a full pty input queue is looked at again soon.
                self._loop.later(0.02, self._retry)
            else:
                self._loop.watch(self._target, self._writable, EPOLLOUT)
        else:
            self._loop.watch(self._fifo, self._readable, EPOLLIN)
            if not self._is_pty:
                self._loop.watch(self._target, self._writable, 0)

    def _retry(self) -> None:
        if self._pending and self._fifo >= 0:
            self._pass_on()

    def release(self) -> None:
        """CloseIO: the input ends once every other writer of the FIFO has closed it."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def end(self) -> None:
        """The input is over; closing twice is fine."""
        self.release()
        self._pending = b""
        if self._fifo >= 0:
            self._loop.forget(self._fifo)
            os.close(self._fifo)
            self._fifo = -1
        if not self._is_pty and self._target >= 0:
            self._loop.forget(self._target)
            os.close(self._target)
        self._target = -1


def set_window_size(pty: int, width: int, height: int) -> None:
    """Columns and rows of a terminal (ioctl_tty(2))."""
    ioctl(pty, TIOCSWINSZ, pack("HHHH", height, width, 0, 0))


def scheme_of(uri: str) -> "tuple[str, str]":
    """``("fifo", "/path")``, ``("file", "/path")``, ``("binary", "/path?query")`` or ``("", "")``."""
    if not uri:
        return "", ""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return "fifo", uri
    if scheme not in ("fifo", "file", "binary"):
        raise InvalidArgument(f"stdio of scheme {scheme}:// is not supported", remedy="fifo, file or binary")
    return scheme, rest
