"""Hostile images, unpacked whole: each is one clear error, touches nothing outside, and leaves no bundle behind.

`test_layer_applier` is about single entries in an overlay's directory; here layer comes upon layer in a plain one, as
``unpack`` does it, with everything around: digests, diff IDs, compression, limits.
"""

import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from boxship.errors import BoxshipError, DataLoss, InvalidArgument, ResourceExhausted
from boxship.image import bundle
from boxship.image.apply import apply_layer
from boxship.image.bundle import Manner
from boxship.image.idmap import IdMap, Mapping
from boxship.image.layout import Layout
from boxship.image.limits import Limits
from boxship.oci import digest as digests
from boxship.oci import image as oci

from .layer_archives import END, archive, directory, hard_link, member, symlink, with_checksum

pytestmark = pytest.mark.root

CHR = tarfile.CHRTYPE
BASE = archive([directory("d"), member("d/f", b"below"), symlink("out", "/outside")])


PLAINLY = Manner()


@dataclass(frozen=True)
class Case:
    """``layers`` are blobs, compressed or not; ``words`` stand in the message of ``error``."""

    layers: "tuple[bytes, ...]"
    error: type[BoxshipError]
    words: str
    manner: Manner = PLAINLY
    spoil: "Callable[[Layout, oci.Manifest], None] | None" = None


def hostile(*members: "tuple[tarfile.TarInfo, bytes]", words: str = "") -> Case:
    """A second layer on top of `BASE`."""
    return Case((BASE, archive(members)), InvalidArgument, words)


def limited(blob: bytes, words: str, keep_dirlinks: bool = False, **limits: int) -> Case:
    return Case((blob,), ResourceExhausted, words, Manner(limits=Limits(**limits), keep_dirlinks=keep_dirlinks))


def header(offset: int, value: bytes) -> bytes:
    block = bytearray(member("file")[0].tobuf(tarfile.GNU_FORMAT))
    block[offset : offset + len(value)] = value
    return with_checksum(block) + END


def pax(records: bytes) -> bytes:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    file = member("file")[0].tobuf(tarfile.GNU_FORMAT)
    return info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512) + file + END


def zeros(size: int) -> bytes:
    return archive([member("zeros", bytes(size))])


def sparse(size: int) -> bytes:
    """A file that claims to be large and holds nothing."""
    return pax(_record(b"GNU.sparse.map=0,0") + _record(b"GNU.sparse.size=%d" % size))


def _record(text: bytes) -> bytes:
    size = len(text) + 3
    size += len(str(size)) - 1
    return b"%d %b\n" % (size, text)


def rewrite(layout: Layout, digest: str, data: bytes) -> None:
    Path(layout.blob_path(digest)).write_bytes(data)


def damage_layer(layout: Layout, manifest: oci.Manifest) -> None:
    with open(layout.blob_path(manifest.layers[-1].digest), "r+b") as blob:
        blob.seek(600)
        blob.write(b"damage")


def recompress(layout: Layout, manifest: oci.Manifest) -> None:
    """The same tar in other bytes: the diff ID is right, the digest is not."""
    path = Path(layout.blob_path(manifest.layers[-1].digest))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=7))


def lengthen(layout: Layout, manifest: oci.Manifest) -> None:
    with open(layout.blob_path(manifest.layers[-1].digest), "ab") as blob:
        blob.write(b"\0")


def shorten(layout: Layout, manifest: oci.Manifest) -> None:
    path = Path(layout.blob_path(manifest.layers[-1].digest))
    path.write_bytes(path.read_bytes()[:-600])


def damage_config(layout: Layout, manifest: oci.Manifest) -> None:
    path = Path(layout.blob_path(manifest.config.digest))
    path.write_bytes(b" " + path.read_bytes())


def lose_layer(layout: Layout, manifest: oci.Manifest) -> None:
    layout.delete(manifest.layers[0].digest)


def spoiled(spoil: "Callable[[Layout, oci.Manifest], None]", words: str, layer: bytes = BASE) -> Case:
    return Case((layer,), DataLoss, words, spoil=spoil)


PACKED = gzip.compress(BASE, mtime=0)
DEEP = archive([member("/".join(["d"] * 1100) + "/f", b"")])
SHIFTED = Manner(IdMap((Mapping(0, 100_000, 10),), (Mapping(0, 100_000, 10),)))

