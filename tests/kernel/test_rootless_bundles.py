"""Bundles without privileges: owners kept beside the files, modes that bar even the owner passed and put back."""

import os
import shutil
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from boxship.errors import BoxshipError
from boxship.image import bundle, mtree
from boxship.image.bundle import Manner
from boxship.image.idmap import ROOTLESS_XATTR, IdMap, Mapping
from boxship.image.layout import Layout
from boxship.image.mutate import Mutation, new_image
from boxship.image.named import resolve

from .layer_archives import archive, directory, hard_link, member, symlink

pytestmark = pytest.mark.root

SOMEBODY = 65534
ROOTLESS = Manner(IdMap((Mapping(0, SOMEBODY),), (Mapping(0, SOMEBODY),), rootless=True))
FIRST = archive(
    [
        directory("barred", mode=0o000),
        directory("barred/deep", mode=0o000),
        member("barred/deep/f", b"first", mode=0o000),
        member("owned", b"x", uid=33, gid=0),
        member("null", type=b"3", devmajor=1, devminor=3),
        symlink("link", "owned", uid=5, gid=6),
        hard_link("same", "owned"),
    ]
)
SECOND = archive([member("barred/deep/g", b"second"), member("barred/.wh.nothing"), member("barred/deep/.wh.f")])


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that somebody without privileges can reach, with an image of two layers."""
    path = Path(tempfile.mkdtemp(prefix="bx-rootless-", dir="/tmp"))
    layout = Layout.create(str(path / "images"))
    new_image(layout, "base")
    for tar in (FIRST, SECOND):
        mutation = Mutation(layout, resolve(layout, "base"))
        with mutation.layer(None) as layer:
            layer.write(tar)
        layout.tag("base", mutation.commit().root)
    for found in [path, *path.rglob("*")]:
        os.chown(found, SOMEBODY, SOMEBODY)
    yield path
    shutil.rmtree(path)


def as_somebody(do: Callable[[], None]) -> None:
    """In a process without privileges; what it asserts counts."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(SOMEBODY, SOMEBODY, SOMEBODY)
            os.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
            do()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_an_image_is_unpacked_changed_and_packed_by_somebody_without_privileges(place: Path) -> None:
    layout, work = Layout(str(place / "images")), place / "work"
    mtree.scan(str(place / "images"))  # whatever is imported late is imported now

    def by_somebody() -> None:
        bundle.unpack(layout, "base", str(work), ROOTLESS)
        assert stat.S_IMODE(os.stat(work / "rootfs" / "barred").st_mode) == 0
        assert os.getxattr(work / "rootfs" / "owned", ROOTLESS_XATTR).hex() == "082110ffffffff0f"
        assert bundle.changes(str(work), bundle.read_meta(str(work))) == []
        (work / "rootfs" / "added").write_text("new")
        os.chmod(work / "rootfs" / "barred", 0o700)
        bundle.repack(layout, "new", str(work), refresh=True)
        os.chmod(work / "rootfs" / "barred", 0o000)

    as_somebody(by_somebody)
    rootfs = place / "whole" / "rootfs"
    bundle.unpack(layout, "new", str(place / "whole"))
    assert (rootfs / "added").read_text() == "new"
    assert (rootfs / "barred" / "deep" / "g").read_bytes() == b"second"
    assert not (rootfs / "barred" / "deep" / "f").exists()
    assert stat.S_IMODE((rootfs / "barred").stat().st_mode) == 0o700
    assert ((rootfs / "owned").stat().st_uid, (rootfs / "owned").stat().st_nlink) == (33, 2)
    assert (rootfs / "null").stat().st_rdev == os.makedev(1, 3)


def test_without_a_rootless_mapping_the_error_says_what_to_do(place: Path) -> None:
    layout = Layout(str(place / "images"))

    def by_somebody() -> None:
        with pytest.raises(BoxshipError, match="--rootless"):
            bundle.unpack(layout, "base", str(place / "work"))
        assert not (place / "work").exists()

    as_somebody(by_somebody)
