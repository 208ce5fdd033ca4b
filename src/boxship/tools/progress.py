"""How a copy shows what it does: a line for each step, and on a terminal a bar for each blob, redrawn in place."""

from __future__ import annotations

import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from boxship.oci import image as oci

WIDTH = 30
REDRAWN_EVERY = 0.1


def report(quiet: bool) -> Lines | Bars | None:
    """What to tell a copy to report to; None for --quiet."""
    if quiet:
        return None
    return Bars(sys.stdout) if sys.stdout.isatty() else Lines(sys.stdout)


class Lines:
    """A ``boxship.image.copy.Report``: each step is a line, how far it is is not told."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        with self._lock:
            print(text, file=self._out, flush=True)

    def blob(self, descriptor: oci.Descriptor, what: str) -> None:
        kind, _, note = what.partition(" ")
        self.say(f"Copying {kind} {descriptor.digest}{' ' + note.strip('()') if note else ''}")

    def moved(self, descriptor: oci.Descriptor, count: int) -> None:
        """Nobody watches."""


class Bars(Lines):
    """The same on a terminal. The rows of one image stay together until the next line is said."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._rows: dict[str, str] = {}  # digest -> what it is, in the order of the screen
        self._drawn = 0.0

    def say(self, text: str) -> None:
        with self._lock:
            self._rows.clear()
            print(text, file=self._out, flush=True)

    def blob(self, descriptor: oci.Descriptor, what: str) -> None:
        with self._lock:
            self._rows[descriptor.digest] = what
            print(self._row(descriptor, what, 0), file=self._out, flush=True)

    def moved(self, descriptor: oci.Descriptor, count: int) -> None:
        now = time.monotonic()
        if count < descriptor.size and now - self._drawn < REDRAWN_EVERY:
            return
        with self._lock:
            self._drawn = now
            if descriptor.digest not in self._rows:
                return
            up = len(self._rows) - list(self._rows).index(descriptor.digest)
            row = self._row(descriptor, self._rows[descriptor.digest], count)
            self._out.write(f"\x1b[{up}A\r\x1b[2K{row}\x1b[{up}B\r")
            self._out.flush()

    @staticmethod
    def _row(descriptor: oci.Descriptor, what: str, count: int) -> str:
        kind, _, note = what.partition(" ")
        short = descriptor.digest.partition(":")[2][:12]
        if note:
            return f"Copying {kind} {short} {note.strip('()')}"
        full = WIDTH if descriptor.size <= 0 else min(WIDTH, WIDTH * count // descriptor.size)
        bar = ("=" * full)[:-1] + ">" if 0 < full < WIDTH else "=" * full
        return f"Copying {kind} {short} [{bar:<{WIDTH}}] {_size(count)} / {_size(descriptor.size)}"


def _size(count: int) -> str:
    size = float(max(count, 0))
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f}{unit}" if unit == "B" else f"{size:.1f}{unit}"
        size /= 1024
    return f"{size:.1f}GiB"
