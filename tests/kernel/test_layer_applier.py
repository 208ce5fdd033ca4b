"""The layer applier: what an archive may do to a root file system, and what it may not."""

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxship.errors import BoxshipError, DataLoss, InvalidArgument, ResourceExhausted
from boxship.image.apply import apply_layer
from boxship.image.directories import OPAQUE_XATTR
from boxship.oci import digest as digests

from .layer_archives import END, archive, directory, hard_link, member, symlink, with_checksum

pytestmark = pytest.mark.root

CHR = tarfile.CHRTYPE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    root = tmp_path / "root"
    root.mkdir()
    return root


def apply(root: Path, data: bytes, **options: object) -> None:
    apply_layer(io.BytesIO(data), str(root), **options)  # type: ignore[arg-type]  # as the test says


def header(**fields: object) -> bytearray:
    info, _ = member("file")
    for key, value in fields.items():
        setattr(info, key, value)
    return bytearray(info.tobuf(tarfile.GNU_FORMAT))


def damaged(offset: int, value: bytes) -> bytes:
    block = header()
    block[offset : offset + len(value)] = value
    return with_checksum(block) + END


def pax(records: bytes) -> bytes:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    return info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512) + bytes(header()) + END


WHOLE = archive([directory("d"), member("d/f", b"x" * 5000)])

