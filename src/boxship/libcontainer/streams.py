"""The standard streams of a process on our side, and what containers and further processes have alike.

Each stream is PIPE (a file object on our side), DEVNULL, INHERIT (ours), STDOUT (for stderr: where stdout goes), or a
descriptor or file of the caller's; with a terminal all three are a pty.
"""

from __future__ import annotations

import io
import os
from _thread import allocate_lock
from select import POLLIN, POLLOUT, poll
from time import monotonic
from typing import IO, Literal, Protocol

from boxship.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument

from .process import Stdio, exit_code
from .process import Terminal as InnerTerminal

PIPE: Literal["pipe"] = "pipe"
DEVNULL: Literal["devnull"] = "devnull"
INHERIT: Literal["inherit"] = "inherit"
STDOUT: Literal["stdout"] = "stdout"



class HasFileno(Protocol):
    def fileno(self) -> int: ...


Stream = Literal["pipe", "devnull", "inherit"] | int | HasFileno
ErrorStream = Stream | Literal["stdout"]
TerminalSize = bool | tuple[int, int]


class Streams:
    """The three streams of one process: what it gets (``stdio``), and our ends."""

    def __init__(self, stdin: Stream, stdout: Stream, stderr: ErrorStream, terminal: TerminalSize) -> None:
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        self.terminal: io.FileIO | None = None
        self.stdio: Stdio | InnerTerminal
        self._theirs: list[int] = []
        if terminal:
            columns, rows = terminal if isinstance(terminal, tuple) else (80, 24)
            self.stdio = InnerTerminal(columns, rows)
            return
        try:
            given = self._child_end("stdin", stdin, 0)
            out = self._child_end("stdout", stdout, 1)
            err = out if stderr == STDOUT else self._child_end("stderr", stderr, 2)
        except BaseException:
            self.started()
            self.close()
            raise
        self.stdio = Stdio(given, out, err)

    def _child_end(self, name: str, stream: object, inherited: int) -> int:
        if stream == PIPE:
            read, write = os.pipe2(os.O_CLOEXEC)
            ours, theirs = (write, read) if name == "stdin" else (read, write)
            self._theirs.append(theirs)
            setattr(self, name, io.FileIO(ours, "w" if name == "stdin" else "r"))
            return theirs
        if stream == DEVNULL:
            return -1
        if stream == INHERIT:
            return inherited
        if isinstance(stream, int) and not isinstance(stream, bool) and stream >= 0:
            return stream
        fileno = getattr(stream, "fileno", None)
        if fileno is None:
            raise InvalidArgument(
                f"{name}={stream!r} is no stream", remedy="use PIPE, DEVNULL, INHERIT, a descriptor or a file"
            )
        return int(fileno())

    def started(self, console: int = -1) -> None:
        """The process has its copies."""
        theirs, self._theirs = self._theirs, []
        for fd in theirs:
            os.close(fd)
        if console >= 0:
            self.terminal = io.FileIO(console, "r+")

    def close(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr, self.terminal):
            if stream is not None:
                stream.close()


