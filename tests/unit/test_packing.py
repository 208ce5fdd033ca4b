"""Layers that are compressed on several cores: what comes out is one valid stream, and the same on every machine."""

from __future__ import annotations

import gc
import gzip
import hashlib
import io
import random
import threading
import time
import zlib
from collections.abc import Callable

import pytest
import zstandard

from boxship.image.compression import inflate
from boxship.image.packing import BLOCK, JOB, Packer, packer, quick_packer

MAKERS: dict[str, Callable[[int], Packer]] = {
    "gzip": lambda threads: packer("gzip", threads=threads),
    "gzip 0": lambda threads: packer("gzip", 0, threads=threads),
    "gzip 9": lambda threads: packer("gzip", 9, threads=threads),
    "quick": lambda threads: quick_packer(threads=threads),
    "zstd": lambda threads: packer("zstd", threads=threads),
    "zstd 20": lambda threads: packer("zstd", 20, threads=threads),
}
GZIP = [name for name in MAKERS if not name.startswith("zstd")]
SIZES = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 7 * BLOCK + 12_345)


def text(size: int) -> bytes:
    """Words in an order of their own: compressible, across the borders of blocks too; the same on every machine."""
    words = [hashlib.sha256(b"%d" % number).hexdigest()[: 3 + number % 9].encode() for number in range(500)]
    numbers = hashlib.shake_256(b"boxship").digest(2 * (size // 4 + 1))
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return b" ".join([words[(high << 8 | low) % 500] for high, low in pairs])[:size]


def packed(packing: Packer, data: bytes, piece: int = 1 << 18) -> bytes:
    parts = [packing.compress(data[at : at + piece]) for at in range(0, len(data), piece)]
    return b"".join([*parts, packing.flush()])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MAKERS)
def test_what_is_packed_inflates_to_what_it_was(name: str, size: int) -> None:
    data = text(size)
    out = packed(MAKERS[name](2), data)
    assert inflate(io.BytesIO(out)).read() == data
    if name in GZIP:
        assert gzip.decompress(out) == data
        whole = zlib.decompressobj(31)
        assert (whole.decompress(out), whole.eof, whole.unused_data) == (data, True, b""), "one member"
    else:
        assert zstandard.ZstdDecompressor().decompressobj().decompress(out) == data


@pytest.mark.parametrize("name", MAKERS)
def test_neither_threads_nor_pieces_change_a_byte(name: str) -> None:
    data = text(2 * JOB + 3 * BLOCK + 17 if name == "zstd" else 5 * BLOCK + 17)
    found = {
        hashlib.sha256(packed(MAKERS[name](threads), data, piece)).hexdigest()
        for threads, piece in ((1, 1 << 18), (2, 1 << 18), (5, 1000), (3, BLOCK), (2, BLOCK + 1), (1, len(data)))
    }
    assert len(found) == 1


# Made on x86-64 and found equal on arm64 and on x86 without AVX. A new zstd may write other bytes, and then changes
# the digests of new layers: that is a line for the changelog.
KNOWN = {
    "gzip": "8eba14bd4bbcc3a917614b3efc15d4012b99a6ab098720c328de545dd5310577",
    "gzip 9": "63c97074119fb37024cacef643950c7b0808ba0b0e4e997c54b607e12819ad28",
    "zstd": "1bb2eb3c16246f4708d4150bf92ad77795f85ec1bedfced89c74c857db7e2b3e",
}


@pytest.mark.skipif("ng" in zlib.ZLIB_RUNTIME_VERSION, reason="zlib-ng deflates to other bytes than zlib")
@pytest.mark.parametrize("name", KNOWN)
def test_every_machine_writes_these_bytes(name: str) -> None:
    assert hashlib.sha256(packed(MAKERS[name](0), text(5_000_000))).hexdigest() == KNOWN[name]


def test_blocks_know_what_precedes_them() -> None:
    once = random.Random(1).randbytes(BLOCK - (1 << 14))
    data = (once + bytes(1 << 14))[: BLOCK - 1000] + once[-2000:] + once[-2000:]
    apart = sum(len(packed(packer("gzip", threads=1), part)) for part in (data[:BLOCK], data[BLOCK:]))
    assert len(packed(packer("gzip", threads=2), data)) < apart - 900


@pytest.mark.parametrize("name", GZIP)
def test_a_packer_holds_a_bounded_number_of_blocks(name: str) -> None:
    threads, data = 2, text(40 * BLOCK)
    packing, back, came = MAKERS[name](threads), zlib.decompressobj(31), 0
    for at in range(0, len(data), BLOCK // 2):
        came += len(back.decompress(packing.compress(data[at : at + BLOCK // 2])))
        assert at + BLOCK // 2 - came <= (2 * threads + 1) * BLOCK
    assert came + len(back.decompress(packing.flush())) == len(data)


def test_the_threads_of_a_packer_that_is_dropped_end() -> None:
    packing = packer("gzip", threads=3)
    packing.compress(text(4 * BLOCK))
    assert deflating() > 0
    del packing
    gc.collect()
    deadline = time.monotonic() + 10
    while deflating():
        assert time.monotonic() < deadline, "they are still there"
        time.sleep(0.01)


def test_a_layer_of_one_block_starts_no_thread() -> None:
    before = deflating()
    packing = packer("gzip", threads=3)
    packing.compress(text(BLOCK - 1))
    assert deflating() == before
    packing.flush()


def deflating() -> int:
    return sum(thread.name.startswith("deflate") for thread in threading.enumerate())
