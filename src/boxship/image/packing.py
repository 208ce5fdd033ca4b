"""Compressing layers, on all cores, to bytes that are a function of the input alone.

gzip is cut into blocks of a fixed size, and threads deflate them: each knows the 32 KiB before it as its dictionary
and ends at a byte's border (a sync flush), so that, joined, they are one deflate stream and one gzip member, as pigz
and Go's pgzip write it. Where blocks begin depends neither on how the input came nor on how many threads there are.
zstd does the same itself: its workers' jobs have a fixed size, too.

Equal input gives equal bytes on every machine: headers hold neither a name nor a time, and zlib and zstd compute
alike on every CPU (what stands in for zlib, such as zlib-ng, gives bytes of its own). ISA-L does not: level 3 differs
between x86 with and without AVX2, levels 0 to 2 between x86 and ARM. So it is only for layers that stay where they
were made (`quick_packer`).

A packer holds a bounded number of blocks, whatever the layer's size.
"""

import os
import struct
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Protocol

import zstandard
from isal import isal_zlib

from boxship.image.streams import Compression

GZIP_LEVEL = 4
"""Two thirds of level 6's time for three per cent more bytes; fewer bytes than umoci's."""
ZSTD_LEVEL = 3
QUICK_LEVEL = 1

BLOCK = 1 << 18
"""Bytes of input that are deflated at once. Changing it changes every layer's digest, as do JOB and OVERLAP."""
WINDOW = 1 << 15
JOB = 2 << 20
"""zstd's default of 8 MiB costs 30 MB a thread."""
OVERLAP = 9
"""Each job knows a whole window of what precedes it: fewer bytes than without threads, for a tenth more time."""
ULTRA = 20
"""From this level on a zstd window, which each worker would have, is 32 MiB and more: one thread."""

_MOST_THREADS = {"gzip": 16, "zstd": 4}
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no flags, no time, no system (RFC 1952, section 2.3)

Deflate = Callable[[bytes, bytes, bool], bytes]
"""A block, what precedes it, and whether it is the last, as raw deflate."""


class Packer(Protocol):
    """Compresses what it is fed; `flush` gives the rest, once."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def packer(compression: Compression, level: "int | None" = None, *, threads: int = 0) -> Packer:
    """``level`` is zlib's (0 to 9) or zstd's (1 to 22). ``threads`` 0 takes as many as there are cores for us; how
    many there are changes no byte."""
    most = threads or min(len(os.sched_getaffinity(0)), _MOST_THREADS.get(compression, 1))
    match compression:
        case "gzip":
            return _Blocks(_deflate_with(zlib, GZIP_LEVEL if level is None else level), most)
        case "zstd":
            chosen = ZSTD_LEVEL if level is None else level
            if chosen >= ULTRA:
                return zstandard.ZstdCompressor(level=chosen).compressobj()
            parameters = zstandard.ZstdCompressionParameters.from_level(
                chosen, threads=most, job_size=JOB, overlap_log=OVERLAP
            )
            return zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        case "":
            return _Plain()


def quick_packer(*, threads: int = 0) -> Packer:
    """gzip by ISA-L, eight times as fast as zlib's level 4 for a tenth more bytes, which are this kind of CPU's.

    For layers that somebody waits for and whose identity is their diff ID.
    """
    return _Blocks(
        _deflate_with(isal_zlib, QUICK_LEVEL), threads or min(len(os.sched_getaffinity(0)), _MOST_THREADS["gzip"])
    )


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _deflate_with(library: ModuleType, level: int) -> Deflate:
    """By zlib, or by isal's module of the same form."""
    begin = library.compressobj
    deflated, memory, strategy = library.DEFLATED, library.DEF_MEM_LEVEL, library.Z_DEFAULT_STRATEGY
    sync, finish = library.Z_SYNC_FLUSH, library.Z_FINISH

    def deflate(block: bytes, before: bytes, last: bool) -> bytes:
        known = {"zdict": before} if before else {}
        stream = begin(level, deflated, -zlib.MAX_WBITS, memory, strategy, **known)
        packed: bytes = stream.compress(block) + stream.flush(finish if last else sync)
        return packed

    return deflate


class _Blocks:
    """One gzip member of blocks. Blocks wait in order until they are deflated; twice as many as there are threads."""

    def __init__(self, deflate: Deflate, threads: int) -> None:
        self._deflate = deflate
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None  # a layer of one block needs none
        self._waiting: deque[Callable[[], bytes]] = deque()
        self._pending = bytearray()
        self._before = b""
        self._crc = 0
        self._size = 0
        self._header = _HEADER

    def compress(self, data: bytes, /) -> bytes:
        self._pending += data
        if len(self._pending) < BLOCK:
            return b""
        packed = [self._header]
        self._header = b""
        whole = len(self._pending) - len(self._pending) % BLOCK
        with memoryview(self._pending) as pending:
            for at in range(0, whole, BLOCK):
                self._start(bytes(pending[at : at + BLOCK]))
                while len(self._waiting) > 2 * self._threads:
                    packed.append(self._waiting.popleft()())
        del self._pending[:whole]
        return b"".join(packed)

    def flush(self) -> bytes:
        rest = bytes(self._pending)
        self._crc, self._size = isal_zlib.crc32(rest, self._crc), self._size + len(rest)
        last = self._deflate(rest, self._before, True)
        packed = [self._header, *(done() for done in self._waiting), last]
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        return b"".join((*packed, struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)))

    def _start(self, block: bytes) -> None:
        self._crc, self._size = isal_zlib.crc32(block, self._crc), self._size + len(block)
        before, self._before = self._before, block[-WINDOW:]
        if self._threads == 1:
            packed = self._deflate(block, before, False)
            self._waiting.append(lambda: packed)
            return
        if self._pool is None:
            # Whoever drops a packer half way drops the pool, whose threads then end by themselves.
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="deflate")
        self._waiting.append(self._pool.submit(self._deflate, block, before, False).result)
