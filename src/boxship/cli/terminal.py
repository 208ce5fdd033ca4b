"""The caller's terminal: raw mode, its size, and the keys that detach."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_terminal(fd: int) -> bool:
    return os.isatty(fd)


def size(fd: int = 1) -> tuple[int, int]:
    """(rows, columns), zeros when it is no terminal."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return 0, 0
    return rows, columns


class Raw:
    """``with Raw(fd):`` the terminal passes every key on; restored at the end, whatever happens."""

    def __init__(self, fd: int, wanted: bool) -> None:
        self._fd = fd
        self._wanted = wanted and os.isatty(fd)
        self._before: list[Any] = []

    def __enter__(self) -> Raw:
        if self._wanted:
            self._before = termios.tcgetattr(self._fd)
            tty.setraw(self._fd, termios.TCSANOW)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._before:
            sys.stdout.flush()
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
