"""Copying between transports: what passes unchanged, what is changed on request, and what stops a copy."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from boxship.errors import BoxshipError, DataLoss, FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from boxship.image import manifests
from boxship.image.compression import detect, inflate
from boxship.image.copy import Options, copy
from boxship.image.layout import Layout
from boxship.image.manifests import Document
from boxship.image.parallel import Pool
from boxship.image.transports import Access, ImageNotFound, delete, open_destination, open_source, parse
from boxship.image.transports.base import FileBlob
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci import platform as platforms

from . import image_samples as samples
from .fake_registry import FakeRegistry, fake_registry


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as found:
        yield found


@pytest.fixture
def image(tmp_path: Path) -> str:
    samples.directory(tmp_path / "image")
    return f"dir:{tmp_path}/image"


def copied(source: str, destination: str, options: Options | None = None, access: Access | None = None) -> Document:
    reading = open_source(parse(source), Access())
    try:
        writing = open_destination(parse(destination), access or Access())
        try:
            return copy(reading, writing, options or Options())
        finally:
            writing.close()
    finally:
        reading.close()


def document(name: str) -> Document:
    source = open_source(parse(name), Access())
    try:
        return source.manifest()
    finally:
        source.close()


def content(name: str) -> list[bytes]:
    """The layers, inflated."""
    source = open_source(parse(name), Access())
    try:
        found = []
        for layer in source.manifest().manifest().layers:
            blob = source.blob(layer)
            found.append(inflate(blob).read())
            blob.close()
        return found
    finally:
        source.close()


# ── What passes ──


PASSING = ["dir:{}/to", "docker://{}/team/app:1"]


@pytest.mark.parametrize("destination", PASSING)
def test_a_copy_that_changes_nothing_passes_bytes(
    destination: str, image: str, registry: FakeRegistry, tmp_path: Path
) -> None:
    there = destination.format(registry.domain if destination.startswith("docker:") else tmp_path)
    copied(image, there)
    copied(there, f"dir:{tmp_path}/back")
    before, after = Path(image.removeprefix("dir:")), tmp_path / "back"
    assert {one.name: one.read_bytes() for one in before.iterdir()} == {
        one.name: one.read_bytes() for one in after.iterdir()
    }


ANY = ["dir:{}/to", "oci:{}/to:name", "oci-archive:{}/to.tar:name", "docker-archive:{}/to.tar:tiny:1"]


@pytest.mark.parametrize("destination", ANY)
@pytest.mark.parametrize("source", ["oci:{}/layout:tiny", "docker-archive:{}/from.tar", "oci-archive:{}/from.tar"])
def test_layers_and_config_arrive_through_every_transport(source: str, destination: str, tmp_path: Path) -> None:
    samples.layout(tmp_path / "layout")
    if not source.startswith("oci:"):
        copied(f"oci:{tmp_path}/layout:tiny", source.format(tmp_path))
    there = destination.format(tmp_path)
    copied(source.format(tmp_path), there)
    assert content(there) == list(samples.LAYERS)
    assert document(there).manifest().config.digest == digests.of(samples.config())


def test_oci_keeps_the_config_of_dockers_format_and_says_so_in_its_words(image: str, tmp_path: Path) -> None:
    done = copied(image, f"oci:{tmp_path}/to:x")
    manifest = done.manifest()
    assert (done.media_type, manifest.config.media_type) == (oci.MEDIA_MANIFEST, oci.MEDIA_CONFIG)
    assert {one.media_type for one in manifest.layers} == {oci.MEDIA_LAYER_GZIP}
    assert [one.digest for one in manifest.layers] == [digests.of(one) for one in samples.packed()]


def test_a_blob_that_is_there_is_not_sent(image: str, registry: FakeRegistry) -> None:
    copied(image, f"docker://{registry.domain}/one:1")
    registry.asked.clear()
    copied(image, f"docker://{registry.domain}/one:2")
    assert not [one for one in registry.asked if one.startswith("POST")]


def test_a_blob_of_another_repository_is_mounted(image: str, registry: FakeRegistry) -> None:
    copied(image, f"docker://{registry.domain}/one:1")
    registry.asked.clear()
    copied(f"docker://{registry.domain}/one:1", f"docker://{registry.domain}/two:1")
    assert not [one for one in registry.asked if one.startswith("PUT") and "/blobs/" in one]
    assert registry.blobs["one"] == registry.blobs["two"]


def test_a_layout_can_share_its_blobs_with_others(image: str, tmp_path: Path) -> None:
    shared = Access(shared_blobs=f"{tmp_path}/blobs")
    copied(image, f"oci:{tmp_path}/one:x", access=shared)
    copied(image, f"oci:{tmp_path}/two:x", access=shared)
    assert os.listdir(tmp_path / "one" / "blobs") == []
    assert len(os.listdir(tmp_path / "blobs" / "sha256")) == 4


def test_equal_images_give_equal_archives(image: str, tmp_path: Path) -> None:
    for kind in ("oci-archive", "docker-archive"):
        copied(image, f"{kind}:{tmp_path}/{kind}1:x:1")
        copied(image, f"{kind}:{tmp_path}/{kind}2:x:1")
        assert (tmp_path / f"{kind}1").read_bytes() == (tmp_path / f"{kind}2").read_bytes()


def test_a_docker_archive_has_all_its_names(image: str, tmp_path: Path) -> None:
    access = Access(additional_tags=("other:2", "example.com/third"))
    copied(image, f"docker-archive:{tmp_path}/a.tar:tiny", access=access)
    with tarfile.open(tmp_path / "a.tar") as archive:
        entry = json.load(archive.extractfile("manifest.json"))[0]  # type: ignore[arg-type]  # it is a file
        assert {entry["Config"], *entry["Layers"], "manifest.json"} == set(archive.getnames())
    assert entry["RepoTags"] == ["tiny:latest", "other:2", "example.com/third:latest"]
    for name in ("tiny", "other:2", "@0", "example.com/third:latest"):
        assert document(f"docker-archive:{tmp_path}/a.tar:{name}").manifest().layers


# ── What is asked for ──


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_plain_layers_are_compressed(compression: str, tmp_path: Path) -> None:
    samples.layout(tmp_path / "plain", plain=True)
    options = Options(compression=compression, level=2)  # type: ignore[arg-type]  # one of the two
    layers = copied(f"oci:{tmp_path}/plain:tiny", f"oci:{tmp_path}/to:x", options).manifest().layers
    layout = Layout(f"{tmp_path}/to")
    for layer in layers:
        with layout.open(layer.digest) as blob:
            assert detect(blob.read(6)) == compression
        assert layer.size == os.path.getsize(layout.blob_path(layer.digest))
        assert layer.media_type == f"{oci.MEDIA_LAYER}+{compression}"
    assert content(f"oci:{tmp_path}/to:x") == list(samples.LAYERS)


def test_a_layout_leaves_plain_layers_plain_when_asked_to(tmp_path: Path) -> None:
    digest = samples.layout(tmp_path / "plain", plain=True)
    done = copied(f"oci:{tmp_path}/plain:tiny", f"oci:{tmp_path}/to:x", access=Access(accept_uncompressed=True))
    assert done.digest == digest


def test_zstd_becomes_gzip_where_docker_has_no_word_for_it(
    image: str, registry: FakeRegistry, tmp_path: Path
) -> None:
    done = copied(image, f"docker://{registry.domain}/z:1", Options(compression="zstd"))
    assert done.media_type == oci.MEDIA_MANIFEST
    back = copied(f"docker://{registry.domain}/z:1", f"dir:{tmp_path}/back", Options(format="v2s2"))
    assert back.media_type == oci.DOCKER_MANIFEST
    assert {one.media_type for one in back.manifest().layers} == {oci.DOCKER_LAYER_GZIP}
    assert content(f"dir:{tmp_path}/back") == list(samples.LAYERS)


def test_dir_inflates_and_compresses(image: str, tmp_path: Path) -> None:
    copied(image, f"dir:{tmp_path}/plain", access=Access(decompress=True))
    layers = document(f"dir:{tmp_path}/plain").manifest().layers
    assert [one.digest for one in layers] == [digests.of(one) for one in samples.LAYERS]
    assert {one.media_type for one in layers} == {oci.DOCKER_LAYER}
    copied(f"dir:{tmp_path}/plain", f"dir:{tmp_path}/packed", access=Access(compress=True))
    assert content(f"dir:{tmp_path}/packed") == list(samples.LAYERS)


def test_of_an_index_the_platforms_image_is_copied(tmp_path: Path) -> None:
    samples.layout_with_index(tmp_path / "multi")
    source = open_source(parse(f"oci:{tmp_path}/multi:multi"), Access())
    writing = open_destination(parse(f"dir:{tmp_path}/arm"), Access())
    copy(source, writing, Options(access=Access(platform=platforms.parse("linux/arm64"))))
    assert content(f"dir:{tmp_path}/arm") == [samples.layer(only=b"arm64")]


def test_an_index_is_copied_whole_or_alone(registry: FakeRegistry, tmp_path: Path) -> None:
    digest = samples.layout_with_index(tmp_path / "multi")
    there = f"docker://{registry.domain}/multi:1"
    assert copied(f"oci:{tmp_path}/multi:multi", there, Options(images="all")).digest == digest
    copied(there, f"dir:{tmp_path}/dir", Options(images="all"))
    copied(f"dir:{tmp_path}/dir", f"oci:{tmp_path}/back:multi", Options(images="all"))
    assert dict(Layout(f"{tmp_path}/back").blobs()) == dict(Layout(f"{tmp_path}/multi").blobs())
    assert copied(there, f"dir:{tmp_path}/alone", Options(images="index-only")).digest == digest
    assert sorted(os.listdir(tmp_path / "alone")) == ["manifest.json", "version"]


def test_an_index_that_must_change_names_what_its_images_became(tmp_path: Path) -> None:
    samples.layout_with_index(tmp_path / "multi")
    done = copied(f"oci:{tmp_path}/multi:multi", f"oci:{tmp_path}/z:x", Options(images="all", compression="zstd"))
    layout = Layout(f"{tmp_path}/z")
    for one in done.index().manifests or []:
        manifest = oci.decode(oci.Manifest, layout.read(one.digest), "manifest")
        assert [layer.media_type for layer in manifest.layers] == [oci.MEDIA_LAYER_ZSTD]
        assert one.platform is not None


# ── What stops a copy ──


def test_a_destination_shows_nothing_of_a_copy_that_failed(
    image: str, registry: FakeRegistry, tmp_path: Path
) -> None:
    victim = Path(image.removeprefix("dir:")) / digests.encoded(digests.of(samples.packed()[1]))
    victim.write_bytes(b"x" * victim.stat().st_size)
    for there in (f"oci:{tmp_path}/o:x", f"oci-archive:{tmp_path}/o.tar:x", f"docker-archive:{tmp_path}/d.tar:x:1"):
        with pytest.raises(DataLoss):
            copied(image, there)
    assert Layout(f"{tmp_path}/o").entries() == []
    with pytest.raises(BoxshipError):
        copied(image, f"docker://{registry.domain}/app:1")
    assert registry.manifests.get("app", {}) == {}
    with pytest.raises(DataLoss):
        copied(image, f"dir:{tmp_path}/d")
    assert "manifest.json" not in os.listdir(tmp_path / "d")
    assert not [one for one in os.listdir(tmp_path) if one.startswith(".boxship") or one.endswith(".tar")]


REFUSED = [
    ("docker-archive:{}/x.tar:a:1", Options(preserve_digests=True), InvalidArgument, "digest is to be preserved"),
    ("oci:{}/x:a", Options(format="v2s2"), InvalidArgument, "takes no manifests of format v2s2"),
    ("dir:{}/x", Options(images="index-only"), InvalidArgument, "single image"),
    ("dir:{}/x", Options(compression="gzip", level=30), InvalidArgument, "level 30"),
    ("oci:{}/x:@0", Options(), InvalidArgument, "names nothing that is new"),
    ("dir:{}/image/version", Options(), FailedPrecondition, "cannot write"),
    ("docker-archive:{}/none/x.tar:a:1", Options(), FailedPrecondition, "cannot write"),
    ("oci-archive:{}/none/x.tar", Options(), FailedPrecondition, "no such directory"),
]


@pytest.mark.parametrize(("destination", "options", "kind", "words"), REFUSED)
def test_what_cannot_be_done_is_refused(
    destination: str, options: Options, kind: type[BoxshipError], words: str, image: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words):
        copied(image, destination.format(tmp_path), options)


def test_a_directory_that_is_no_image_is_left_alone(image: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    with pytest.raises(FailedPrecondition, match="not empty"):
        copied(image, f"dir:{tmp_path}/mine")
    assert os.listdir(tmp_path / "mine") == ["letter"]


def test_an_archive_is_not_written_over(image: str, tmp_path: Path) -> None:
    copied(image, f"docker-archive:{tmp_path}/a.tar:x:1")
    with pytest.raises(FailedPrecondition, match="modifying existing"):
        copied(image, f"docker-archive:{tmp_path}/a.tar:x:2")


NAMES = [
    ("nothing", InvalidArgument, "colon-separated"),
    ("bad:x", InvalidArgument, "unknown transport"),
    ("docker:busybox", InvalidArgument, "start with //"),
    ("docker://docker.io/UPPER/case", InvalidArgument, "lowercase"),
    ("docker://a@sha256:12", InvalidArgument, "hex digits"),
    ("dir:", InvalidArgument, "no directory"),
    ("oci::x", InvalidArgument, "no directory"),
    ("oci-archive:", InvalidArgument, "no file"),
    ("docker-archive:", InvalidArgument, "form"),
    ("docker-archive:a:B@", InvalidArgument, "invalid digest"),
    ("docker-daemon:sha256:12", InvalidArgument, "hex digits"),
    ("containers-storage:", InvalidArgument, "no image"),
    ("containers-storage:[overlay@/x]a", Unimplemented, "another store"),
    ("sif:", InvalidArgument, "no file"),
    ("ostree:x", Unimplemented, "not offered"),
    ("tarball:x", Unimplemented, "not offered"),
]


@pytest.mark.parametrize(("text", "kind", "words"), NAMES)
def test_names_that_are_none(text: str, kind: type[BoxshipError], words: str) -> None:
    with pytest.raises(kind, match=words):
        parse(text)


def broken(tmp_path: Path) -> dict[str, str]:
    samples.layout(tmp_path / "layout")
    samples.layout(tmp_path / "two", "one")
    Layout(f"{tmp_path}/two").tag("other", samples.into_layout(Layout(f"{tmp_path}/two"), (samples.layer(a=b"b"),)))
    (tmp_path / "zero").write_bytes(b"")
    (tmp_path / "text").write_bytes(b"no archive at all, but long enough to be a header" * 20)
    (tmp_path / "bad.xz").write_bytes(b"\xfd7zXZ\0damaged")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "manifest.json").write_text("{")
    return {
        "no directory": f"dir:{tmp_path}/none",
        "damaged manifest": f"dir:{tmp_path}/junk",
        "no layout": f"oci:{tmp_path}/none",
        "no such name": f"oci:{tmp_path}/layout:none",
        "no such number": f"oci:{tmp_path}/layout:@7",
        "two images": f"oci:{tmp_path}/two",
        "no archive": f"oci-archive:{tmp_path}/none.tar",
        "not a tar": f"oci-archive:{tmp_path}/text",
        "empty file": f"docker-archive:{tmp_path}/zero",
        "empty tar": f"docker-archive:{tmp_path}/empty.tar",
        "bad compression": f"docker-archive:{tmp_path}/bad.xz",
        "nobody listens": "docker://127.0.0.1:1/a:b",
        "no engine": f"docker-daemon:a:b@{tmp_path}".partition("@")[0],
    }


def test_broken_inputs_are_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    for what, name in broken(tmp_path).items():
        with pytest.raises(BoxshipError) as caught:
            document(name)
        assert "\n" not in str(caught.value), what
        assert str(caught.value), what


def test_what_is_not_there_has_its_own_exit_code(registry: FakeRegistry, tmp_path: Path) -> None:
    samples.layout(tmp_path / "layout")
    for name in (f"docker://{registry.domain}/none:1", f"oci:{tmp_path}/layout:none"):
        with pytest.raises(ImageNotFound) as caught:
            document(name)
        assert caught.value.exit_code == 2


def test_deleting_removes_what_nothing_else_needs(image: str, registry: FakeRegistry, tmp_path: Path) -> None:
    samples.layout(tmp_path / "layout", "one")
    layout = Layout(f"{tmp_path}/layout")
    layout.tag("two", layout.find("one")[0])
    delete(parse(f"oci:{tmp_path}/layout:one"), Access())
    assert len(list(layout.blobs())) == 4
    delete(parse(f"oci:{tmp_path}/layout:two"), Access())
    assert list(layout.blobs()) == []
    copied(image, f"docker://{registry.domain}/app:1")
    delete(parse(f"docker://{registry.domain}/app:1"), Access())
    assert registry.manifests["app"] == {}
    with pytest.raises(ImageNotFound):
        delete(parse(f"docker://{registry.domain}/app:1"), Access())
    with pytest.raises(Unimplemented):
        delete(parse(image), Access())


def test_layers_that_live_elsewhere_stay_there(registry: FakeRegistry, tmp_path: Path) -> None:
    samples.directory(tmp_path / "image")
    path = tmp_path / "image" / "manifest.json"
    fields = json.loads(path.read_text())
    gone = fields["layers"][0]
    gone.update(mediaType=oci.DOCKER_FOREIGN_LAYER_GZIP, urls=["https://example.com/layer"])
    path.write_text(json.dumps(fields))
    (tmp_path / "image" / gone["digest"].partition(":")[2]).unlink()
    done = copied(f"dir:{tmp_path}/image", f"docker://{registry.domain}/win:1")
    assert done.data == path.read_bytes()


def test_the_same_layer_twice_is_copied_once(tmp_path: Path) -> None:
    samples.directory(tmp_path / "image", layers=(samples.LAYERS[0], samples.LAYERS[0]))
    copied(f"dir:{tmp_path}/image", f"docker-archive:{tmp_path}/a.tar:x:1")
    assert content(f"docker-archive:{tmp_path}/a.tar") == [samples.LAYERS[0]] * 2


def test_many_blobs_go_at_once_and_the_first_failure_ends_the_others(image: str, tmp_path: Path) -> None:
    class Slow(FileBlob):
        def read(self, size: int = -1, /) -> bytes:
            time.sleep(0.02)
            return super().read(1000)

    source = open_source(parse(image), Access())
    real = source.blob

    def blob(descriptor: oci.Descriptor) -> FileBlob:
        if descriptor == layers[0]:
            raise NotFound("gone")
        found = real(descriptor)
        return Slow(found._file, found.size)  # type: ignore[attr-defined]  # a FileBlob

    layers = source.manifest().manifest().layers
    source.blob = blob  # type: ignore[method-assign]
    writing = open_destination(parse(f"dir:{tmp_path}/to"), Access())
    with pytest.raises(NotFound, match="gone"):
        copy(source, writing, Options())


# ── SIF ──


def sif(squashfs: bytes, *, kind: int = 2, system: int = 1, size: int = -1) -> bytes:
    """A SIF file with one partition, as the format's documentation draws it."""
    at = 128 + 585
    head = b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\0" + b"01\0" + b"02\0" + bytes(16)
    head += struct.pack("<8q", 1_600_000_000, 0, 0, 1, 128, 585, at, len(squashfs))
    entry = struct.pack("<i?3I7q", 0x4004, True, 1, 1, 0, at, len(squashfs) if size < 0 else size, 0, 0, 0, 0, 0)
    return (
        head + entry.ljust(73 + 128, b"\0") + struct.pack("<2i3s", system, kind, b"02\0").ljust(384, b"\0") + squashfs
    )


@pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="not installed: squashfs-tools")
def test_a_sif_image_becomes_one_layer(tmp_path: Path) -> None:
    (tmp_path / "root" / ".singularity.d").mkdir(parents=True)
    (tmp_path / "root" / ".singularity.d" / "runscript").write_text("#!/bin/sh\n")
    (tmp_path / "root" / "file").write_text("content")
    command = ["mksquashfs", f"{tmp_path}/root", f"{tmp_path}/fs", "-quiet", "-no-progress"]
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "image.sif").write_bytes(sif((tmp_path / "fs").read_bytes()))
    copied(f"sif:{tmp_path}/image.sif", f"dir:{tmp_path}/to")
    (data,) = content(f"dir:{tmp_path}/to")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == [".singularity.d", ".singularity.d/runscript", "file"]
    config = document(f"dir:{tmp_path}/to").manifest().config
    fields = json.loads((tmp_path / "to" / digests.encoded(digests.parse(config.digest))).read_bytes())
    assert fields["architecture"] == "amd64"
    assert fields["created"] == "2020-09-13T12:26:40Z"
    assert fields["config"]["Cmd"] == ["/.singularity.d/runscript"]
    assert fields["rootfs"]["diff_ids"] == [digests.of(data)]


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", InvalidArgument, "no SIF file"),
        (b"x" * 500, InvalidArgument, "no SIF file"),
        (sif(b"")[:88] + b"\xff" * 40, InvalidArgument, "makes no sense"),
        (sif(b"x", kind=3), InvalidArgument, "no root file system"),
        (sif(b"x", system=2), Unimplemented, "no squashfs"),
        (sif(b"x", size=1000), InvalidArgument, "cut short"),
        (sif(b"no squashfs at all" * 100), FailedPrecondition, "unsquashfs failed"),
    ],
)
def test_a_damaged_sif_file_is_told(data: bytes, kind: type[BoxshipError], words: str, tmp_path: Path) -> None:
    if kind is FailedPrecondition and shutil.which("unsquashfs") is None:
        pytest.skip("not installed: squashfs-tools")
    (tmp_path / "image.sif").write_bytes(data)
    with pytest.raises(kind, match=words):
        document(f"sif:{tmp_path}/image.sif")


