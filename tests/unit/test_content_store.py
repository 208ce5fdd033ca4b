"""The content store: what is in it is whole, whatever happens on the way."""

import gzip
import io
import os
from pathlib import Path

import pytest
import zstandard

from boxship.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    Unavailable,
)
from boxship.image.compression import inflate
from boxship.image.content import FREED_AT_ONCE, ContentStore
from boxship.oci import digest as digests

DATA = os.urandom(300_000)
DIGEST = digests.of(DATA)


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path))


def ingestions(store: ContentStore) -> "list[str]":
    return os.listdir(os.path.join(store.root, "ingest"))


def test_what_is_put_is_found_by_its_digest(store: ContentStore) -> None:
    assert store.add(io.BytesIO(DATA), expected=DIGEST, size=len(DATA)) == (DIGEST, True)
    assert store.add(io.BytesIO(DATA)) == (DIGEST, False)
    assert store.info(DIGEST).size == len(DATA)
    assert [blob.digest for blob in store.walk()] == [DIGEST]
    with store.open(DIGEST) as blob:
        assert blob.read() == DATA
    assert ingestions(store) == []


@pytest.mark.parametrize(
    ("expected", "size"),
    [(digests.of(b"other"), -1), (DIGEST, len(DATA) - 1), (DIGEST, len(DATA) + 1), ("", 5)],
)
def test_a_wrong_digest_or_size_is_data_loss_and_leaves_nothing(
    store: ContentStore, expected: str, size: int
) -> None:
    with pytest.raises(DataLoss):
        store.put(io.BytesIO(DATA), expected=expected, size=size)
    assert list(store.walk()) == []
    assert ingestions(store) == []


def test_known_content_is_still_verified_when_it_comes_again(store: ContentStore) -> None:
    store.put(DATA)
    with pytest.raises(DataLoss):
        store.put(io.BytesIO(DATA + b"x"), expected=DIGEST)


def test_an_ingestion_goes_on_where_it_stopped(store: ContentStore) -> None:
    writer = store.writer("ref", total=len(DATA), expected=DIGEST)
    writer.write(DATA[:1000])
    writer.close()
    assert store.status("ref").offset == 1000
    again = ContentStore(store.root).writer("ref")
    assert (again.offset, again.total, again.expected) == (1000, len(DATA), DIGEST)
    again.write(DATA[1000:])
    assert again.commit(size=len(DATA)) == DIGEST
    with pytest.raises(NotFound):
        store.status("ref")


def test_a_ref_has_one_writer_at_a_time(store: ContentStore) -> None:
    writer = store.writer("ref")
    with pytest.raises(Unavailable):
        store.writer("ref")
    writer.close()
    writer.close()
    store.writer("ref").close()


def test_truncating_forgets_the_rest_and_cannot_invent_bytes(store: ContentStore) -> None:
    writer = store.writer("ref")
    writer.write(b"wrong" + DATA)
    writer.truncate(0)
    writer.write(DATA)
    with pytest.raises(OutOfRange):
        writer.truncate(len(DATA) + 1)
    with pytest.raises(FailedPrecondition):
        writer.commit(size=1)
    assert writer.commit() == DIGEST


def test_starting_an_ingestion_of_known_content_reports_already_exists(store: ContentStore) -> None:
    store.put(DATA)
    with pytest.raises(AlreadyExists):
        store.writer("ref", expected=DIGEST)
    writer = store.writer("ref")
    writer.write(DATA)
    with pytest.raises(AlreadyExists):
        writer.commit()
    assert ingestions(store) == []


def test_deleting_and_aborting(store: ContentStore) -> None:
    store.put(DATA)
    store.delete(DIGEST)
    store.delete(DIGEST)
    for call in (store.info, store.open, store.abort):
        with pytest.raises(NotFound):
            call(DIGEST)
    with pytest.raises(InvalidArgument):
        store.info("sha256:../../../etc/passwd")


def test_ingestions_that_nobody_continues_expire(store: ContentStore) -> None:
    store.writer("old").close()
    assert store.expire(3600) == 0
    assert store.expire(-1) == 1
    assert store.statuses() == []


RAW = os.urandom(200_000) + bytes(700_000)
COMPRESSED = {
    "gzip": gzip.compress(RAW),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress(RAW),
    "zstd without size": zstandard.ZstdCompressor(write_content_size=False).compress(RAW),
}


def read_all(data: bytes, size: int) -> bytes:
    stream = inflate(io.BytesIO(data))
    parts = []
    while part := stream.read(size):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("name", COMPRESSED)
def test_several_members_inflate_to_their_sum(name: str) -> None:
    data = COMPRESSED[name]
    assert read_all(data + data, 10_000) == RAW + RAW


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_compressed_stream_that_is_cut_short_is_data_loss_wherever_it_is_cut(name: str) -> None:
    data = COMPRESSED[name]
    for end in [*range(7, 30), 1000, len(data) // 2, *range(len(data) - 9, len(data))]:
        with pytest.raises(DataLoss):
            read_all(data[:end], 100_000)
    with pytest.raises(DataLoss):
        read_all(data + data[: len(data) - 3], 100_000)


def test_a_flipped_bit_is_data_loss() -> None:
    data = bytearray(COMPRESSED["gzip"])
    data[1000] ^= 4
    with pytest.raises(DataLoss):
        read_all(bytes(data), 4096)


def test_a_compression_that_images_do_not_use_is_named() -> None:
    with pytest.raises(InvalidArgument, match="xz"):
        inflate(io.BytesIO(b"\xfd7zXZ\x00" + bytes(20)))


def test_a_large_blob_is_gone_at_once_and_its_blocks_when_the_descriptor_is_closed(tmp_path: Path) -> None:
    store = ContentStore(str(tmp_path))
    small, large = store.put(b"small"), store.put(bytes(FREED_AT_ONCE))
    assert store.unlink(small) == -1
    held = store.unlink(large)
    try:
        assert not store.exists(small)
        assert not store.exists(large)
        assert os.fstat(held).st_nlink == 0
    finally:
        os.close(held)
    assert store.unlink(large) == -1