HOSTILE = {
    "a name that climbs out": archive([member("../outside/secret", b"pwned")]),
    "a name that climbs out in the middle": archive([member("a/../../outside/secret", b"pwned")]),
    "a deep climb": archive([member("a/b/../../../../outside/secret", b"pwned")]),
    "a directory that is dot dot": archive([directory("..")]),
    "a relative symlink that climbs out": archive([symlink("link", "../outside")]),
    "a relative symlink in a directory that climbs out": archive([directory("d"), symlink("d/l", "../../outside")]),
    "a symlink without a target": archive([symlink("link", "")]),
    "a hard link that climbs out": archive([hard_link("link", "../outside/secret")]),
    "a hard link to a file of the host": archive([hard_link("link", "/etc/passwd")]),
    "a hard link through an absolute symlink": archive([symlink("etc", "/etc"), hard_link("link", "etc/passwd")]),
    "a hard link to a missing file": archive([hard_link("link", "missing")]),
    "a hard link to a directory": archive([directory("d"), hard_link("link", "d")]),
    "a hard link to the root": archive([hard_link("link", "/")]),
    "a file below a file": archive([member("f", b"x"), member("f/g", b"y")]),
    "a file below a dangling symlink": archive([symlink("l", "/nowhere"), member("l/f", b"x")]),
    "a symlink loop as a parent": archive([symlink("a", "/b"), symlink("b", "/a"), member("a/f", b"x")]),
    "a file in place of the root": archive([member(".", b"x")]),
    "a symlink in place of the root": archive([symlink("./", "/etc")]),
    "a whiteout of dot dot": archive([member(".wh...")]),
    "a whiteout of dot": archive([member(".wh..")]),
    "a whiteout without a name": archive([member(".wh.")]),
    "a whiteout that climbs out": archive([member("../.wh.outside")]),
    "the overlay's redirect": archive(
        [directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/outside"})]
    ),
    "the overlay's opaque mark": archive([directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"})]),
    "an owner out of range": archive([member("f", pax_headers={"uid": "4294967295"})]),
    "a device number out of range": archive(
        [member("dev", type=CHR, devmajor=0o7777777, devminor=1)]
    ),
    "an unknown type": damaged(156, b"Z"),
    "a size that is no number": damaged(124, b"12x45678901\0"),
    "a negative size": damaged(124, b"\xff" * 12),
    "a header with a wrong checksum": bytes(header()[:-1]) + b"x" + END,
    "noise": b"\x17" * 4096,
    "a PAX record longer than its header": pax(b"99 path=x\n"),
    "a PAX record without a length": pax(b"path=x\n"),
    "a PAX path with a NUL": pax(b"12 path=a\0b\n"),
    "a PAX path that climbs out": pax(b"19 path=../outside\n"),
    "a PAX size that is no number": pax(b"12 size=abc\n"),
    "a name longer than the kernel takes": archive([member("x" * 300, b"")]),
    "a sparse map out of order": pax(b"33 GNU.sparse.map=4096,1,0,1,0,9\n"),
}  # fmt: skip

CUT_SHORT = {
    "nothing at all": b"",
    "half a header": WHOLE[:700],
    "half a file": WHOLE[:3000],
    "without its end": archive([directory("d"), member("d/f", b"x" * 5000)], end=b""),
    "half a long name": archive([member("n" * 200, b"")], format=tarfile.GNU_FORMAT)[:600],
}


def everything(path: Path) -> "set[str]":
    return {str(found.relative_to(path)) for found in path.rglob("*")}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_one_clear_error_and_touches_nothing_outside(root: Path, name: str) -> None:
    before = everything(root.parent / "outside")
    with pytest.raises(InvalidArgument) as caught:
        apply(root, HOSTILE[name], what="layer under test")
    assert "layer under test" in str(caught.value)
    assert everything(root.parent / "outside") == before
    assert (root.parent / "outside" / "secret").read_text() == "secret"
    assert sorted(os.listdir(root.parent)) == ["outside", "root"]


@pytest.mark.parametrize("name", CUT_SHORT)
def test_an_archive_that_is_cut_short_is_data_loss(root: Path, name: str) -> None:
    with pytest.raises(DataLoss):
        apply(root, CUT_SHORT[name])


def test_a_wrong_diff_id_is_data_loss(root: Path) -> None:
    with pytest.raises(DataLoss, match="digest"):
        apply(root, WHOLE, diff_id=digests.of(b"other"))
    apply(root, WHOLE, diff_id=digests.of(WHOLE))


def test_absolute_symlinks_lead_into_the_root_only(root: Path) -> None:
    apply(root, archive([directory("data"), symlink("link", "/data"), member("link/f", b"inside")]))
    assert (root / "data" / "f").read_bytes() == b"inside"
    assert os.readlink(root / "link") == "/data"


def test_an_absolute_name_is_relative_to_the_root(root: Path) -> None:
    apply(root, archive([member("/etc/motd", b"hello")]))
    assert (root / "etc" / "motd").read_bytes() == b"hello"


def test_a_later_entry_replaces_an_earlier_one_of_any_kind(root: Path) -> None:
    apply(
        root,
        archive(
            [
                directory("a"), member("a/f", b"1"), symlink("a", "/b"), directory("b"), member("a/f", b"2"),
                member("b/f", b"3"), directory("c"), member("c/f"), member("c", b"4"),
            ]
        ),
    )  # fmt: skip
    assert os.readlink(root / "a") == "/b"
    assert (root / "b" / "f").read_bytes() == b"3"
    assert (root / "c").read_bytes() == b"4"


def test_ownership_modes_times_and_extended_attributes_are_kept(root: Path) -> None:
    capability = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
    pax_headers = {
        "SCHILY.xattr.user.note": "hi",
        "SCHILY.xattr.security.capability": capability.decode("latin-1"),
        "mtime": "1234567890.123456789",
    }
    apply(
        root,
        archive(
            [
                directory("d", uid=5, gid=6, mode=0o1777),
                member("d/setuid", b"x", uid=7, gid=8, mode=0o6755, pax_headers=pax_headers),
                symlink("d/link", "setuid", uid=9, gid=10),
                member("d/null", type=CHR, devmajor=1, devminor=3, mode=0o666),
                member("d/pipe", type=tarfile.FIFOTYPE, mode=0o600),
                hard_link("d/same", "d/setuid"),
            ]
        ),
    )
    d, setuid, link = root / "d", root / "d" / "setuid", os.lstat(root / "d" / "link")
    assert (d.stat().st_uid, d.stat().st_gid, stat.S_IMODE(d.stat().st_mode)) == (5, 6, 0o1777)
    assert d.stat().st_mtime == 1_000_000_000
    assert (setuid.stat().st_uid, setuid.stat().st_gid, stat.S_IMODE(setuid.stat().st_mode)) == (7, 8, 0o6755)
    assert setuid.stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert os.getxattr(setuid, "user.note") == b"hi"
    assert os.getxattr(setuid, "security.capability") == capability
    assert (link.st_uid, link.st_gid) == (9, 10)
    assert (root / "d" / "null").stat().st_rdev == os.makedev(1, 3)
    assert (root / "d" / "pipe").is_fifo()
    assert os.path.samefile(setuid, root / "d" / "same")


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_large_numbers_are_read_in_both_formats(root: Path, format: int) -> None:
    name = "/".join(["d" * 90] * 4) + "/f"
    apply(root, archive([member(name, b"x", uid=3_000_000), symlink("link", "/" + "t" * 300)], format=format))
    assert (root / name).stat().st_uid == 3_000_000
    assert os.readlink(root / "link") == "/" + "t" * 300


@pytest.mark.parametrize("format", ["gnu", "posix"])
def test_sparse_files_of_gnu_tar_keep_their_holes(root: Path, tmp_path: Path, format: str) -> None:
    source = tmp_path / "sparse"
    with open(source, "wb") as file:
        file.truncate(8 << 20)
        for number in range(40):
            file.seek(number * (200 << 10))
            file.write(b"data%d" % number)
    made = subprocess.run(
        ["tar", f"--format={format}", "-S", "-C", str(tmp_path), "-cf", "-", "sparse"],
        capture_output=True,
        check=True,
    )
    apply(root, made.stdout)
    assert (root / "sparse").read_bytes() == source.read_bytes()
    assert (root / "sparse").stat().st_blocks * 512 < 2 << 20


def is_whiteout(path: Path) -> bool:
    found = os.lstat(path)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def opaque(path: Path) -> bool:
    return OPAQUE_XATTR in os.listxattr(path)


def test_whiteouts_take_the_overlays_form(root: Path) -> None:
    apply(root, archive([member("d/.wh.gone"), directory("e"), member("e/.wh..wh..opq"), member(".wh..wh.plnk")]))
    assert is_whiteout(root / "d" / "gone")
    assert opaque(root / "e")
    assert sorted(os.listdir(root)) == ["d", "e"]


def test_a_whiteout_does_not_hide_what_its_own_layer_brings(root: Path) -> None:
    apply(
        root,
        archive([member("before", b"1"), member(".wh.before"), member(".wh.after"), member("after", b"2"),
                 member(".wh.dir"), directory("dir"), member("dir/f", b"3"), directory("dir2"), member(".wh.dir2")]),
    )  # fmt: skip
    assert (root / "before").read_bytes() == b"1"
    assert (root / "after").read_bytes() == b"2"
    assert (root / "dir" / "f").read_bytes() == b"3"
    assert opaque(root / "dir")
    assert opaque(root / "dir2")


def test_a_plain_directory_is_changed_by_whiteouts_itself(root: Path) -> None:
    apply(root, archive([member("old", b"1"), directory("d"), member("d/old", b"2")]), overlay=False)
    apply(root, archive([member(".wh.old"), member("d/new", b"3"), member("d/.wh..wh..opq")]), overlay=False)
    assert sorted(everything(root)) == ["d", "d/new"]


def test_a_parent_that_the_layer_leaves_out_looks_as_in_the_layer_below(root: Path, tmp_path: Path) -> None:
    below = tmp_path / "below"
    (below / "var").mkdir(parents=True)
    os.chown(below / "var", 12, 34)
    os.chmod(below / "var", 0o2750)
    apply(root, archive([member("var/f", b"x")]), parents=[str(below)])
    found = (root / "var").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12, 34, 0o2750)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_is_resource_exhausted(small_disk: Path) -> None:
    with pytest.raises(ResourceExhausted, match="full"):
        apply(small_disk, archive([member("big", bytes(1 << 20))]))


def test_every_descriptor_is_closed_whether_it_works_or_not(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    many = [directory(f"d{number}") for number in range(200)]
    apply(root, archive([*many, *(member(f"d{number}/f", b"x") for number in range(200))]))
    for data in (*HOSTILE.values(), *CUT_SHORT.values()):
        with pytest.raises(BoxshipError):
            apply(root, data)
    assert len(os.listdir("/proc/self/fd")) == before