# ── Manifests ──


def test_conversions_come_back_to_the_same_image(tmp_path: Path) -> None:
    samples.directory(tmp_path / "image")
    docker = document(f"dir:{tmp_path}/image")
    there = manifests.convert(docker, "oci")
    assert manifests.convert(there, "v2s2").manifest() == docker.manifest()
    assert manifests.convert(docker, "v2s2") is docker


def test_what_docker_cannot_say_is_refused() -> None:
    layer = oci.Descriptor(oci.MEDIA_LAYER_ZSTD, digests.of(b""), 0)
    config = oci.Descriptor(oci.MEDIA_CONFIG, digests.of(b""), 0)
    image = Document(oci.encode(oci.Manifest(2, config, [layer], media_type=oci.MEDIA_MANIFEST)), oci.MEDIA_MANIFEST)
    with pytest.raises(InvalidArgument, match="zstd"):
        manifests.convert(image, "v2s2")
    artifact = oci.Manifest(2, oci.Descriptor("text/plain", digests.of(b""), 0), [], media_type=oci.MEDIA_MANIFEST)
    with pytest.raises(InvalidArgument, match="artifact"):
        manifests.convert(Document(oci.encode(artifact), oci.MEDIA_MANIFEST), "v2s2")


def test_the_digest_of_a_signed_schema_1_manifest_is_that_of_what_was_signed() -> None:
    payload = b'{\n   "name": "x",\n   "schemaVersion": 1\n}'
    cut = payload.rindex(b"\n}")
    import base64

    tail = base64.urlsafe_b64encode(payload[cut:]).rstrip(b"=").decode()
    protected = json.dumps({"formatLength": cut, "formatTail": tail}).encode()
    signature = {"protected": base64.urlsafe_b64encode(protected).rstrip(b"=").decode(), "signature": "x"}
    signed = payload[:cut] + b',\n   "signatures": ' + json.dumps([signature]).encode() + payload[cut:]
    assert manifests.digest_of(signed) == digests.of(payload)
    assert manifests.digest_of(b"anything") == digests.of(b"anything")


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_pool_does_every_job_in_order_of_their_begin(at_once: int) -> None:
    for _ in range(50):
        done: list[int] = []
        with Pool(at_once, threading.Event()) as pool:
            for number in range(20):
                pool.add(partial(done.append, number))
            pool.join()
        assert sorted(done) == list(range(20))
        assert at_once > 1 or done == sorted(done)


def test_a_pool_ends_with_the_first_failure_and_does_not_begin_what_waits() -> None:
    done: list[int] = []

    def fail() -> None:
        raise DataLoss("this one")

    stop = threading.Event()
    with Pool(1, stop) as pool:
        for job in (partial(done.append, 1), fail, partial(done.append, 2)):
            pool.add(job)
        with pytest.raises(DataLoss, match="this one"):
            pool.join()
    assert done == [1]
    assert stop.is_set()