HOSTILE = {
    # ── names that lead out ──
    "a name that climbs out": hostile(member("../outside/secret", b"pwned"), words="leads out of the root"),
    "a name that climbs out in the middle": hostile(member("d/../../outside/secret", b"x"), words="leads out"),
    "an absolute name that climbs out": hostile(member("/../outside/secret", b"x"), words="leads out"),
    "a directory that is dot dot": hostile(directory(".."), words="leads out"),
    "a whiteout that climbs out": hostile(member("../.wh.outside"), words="leads out"),
    "a whiteout of dot dot": hostile(member(".wh..."), words="names no file"),
    "a whiteout of nothing": hostile(member("d/.wh."), words="names no file"),
    "an opaque mark that climbs out": hostile(member("../outside/.wh..wh..opq"), words="leads out"),
    "a PAX path that climbs out": Case((BASE, pax(b"19 path=../outside\n")), InvalidArgument, "leads out"),
    # ── links that lead out ──
    "a relative symlink that climbs out": hostile(symlink("l", "../outside"), words="leads out"),
    "a symlink in a directory that climbs out": hostile(symlink("d/l", "../../outside"), words="leads out"),
    "a symlink in place of the root": hostile(symlink(".", "/outside"), words="root directory"),
    "a hard link that climbs out": hostile(hard_link("l", "../outside/secret"), words="leads out"),
    "a hard link to a file of the host": hostile(hard_link("l", "/etc/hostname"), words="no such file in the layer"),
    "a hard link through a symlink of a lower layer": hostile(hard_link("l", "out/secret"), words="no such file"),
    "a hard link to a directory": hostile(hard_link("l", "d"), words="to a directory"),
    "a hard link to the root": hostile(hard_link("l", "/"), words="no such file"),
    "a symlink loop as a parent": hostile(symlink("a", "/b"), symlink("b", "/a"), member("a/f"), words="ELOOP"),
    "a file below a file": hostile(member("d/f/g", b"x"), words="not a directory"),
    "a file below a dangling symlink": hostile(symlink("l", "/nowhere"), member("l/f"), words="not a directory"),
    # ── devices and owners ──
    "a device number out of range": hostile(member("sda", type=CHR, devmajor=0o7777777, devminor=0), words="device"),
    "an owner out of range": hostile(member("f", pax_headers={"uid": "4294967295"}), words="owner"),
    "an owner outside the mappings": Case((archive([member("f", uid=11)]),), InvalidArgument, "uid 11", SHIFTED),
    "the overlay's own mark": hostile(
        directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/outside"}), words="reserved xattr"
    ),
    # ── damaged headers ──
    "an unknown type": Case((header(156, b"Z"),), InvalidArgument, "unknown type"),
    "a size that is no number": Case((header(124, b"12x45678901\0"),), InvalidArgument, "size is not a number"),
    "a negative size": Case((header(124, b"\xff" * 12),), InvalidArgument, "negative size"),
    "a wrong checksum": Case((BASE[:100] + b"x" + BASE[101:],), InvalidArgument, "checksum"),
    "noise": Case((b"\x17" * 4096,), InvalidArgument, "not a tar archive"),
    "a PAX record longer than its header": Case((pax(b"99 path=x\n"),), InvalidArgument, "PAX record"),
    "a PAX path with a NUL": Case((pax(b"12 path=a\0b\n"),), InvalidArgument, "NUL"),
    "a sparse map out of order": Case((pax(b"33 GNU.sparse.map=4096,1,0,1,0,9\n"),), InvalidArgument, "sparse map"),
    "an extended header of a gigabyte": Case(
        (with_checksum(bytearray(header(156, b"x")[:124] + b"07777777777\0" + header(156, b"x")[136:512])) + END,),
        InvalidArgument, "too large",
    ),
    "a name of 300 characters": hostile(member("n" * 300), words="ENAMETOOLONG"),
    "a name of 1100 directories": Case((DEEP,), InvalidArgument, "directories deep"),
    "another compression": Case((b"BZh91AY&SY" + bytes(600),), InvalidArgument, "bzip2"),
    # ── bombs ──
    "a bomb of gzip": limited(gzip.compress(zeros(4 << 20), mtime=0), "'ratio'", ratio=100, ratio_after=1 << 20),
    "a bomb of zstd": limited(
        zstandard.compress(zeros(4 << 20)), "'ratio'", ratio=100, ratio_after=1 << 20
    ),
    "a layer larger than allowed": limited(gzip.compress(zeros(2 << 20), mtime=0), "'size'", size=1 << 20),
    "a file larger than allowed": limited(zeros(2 << 20), "'file_size'", file_size=1 << 20),
    "a hole larger than allowed": limited(sparse(1 << 50), "'file_size'"),
    "more entries than allowed": limited(archive([member(f"f{n}") for n in range(40)]), "'entries'", entries=39),
    # ── not what was promised ──
    "a damaged blob": spoiled(damage_layer, "digest mismatch"),
    "a damaged compressed blob": spoiled(damage_layer, "", PACKED + gzip.compress(os.urandom(2000), mtime=0)),
    "a blob that is compressed anew": spoiled(recompress, "digest mismatch", PACKED),
    "a blob that is too long": spoiled(lengthen, "size mismatch"),
    "a blob that is cut short": spoiled(shorten, "digest mismatch"),
    "a config that is changed": spoiled(damage_config, "digest mismatch"),
    "a compressed stream that is cut short": Case((PACKED[:-30],), DataLoss, "cut short"),
    "a zstd stream that is cut short": Case((zstandard.compress(BASE)[:-9],), DataLoss, "cut short"),
    "an archive without its end": Case((BASE[:-1024],), DataLoss, "cut short"),
    "an archive that ends in a file": Case((archive([member("f", b"x" * 5000)])[:3000],), DataLoss, "cut short"),
    "an empty blob": Case((b"",), DataLoss, "cut short"),
}  # fmt: skip


