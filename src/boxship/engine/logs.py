"""Reading back a container's log: json-file lines that the shim writes, rotated files included.

A line is ``{"log": "...", "stream": "stdout", "time": "..."}``, as dockerd writes them; a message longer than 16 KB
stands on several lines, of which only the last one's text ends in a newline.
Files are ``PATH``, ``PATH.1`` (older), ``PATH.2`` ...; reading runs in worker threads, following waits for inotify.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from .clock import parse_rfc3339
from .stdio import STDERR, STDOUT, frame
from .watch import Watch

BLOCK = 256 * 1024
BATCH = 512  # entries that go to the client in one write


class Line(msgspec.Struct):
    log: str = ""
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] | None = None


@dataclass(frozen=True)
class Selection:
    """What of a log is wanted. ``tail`` is -1 for all; ``since`` and ``until`` are nanoseconds, 0 for none."""

    streams: frozenset[int]
    tail: int = -1
    since: int = 0
    until: int = 0
    timestamps: bool = False
    details: bool = False
    multiplexed: bool = True

    def render(self, line: Line) -> bytes | None:
        """The bytes that the client gets for a line, None when it is not wanted."""
        stream = STDERR if line.stream == "stderr" else STDOUT
        if stream not in self.streams:
            return None
        if self.since or self.until:
            moment = parse_rfc3339(line.time)
            if moment < self.since or (self.until and moment > self.until):
                return None
        text = line.log
        if self.details:
            text = ",".join(f"{k}={v}" for k, v in sorted((line.attrs or {}).items())) + " " + text
        if self.timestamps:
            text = f"{padded(line.time)} {text}"
        data = text.encode("utf-8", "surrogateescape")
        return frame(stream, data) if self.multiplexed else data


def padded(time: str) -> str:
    """A time with all nine digits of its fraction, as ``docker logs --timestamps`` prints it."""
    main, _, fraction = time.rstrip("Z").partition(".")
    return f"{main}.{fraction:0<9}Z"


_decode = msgspec.json.Decoder(Line).decode


def parse(raw: bytes) -> Line | None:
    """A line, or None for one that is not whole (a crash or a full disk cut it)."""
    try:
        return _decode(raw)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


def rotated(path: Path) -> list[Path]:
    """The log's files, oldest first."""
    files = [path]
    number = 1
    while (older := path.with_name(f"{path.name}.{number}")).exists():
        files.append(older)
        number += 1
    return [file for file in reversed(files) if file.exists()]


def tail_lines(path: Path, count: int) -> list[bytes]:
    """The last ``count`` whole lines of a file, read from its end."""
    with open(path, "rb") as f:
        f.seek(0, os.SEEK_END)
        position = f.tell()
        data = b""
        while position and data.count(b"\n") <= count:
            step = min(BLOCK, position)
            position -= step
            f.seek(position)
            data = f.read(step) + data
    lines = data.split(b"\n")
    lines.pop()  # after the last newline: nothing, or a line that is still being written
    return lines[-count:] if count else []


class Reader:
    """Reads one container's log from the start (or its tail) and remembers where it stopped."""

    def __init__(self, path: Path, selection: Selection) -> None:
        self._path = path
        self._selection = selection
        self._inode = 0
        self._offset = 0
        self._rest = b""

    def past(self) -> Iterator[bytes]:
        """Batches of what the log holds now."""
        selection = self._selection
        if selection.tail == 0:
            self._skip_to_end()
            return
        if selection.tail > 0:
            wanted: deque[bytes] = deque(maxlen=selection.tail)
            for file in reversed(rotated(self._path)):
                missing = selection.tail - len(wanted)
                if missing <= 0:
                    break
                # Lines of unwanted streams do not count, so more may have to be read than asked for.
                found = self._tail_of(file, missing)
                wanted.extendleft(reversed(found))
            self._skip_to_end()
            yield b"".join(wanted)
            return
        for file in rotated(self._path):
            self._offset, self._rest, self._inode = 0, b"", 0
            yield from self._read_file(file)

    def _tail_of(self, file: Path, count: int) -> list[bytes]:
        asked = count
        while True:
            lines = tail_lines(file, asked)
            rendered = [r for r in (self._render(raw) for raw in lines) if r is not None]
            if len(rendered) >= count or len(lines) < asked:
                return rendered[-count:]
            asked *= 4

    def _render(self, raw: bytes) -> bytes | None:
        line = parse(raw)
        return None if line is None else self._selection.render(line)

    def _skip_to_end(self) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return
        self._inode, self._offset, self._rest = status.st_ino, status.st_size, b""

    def _read_file(self, file: Path) -> Iterator[bytes]:
        with open(file, "rb") as f:
            self._inode = os.fstat(f.fileno()).st_ino
            yield from self._read_from(f.fileno())

    def _read_from(self, fd: int) -> Iterator[bytes]:
        while data := os.pread(fd, BLOCK, self._offset):
            self._offset += len(data)
            lines = (self._rest + data).split(b"\n")
            self._rest = lines.pop()
            for start in range(0, len(lines), BATCH):
                rendered = [self._render(raw) for raw in lines[start : start + BATCH]]
                batch = b"".join(r for r in rendered if r)
                if batch:
                    yield batch

    def new(self) -> Iterator[bytes]:
        """Batches of what came since; a file that was rotated away is finished first."""
        try:
            current = self._path.stat()
        except FileNotFoundError:
            return
        if self._inode and current.st_ino != self._inode:
            for older in rotated(self._path)[:-1][::-1]:
                if older.stat().st_ino == self._inode:
                    yield from self._read_file(older)
                    break
        if current.st_ino != self._inode:
            self._offset, self._rest = 0, b""
        yield from self._read_file(self._path)


async def stream(
    path: Path,
    selection: Selection,
    write: Callable[[bytes], Awaitable[None]],
    follow: Callable[[], Awaitable[None]] | None,
) -> None:
    """Write a log's past to ``write``; with ``follow``, go on until that coroutine (the exit) is done."""
    reader = Reader(path, selection)
    async for batch in _in_thread(reader.past()):
        await write(batch)
    if follow is None:
        return
    with Watch(str(path.parent)) as watch:
        ended = asyncio.ensure_future(follow())
        try:
            while True:
                last = ended.done()
                async for batch in _in_thread(reader.new()):
                    await write(batch)
                if last or (selection.until and selection.until < _now()):
                    return
                changed = asyncio.ensure_future(watch.changed())
                try:
                    await asyncio.wait({changed, ended}, return_when=asyncio.FIRST_COMPLETED, timeout=1.0)
                finally:
                    changed.cancel()
        finally:
            ended.cancel()


def _now() -> int:
    import time

    return time.time_ns()


async def _in_thread(batches: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The iterator's items, each taken in a worker thread: reading and decoding do not hold the loop up."""
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        yield batch
