"""Compressed streams: what a layer's first bytes say it is, and readers that inflate it. `packing` has the way back.

Detection is by magic number, as every other tool does it, because media types are wrong too often.
gzip may have several members (pigz, eStargz), zstd several frames: both readers go on through all of them.
"""

import gzip
import zlib
from collections.abc import Generator
from typing import BinaryIO, cast

import zstandard
from isal import igzip
from isal.igzip_lib import IsalError

from boxship.errors import DataLoss, InvalidArgument

from .streams import CHUNK, Compression, Reader

__all__ = ["CHUNK", "Compression", "Inflating", "Peekable", "Reader", "detect", "inflate"]

_MAGIC: "tuple[tuple[bytes, Compression], ...]" = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_SKIPPABLE_ZSTD = b"\x2a\x4d\x18"  # frames 0x184D2A50..5F, little-endian after the first byte
_OTHERS: "tuple[tuple[bytes, str], ...]" = ((b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"))


def detect(head: bytes) -> Compression:
    """The compression of a stream that begins with ``head`` (6 bytes suffice); raises InvalidArgument for
    a compression that image-spec does not know."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if len(head) >= 4 and head[1:4] == _SKIPPABLE_ZSTD and 0x50 <= head[0] <= 0x5F:
        return "zstd"
    for magic, other in _OTHERS:
        if head.startswith(magic):
            raise InvalidArgument(f"{other} compression is not supported", remedy="use gzip, zstd or none")
    return ""


class Peekable:
    """A reader whose first bytes can be looked at before they are read. ``read`` returns short only at the end."""

    def __init__(self, source: Reader) -> None:
        self._source = source
        self._head = b""

    def peek(self, size: int) -> bytes:
        while len(self._head) < size:
            more = self._source.read(size - len(self._head))
            if not more:
                break
            self._head += more
        return self._head[:size]

    def read(self, size: int = -1, /) -> bytes:
        if self._head:
            if size < 0:
                head, self._head = self._head, b""
                return head + self._source.read(size)
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._source.read(size)

    def readinto(self, buffer: memoryview, /) -> int:
        """What isal's reader calls."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _ZstdFrames:
    """Follows the frame structure (RFC 8878, section 3.1) of the compressed bytes that pass through ``read``.

    The zstandard package's reader takes an end in the middle of a frame for the end of the data, so whether
    the last frame was whole has to be known from here. Looks at headers only: 3 bytes per 128 KiB block.
    """

    def __init__(self, source: Reader) -> None:
        self._source = source
        self._steps = self._follow()
        self._want = next(self._steps)  # n payload bytes to pass over, or -n: n header bytes to look at
        self._have = 0
        self._header = b""
        self.whole = True

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        at = 0
        while at < len(data):
            self.whole = False
            step = min(abs(self._want) - self._have, len(data) - at)
            if self._want < 0:
                self._header += data[at : at + step]
            self._have += step
            at += step
            while self._have == abs(self._want):
                header, self._header, self._have = self._header, b"", 0
                self._want = self._steps.send(header)
        return data

    def _follow(self) -> "Generator[int, bytes, None]":
        while True:
            magic = yield -4
            self.whole = False
            if magic[1:] == _SKIPPABLE_ZSTD:
                yield int.from_bytes((yield -4), "little")
                self.whole = True
                continue
            descriptor = (yield -1)[0]
            single = descriptor >> 5 & 1
            content_size = (single, 2, 4, 8)[descriptor >> 6]
            yield (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content_size
            last = False
            while not last:
                block = int.from_bytes((yield -3), "little")
                last = bool(block & 1)
                yield 1 if block >> 1 & 3 == 1 else block >> 3
            yield 4 if descriptor >> 2 & 1 else 0
            self.whole = True


class Inflating:
    """Inflates ``source``; damaged or cut-short data raises DataLoss at the read that meets it."""

    def __init__(self, source: Peekable, compression: Compression) -> None:
        self.compression = compression
        self._frames: "_ZstdFrames | None" = None
        self._stream: Reader
        match compression:
            case "gzip":
                self._stream = igzip.IGzipFile(fileobj=source, mode="rb")  # type: ignore[no-untyped-call]  # theirs
            case "zstd":
                self._frames = _ZstdFrames(source)
                self._stream = zstandard.ZstdDecompressor().stream_reader(
                    cast(BinaryIO, self._frames), read_size=CHUNK, read_across_frames=True
                )
            case "":
                self._stream = source

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = self._stream.read(size)
            at_end = size < 0 or (not data and size > 0)
            if at_end and self._frames is not None and not self._frames.whole:
                raise EOFError("the last frame is not whole")
            return data
        except (EOFError, zlib.error, IsalError, zstandard.ZstdError, gzip.BadGzipFile) as error:  # type: ignore[misc]  # isal declares IsalError as a value
            raise DataLoss(f"{self.compression} stream is damaged or cut short", cause=str(error)) from error


def inflate(source: Reader) -> Inflating:
    """Detect the compression of ``source`` and inflate it."""
    peekable = Peekable(source)
    return Inflating(peekable, detect(peekable.peek(6)))