def plain(blob: bytes) -> bytes:
    """The tar in a blob, as far as it goes."""
    try:
        if blob.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(31).decompress(blob)
        if blob.startswith(b"\x28\xb5\x2f\xfd"):
            return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob)).read()
    except zlib.error:
        pass
    return blob


def layout_of(path: Path, layers: "tuple[bytes, ...]") -> "tuple[Layout, oci.Manifest]":
    layout = Layout.create(str(path))
    described, diff_ids = [], []
    for blob in layers:
        described.append(oci.Descriptor(oci.MEDIA_LAYER, layout.add(blob)[0], len(blob)))
        diff_ids.append(f"sha256:{hashlib.sha256(plain(blob)).hexdigest()}")
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()
    manifest = oci.Manifest(
        2, oci.Descriptor(oci.MEDIA_CONFIG, layout.add(config)[0], len(config)), described, oci.MEDIA_MANIFEST
    )
    document = oci.encode(manifest)
    layout.tag("image", oci.Descriptor(oci.MEDIA_MANIFEST, layout.add(document)[0], len(document)))
    return layout, manifest


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_is_one_clear_error_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    case = HOSTILE[name]
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    layout, manifest = layout_of(tmp_path / "layout", case.layers)
    if case.spoil:
        case.spoil(layout, manifest)
    with pytest.raises(case.error) as caught:
        bundle.unpack(layout, "image", str(tmp_path / "bundle"), case.manner)
    assert case.words in str(caught.value)
    assert (tmp_path / "outside" / "secret").read_text() == "secret"
    assert os.listdir(tmp_path / "outside") == ["secret"]
    assert sorted(os.listdir(tmp_path)) == ["layout", "outside"]


def test_a_wrong_diff_id_leaves_no_bundle(tmp_path: Path) -> None:
    layout, manifest = layout_of(tmp_path / "layout", (BASE,))
    other, _ = layout_of(tmp_path / "other", (archive([member("else")]),))
    config = other.read(bundle.named.read_manifest(other, other.find("image")[0]).config.digest)
    changed = oci.Manifest(
        2, oci.Descriptor(oci.MEDIA_CONFIG, layout.add(config)[0], len(config)), manifest.layers, oci.MEDIA_MANIFEST
    )
    document = oci.encode(changed)
    layout.tag("image", oci.Descriptor(oci.MEDIA_MANIFEST, layout.add(document)[0], len(document)))
    with pytest.raises(DataLoss, match="digest"):
        bundle.unpack(layout, "image", str(tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()


def test_what_was_in_a_directory_before_a_failed_unpack_stays(tmp_path: Path) -> None:
    layout, _ = layout_of(tmp_path / "layout", (BASE, archive([member("../x")])))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine").write_text("mine")
    with pytest.raises(InvalidArgument):
        bundle.unpack(layout, "image", str(tmp_path / "bundle"))
    assert os.listdir(tmp_path / "bundle") == ["mine"]


def test_absolute_symlinks_of_a_lower_layer_lead_into_the_root_only(tmp_path: Path) -> None:
    layers = (archive([directory("outside"), symlink("out", "/outside")]), archive([member("out/secret", b"inside")]))
    layout, _ = layout_of(tmp_path / "layout", layers)
    bundle.unpack(layout, "image", str(tmp_path / "bundle"))
    assert (tmp_path / "bundle" / "rootfs" / "outside" / "secret").read_bytes() == b"inside"


def test_links_that_are_kept_lead_into_the_root_only(tmp_path: Path) -> None:
    """keep_dirlinks: the host's /etc is a directory, the image's is not there, so the link gives way."""
    layers = (archive([symlink("link", "/etc")]), archive([directory("link"), member("link/hostname", b"x")]))
    layout, _ = layout_of(tmp_path / "layout", layers)
    bundle.unpack(layout, "image", str(tmp_path / "bundle"), Manner(keep_dirlinks=True))
    made = tmp_path / "bundle" / "rootfs" / "link"
    assert made.is_dir()
    assert not made.is_symlink()


def test_a_limit_that_is_not_passed_changes_nothing(tmp_path: Path) -> None:
    limits = Limits(size=len(BASE), entries=3, file_size=5, ratio=1, ratio_after=len(BASE))
    apply_layer(io.BytesIO(BASE), str(tmp_path), overlay=False, limits=limits, diff_id=digests.of(BASE))
    assert (tmp_path / "d" / "f").read_bytes() == b"below"
