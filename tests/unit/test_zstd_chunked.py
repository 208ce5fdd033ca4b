"""zstd:chunked layers: read as the zstd that they are, passed as they came, and changed without a trace."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from boxship.errors import DataLoss
from boxship.image.apply import apply_layer
from boxship.image.compression import detect, inflate
from boxship.image.content import ContentStore
from boxship.image.copy import Options, copy
from boxship.image.layout import Layout
from boxship.image.registry.client import Repository
from boxship.image.registry.transfer import pull
from boxship.image.transports import Access, open_destination, open_source, parse
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci import reference

from . import image_samples as samples
from . import zstd_chunked
from .fake_registry import fake_registry

PLAIN = samples.layer(**{"first": bytes(range(256)) * 2000, "empty": b"", "dir/second": b"another file\n" * 5000})
BLOB, ANNOTATIONS = zstd_chunked.build(PLAIN)


class Bytewise:
    """A source that gives a byte at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._data.read(min(size, 1) if size >= 0 else -1)


@pytest.fixture
def image(tmp_path: Path) -> str:
    layout = Layout.create(str(tmp_path / "image"))
    layout.tag("x", samples.into_layout(layout, (PLAIN,), blobs=(BLOB,), annotations=ANNOTATIONS))
    return f"oci:{tmp_path}/image:x"


def copied(source: str, destination: str, options: Options) -> oci.Descriptor:
    """The layer that arrived."""
    reading, writing = open_source(parse(source), Access()), open_destination(parse(destination), Access())
    try:
        return copy(reading, writing, options).manifest().layers[0]
    finally:
        reading.close()
        writing.close()


def test_it_inflates_to_its_tar() -> None:
    assert detect(BLOB[:6]) == "zstd"
    assert inflate(io.BytesIO(BLOB)).read() == PLAIN
    stream, found = inflate(Bytewise(BLOB)), b""
    while data := stream.read(1000):
        found += data
    assert found == PLAIN


def test_a_reader_that_begins_at_a_skippable_frame_reads_the_rest() -> None:
    """Nothing says that the TOC is last."""
    assert inflate(io.BytesIO(zstd_chunked.skippable(b"what others put first") + BLOB)).read() == PLAIN


@pytest.mark.parametrize("missing", [1, 8, 60, 71, 72 + 1, len(BLOB) // 2])
def test_one_that_is_cut_short_is_data_loss(missing: int) -> None:
    with pytest.raises(DataLoss, match="cut short"):
        inflate(io.BytesIO(BLOB[:-missing])).read()


@pytest.mark.root
def test_its_files_are_unpacked(tmp_path: Path) -> None:
    applied = apply_layer(io.BytesIO(BLOB), str(tmp_path), overlay=False)
    assert (applied.diff_id, applied.size) == (digests.of(PLAIN), len(PLAIN))
    assert (tmp_path / "first").read_bytes() == bytes(range(256)) * 2000
    assert (tmp_path / "empty").read_bytes() == b""
    assert (tmp_path / "dir/second").read_bytes() == b"another file\n" * 5000


@pytest.mark.root
def test_a_toc_that_says_other_files_than_the_tar_is_not_believed(tmp_path: Path) -> None:
    """The diff ID vouches for the tar; the TOC of a blob is another party's word."""
    lying = zstd_chunked.skippable(b"a TOC of files that are not there") + zstd_chunked.skippable(
        bytes(56) + zstd_chunked.MAGIC
    )
    applied = apply_layer(io.BytesIO(BLOB + lying), str(tmp_path), overlay=False, diff_id=digests.of(PLAIN))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["dir", "empty", "first", "second"]
    assert applied.size == len(PLAIN)


def test_it_is_pulled_as_it_is(image: str, tmp_path: Path) -> None:
    with fake_registry() as registry:
        name = f"{registry.domain}/team/app"
        copied(image, f"docker://{name}:1", Options())
        store = ContentStore(str(tmp_path / "content"))
        found = pull(Repository(reference.parse(name)), "1", store)
    (layer,) = found.manifest.layers
    assert layer.media_type == oci.MEDIA_LAYER_ZSTD
    assert (layer.digest, layer.annotations) == (digests.of(BLOB), ANNOTATIONS)
    with store.open(layer.digest) as blob:
        assert inflate(blob).read() == PLAIN


def test_a_copy_passes_it_with_its_annotations(image: str, tmp_path: Path) -> None:
    layer = copied(image, f"oci:{tmp_path}/to:x", Options())
    assert (layer.digest, layer.annotations) == (digests.of(BLOB), ANNOTATIONS)


@pytest.mark.parametrize("prefix", ["io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."])
def test_what_is_compressed_anew_is_not_called_chunked(prefix: str, tmp_path: Path) -> None:
    """A client that believed the annotations would look for a TOC in bytes that have none."""
    annotations = {key.replace(zstd_chunked.PREFIX, prefix): value for key, value in ANNOTATIONS.items()}
    layout = Layout.create(str(tmp_path / "image"))
    other = {"org.example.note": "stays"}
    layout.tag("x", samples.into_layout(layout, (PLAIN,), blobs=(BLOB,), annotations=annotations | other))
    layer = copied(f"oci:{tmp_path}/image:x", f"oci:{tmp_path}/to:x", Options(compression="gzip"))
    assert (layer.media_type, layer.annotations) == (oci.MEDIA_LAYER_GZIP, other)
    with open(Layout(str(tmp_path / "to")).blob_path(layer.digest), "rb") as blob:
        assert inflate(blob).read() == PLAIN


def test_it_is_inflated_for_an_archive_of_dockers(image: str, tmp_path: Path) -> None:
    layer = copied(image, f"docker-archive:{tmp_path}/to.tar:a:1", Options())
    assert (layer.digest, layer.annotations) == (digests.of(PLAIN), None)