class Handle:
    """What containers and further processes have alike: a pid, streams, an end."""

    def __init__(self, pid: int, streams: Streams | None) -> None:
        self.pid = pid
        self._streams = streams
        self._code: int | None = None
        self._lock = allocate_lock()

    @property
    def stdin(self) -> IO[bytes] | None:
        """Our end of standard input, unbuffered, when it is a PIPE; close it to end the input."""
        return self._streams.stdin if self._streams else None

    @property
    def stdout(self) -> IO[bytes] | None:
        """Our end of standard output, unbuffered, when it is a PIPE."""
        return self._streams.stdout if self._streams else None

    @property
    def stderr(self) -> IO[bytes] | None:
        """Our end of standard error, unbuffered, when it is a PIPE."""
        return self._streams.stderr if self._streams else None

    @property
    def terminal(self) -> io.FileIO | None:
        """The master of its terminal, when it has one; reading it raises OSError (EIO) after the end."""
        return self._streams.terminal if self._streams else None

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of its terminal. Raises FailedPrecondition without one."""
        if self.terminal is None:
            raise FailedPrecondition("resize: it has no terminal")
        import termios

        termios.tcsetwinsize(self.terminal.fileno(), (rows, columns))

    def poll(self) -> int | None:
        """Its exit code when it has ended, else None."""
        try:
            return self.wait(0)
        except DeadlineExceeded:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end: the exit code, or 128 + signal. Asking again gives the same.

        Raises DeadlineExceeded after ``timeout`` seconds, FailedPrecondition when it is not a child of this process.
        """
        if self._code is not None:
            return self._code
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            pidfd = -1
        try:
            if pidfd >= 0:
                poller = poll()
                poller.register(pidfd, POLLIN)
                if not poller.poll(None if timeout is None else max(0, timeout * 1000)):
                    raise DeadlineExceeded(f"wait for process {self.pid}: it has not ended within {timeout:g} s")
            return self._reap()
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    def _reap(self) -> int:
        with self._lock:
            if self._code is None:
                try:
                    self._code = exit_code(os.waitpid(self.pid, 0)[1])
                except ChildProcessError as error:
                    raise FailedPrecondition(
                        f"wait for process {self.pid}",
                        cause="ECHILD",
                        remedy="only the process that created it can, and not while SIGCHLD is ignored",
                    ) from error
            return self._code

    def communicate(self, input: bytes = b"", *, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Send ``input``, end it, and read what it writes until it has no more to say: (stdout, stderr).

        Only streams that are PIPEs (or the terminal, as stdout) take part.
        Raises DeadlineExceeded after ``timeout`` seconds; the process runs on, and what it wrote so far is lost.
        """
        deadline = None if timeout is None else monotonic() + timeout
        poller = poll()
        found: dict[int, list[bytes]] = {}
        source = self.stdin or (self.terminal if input else None)
        out = self.stdout or self.terminal
        for stream in (out, self.stderr):
            if stream is not None:
                poller.register(stream.fileno(), POLLIN)
                found[stream.fileno()] = []
        results = [found.get(stream.fileno(), []) if stream else [] for stream in (out, self.stderr)]
        rest = memoryview(input)
        if source is not None:
            if rest:
                os.set_blocking(source.fileno(), False)
                poller.register(source.fileno(), POLLOUT | (POLLIN if source is self.terminal else 0))
            elif source is self.stdin:
                source.close()
        open_streams = len(found)
        while open_streams or rest:
            left = None if deadline is None else max(0, (deadline - monotonic()) * 1000)
            ready = poller.poll(left)
            if not ready:
                raise DeadlineExceeded(f"process {self.pid} has not ended within {timeout:g} s")
            for fd, events in ready:
                if source is not None and rest and fd == source.fileno() and events & ~POLLIN:
                    rest = self._send(source, rest)
                    if not rest:
                        if source is self.stdin:
                            poller.unregister(fd)
                            source.close()
                        else:
                            poller.modify(fd, POLLIN)
                        source = None
                        continue
                if fd in found and events & ~POLLOUT:
                    data = _read(fd)
                    if data:
                        found[fd].append(data)
                    elif data is not None:
                        poller.unregister(fd)
                        open_streams -= 1
        return b"".join(results[0]), b"".join(results[1])

    @staticmethod
    def _send(stream: IO[bytes], rest: memoryview) -> memoryview:
        try:
            return rest[os.write(stream.fileno(), rest[:65536]) :]
        except BlockingIOError:
            return rest
        except OSError:
            return rest[:0]  # nobody reads it any more

    def close(self) -> None:
        """Close our ends of its streams; closing twice is fine."""
        if self._streams:
            self._streams.close()


def _read(fd: int) -> bytes | None:
    """What there is; b"" at the end, None when there is nothing now."""
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return None
    except OSError:
        return b""  # a terminal whose other side is closed gives EIO
