"""Waiting for a process in the foreground: its signals, its terminal, its end.

Signals are blocked from before the process exists and taken with a signalfd-less sigtimedwait, so none is lost and
no handler runs in between.
"""

import os
from _signal import SIG_BLOCK, SIG_DFL, pthread_sigmask, sigtimedwait  # type: ignore[import-not-found]  # signal imports enum
from _signal import signal as set_handler
from errno import EAGAIN, EINTR, EIO

from boxship.libcontainer.process import exit_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SIGCHLD, SIGURG, SIGWINCH, SIGTTIN, SIGTTOU, SIGPIPE = 17, 23, 28, 21, 22, 13
# Not to be passed on: the child's own end, what the kernel sends for its own reasons, and faults of ours.
KEPT = (SIGCHLD, SIGURG, SIGPIPE, 4, 5, 6, 7, 8, 9, 11, 19, 31, 32, 33)


class Foreground:
    """Made before the process is; ``wait`` then stays until its end."""

    def __init__(self) -> None:
        set_handler(SIGCHLD, SIG_DFL)  # ignored, it would lose the exit status
        self.signals = [n for n in range(1, 65) if n not in (9, 19, 32, 33, 4, 5, 7, 8, 11)]
        pthread_sigmask(SIG_BLOCK, self.signals)

    def wait(self, pid: int, console: int = -1) -> int:
        """Until the process has ended: its exit code, or 128 + signal. Closes the console."""
        if console >= 0:
            return self._with_terminal(pid, console)
        while True:
            code = self._next(pid, None, -1)
            if code is not None:
                return code

    def _next(self, pid: int, timeout: "float | None", console: int) -> "int | None":
        """Take one signal (None: wait for ever); the exit code when it told of the end."""
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return exit_code(status)
        try:
            taken = sigtimedwait(self.signals, 3600.0 if timeout is None else timeout)
        except InterruptedError:
            return None
        if taken is None:
            return None
        number = taken.si_signo
        if number == SIGWINCH and console >= 0:
            _copy_size(host_terminal(), console)
        elif number not in KEPT and not (console >= 0 and number in (SIGTTIN, SIGTTOU)):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return None
        return None

    def _with_terminal(self, pid: int, console: int) -> int:
        """Copy between our terminal and the process's, ours being raw meanwhile."""
        from select import POLLHUP, POLLIN, poll

        terminal = host_terminal()
        restore = _make_raw(terminal)
        pidfd = os.pidfd_open(pid)
        try:
            poller = poll()
            poller.register(0, POLLIN)
            poller.register(console, POLLIN)
            poller.register(pidfd, POLLIN)
            code = None
            open_console = True
            while code is None or open_console:
                ready = dict(poller.poll(50 if code is None else 0))
                if console in ready and open_console:
                    data = _read(console)
                    if data:
                        _write_all(1, data)
                    else:
                        poller.unregister(console)
                        open_console = False
                elif code is not None:
                    break
                if ready.get(0, 0) & (POLLIN | POLLHUP):
                    data = _read(0)
                    if data:
                        _write_all(console, data)
                    else:
                        poller.unregister(0)
                        _write_all(console, b"\x04")  # end of file, as a terminal says it
                if code is None:
                    code = self._next(pid, 0, console)
                    if code is not None:
                        poller.unregister(pidfd)
            return code
        finally:
            os.close(pidfd)
            os.close(console)
            restore()


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 32768)
    except OSError as error:
        if error.errno in (EIO, EAGAIN, EINTR):  # EIO: nobody has the terminal's other side any more
            return b""
        raise


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except OSError as error:
            if error.errno == EIO:
                return
            raise


def host_terminal() -> int:
    """Which of our standard streams is the terminal that a person sits at (any may be redirected); 0 if none is."""
    for fd in (2, 1, 0):
        if os.isatty(fd):
            return fd
    return 0


def _copy_size(terminal: int, console: int) -> None:
    from fcntl import ioctl

    try:
        size = ioctl(terminal, 0x5413, b"\0" * 8)  # TIOCGWINSZ
        ioctl(console, 0x5414, size)  # TIOCSWINSZ
    except OSError:
        return  # none of our streams is a terminal: there is no size to follow


def _make_raw(fd: int) -> "Callable[[], None]":
    """Put a terminal into raw mode; a function that undoes it (nothing is done when it is none)."""
    import termios

    try:
        before = termios.tcgetattr(fd)
    except termios.error:
        return lambda: None
    raw = [*before]
    raw[0] = before[0] & ~(
        termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON | termios.INLCR | termios.IGNCR
    )
    raw[1] = before[1] & ~termios.OPOST
    raw[2] = before[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    raw[3] = before[3] & ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG | termios.ECHONL)
    raw[6] = [*before[6]]
    raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSADRAIN, raw)

    def restore() -> None:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)

    return restore
