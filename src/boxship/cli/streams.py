"""Carrying bytes between the caller's terminal or pipes and a container: one loop, no threads.

What can happen meanwhile: the window changes (SIGWINCH: resize), a signal arrives (passed on when the container has
no terminal), the caller presses the detach keys, the container ends.
"""

from __future__ import annotations

import os
import select
import signal
import socket

from boxship.api.engine.client import Hijacked
from boxship.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 65536
DETACH = "ctrl-p,ctrl-q"
FORWARDED = [
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT,
]  # fmt: skip


def key_codes(text: str) -> bytes:
    """The bytes of ``ctrl-p,ctrl-q``; raises InvalidArgument."""
    codes = bytearray()
    for key in (text or DETACH).split(","):
        if len(key) == 1:
            codes += key.encode()
        elif key.startswith("ctrl-") and len(key) == 6:
            codes.append(ord(key[5].upper()) & 0x1F)
        else:
            raise InvalidArgument(f"invalid detach keys {text!r}")
    return bytes(codes)


class Detacher:
    """Watches input for the detach sequence; holds back a begun one until it is none."""

    def __init__(self, codes: bytes) -> None:
        self._codes = codes
        self._held = b""
        self.detached = False

    def feed(self, data: bytes) -> bytes:
        out = bytearray()
        for number in range(len(data)):
            self._held += data[number : number + 1]
            if self._held == self._codes:
                self.detached = True
                break
            while self._held and not self._codes.startswith(self._held):
                out += self._held[:1]
                self._held = self._held[1:]
        return bytes(out)


class Demultiplexer:
    """Splits docker's multiplexed stream into (stream number, data)."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        self._buffer += data
        found = []
        while len(self._buffer) >= 8:
            length = int.from_bytes(self._buffer[4:8], "big")
            if len(self._buffer) < 8 + length:
                break
            found.append((self._buffer[0], bytes(self._buffer[8 : 8 + length])))
            del self._buffer[: 8 + length]
        return found


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


class Session:
    """One attached session; ``run`` returns when the output ended or the caller detached."""

    def __init__(
        self,
        hijacked: Hijacked,
        *,
        stdin: bool,
        tty: bool,
        detach_keys: str = "",
        on_signal: Callable[[int], None] | None = None,
        on_resize: Callable[[], None] | None = None,
    ) -> None:
        self._socket: socket.socket = hijacked.socket
        self._hijacked = hijacked
        self._stdin = stdin
        self._tty = tty
        self._detacher = Detacher(key_codes(detach_keys)) if tty else None
        self._on_signal = on_signal
        self._on_resize = on_resize
        self._split = Demultiplexer()
        self.detached = False

    def _output(self, data: bytes) -> None:
        if not self._hijacked.multiplexed:
            write_all(1, data)
            return
        for stream, part in self._split.feed(data):
            write_all(2 if stream == 2 else 1, part)

    def run(self) -> None:
        """Signals are handled only while this runs; what they did before is restored."""
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        wanted = [*(FORWARDED if self._on_signal else ()), *((signal.SIGWINCH,) if self._on_resize else ())]
        before = {number: signal.signal(number, lambda *_: None) for number in wanted}
        old = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        try:
            if self._hijacked.early:
                self._output(self._hijacked.early)
            self._loop(read)
        finally:
            signal.set_wakeup_fd(old)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(read)
            os.close(write)

    def _loop(self, signals: int) -> None:
        poll = select.poll()
        out = self._socket.fileno()
        poll.register(out, select.POLLIN)
        poll.register(signals, select.POLLIN)
        if self._stdin:
            poll.register(0, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == signals:
                    self._signals(os.read(signals, 64))
                elif fd == out:
                    try:
                        data = self._socket.recv(CHUNK)
                    except ConnectionResetError:
                        data = b""
                    if not data:
                        return
                    self._output(data)
                elif not self._input():
                    poll.unregister(0)
                    if self.detached:
                        return

    def _input(self) -> bool:
        """Pass input on; False when there is no more."""
        try:
            data = os.read(0, CHUNK)
        except OSError:
            data = b""
        if not data:
            self._hijacked.close_input()
            return False
        if self._detacher is not None:
            data = self._detacher.feed(data)
        try:
            self._socket.sendall(data)
        except OSError:
            return False  # the process does not read any more; its output tells when it ends
        if self._detacher is not None and self._detacher.detached:
            self.detached = True
            return False
        return True

    def _signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGWINCH and self._on_resize:
                self._on_resize()
            elif number in FORWARDED and self._on_signal:
                self._on_signal(number)
