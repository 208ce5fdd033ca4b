"""Layer creation: what changed, as a layer tar (the other direction of `apply`).

`LayerWriter` turns files and removals into a tar whose bytes are a function of the tree alone: no user names, times
clamped where asked (SOURCE_DATE_EPOCH), members in the order in which they are added, which is that of their names.

An overlay's upper directory already is the difference: character devices 0:0 are whiteouts, the xattr
trusted.overlay.opaque marks an opaque directory (`write_layer`).
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boxship.errors import InvalidArgument, Unimplemented
from boxship.image import tarwriter
from boxship.image.attributes import HOST_XATTRS
from boxship.image.compression import CHUNK
from boxship.image.directories import OPAQUE_XATTR, is_whiteout
from boxship.image.idmap import IDENTITY, ROOTLESS_XATTR, IdMap
from boxship.image.tarwriter import Header
from boxship.image.whiteouts import PREFIX

if TYPE_CHECKING:
    from boxship.image.snapshots import Mount  # brings a database along, which nobody needs here

Write = Callable[[bytes], object]

_SECOND = 1_000_000_000
_TYPES = {
    stat.S_IFREG: tarwriter.REGULAR,
    stat.S_IFDIR: tarwriter.DIRECTORY,
    stat.S_IFLNK: tarwriter.SYMLINK,
    stat.S_IFCHR: tarwriter.CHAR,
    stat.S_IFBLK: tarwriter.BLOCK_DEVICE,
    stat.S_IFIFO: tarwriter.FIFO,
}


@dataclass(frozen=True, slots=True)
class Stack:
    """What mounts show: the directories of an overlay, topmost first."""

    directories: "tuple[str, ...]"


def stack(mounts: "list[Mount]") -> Stack:
    """Raises Unimplemented for mounts that are neither one bind nor one overlay."""
    if not mounts:
        return Stack(())
    if len(mounts) == 1 and mounts[0].type == "bind":
        return Stack((mounts[0].source,))
    if len(mounts) == 1 and mounts[0].type == "overlay":
        options = dict(option.partition("=")[::2] for option in mounts[0].options)
        lowers = options.get("lowerdir", "").split(":")
        upper = [options["upperdir"]] if "upperdir" in options else []
        return Stack((*upper, *lowers))
    raise Unimplemented("only one bind or overlay mount can be read without mounting it")


def write_diff(lower: "list[Mount]", upper: "list[Mount]", write: Write) -> None:
    """Write the layer that turns ``lower`` into ``upper``.

    Raises Unimplemented unless ``upper`` is exactly one layer on top of ``lower``, which snapshots of one
    snapshotter are.
    """
    below, above = stack(lower).directories, stack(upper).directories
    if above[1:] != below and not (not below and len(above) == 1):
        raise Unimplemented("the snapshots do not differ by exactly one layer")
    write_layer(above[0], write)


class LayerWriter:
    """Writes members one by one; `close` writes the end.

    Owners become the container's by ``idmap``; no time is later than ``epoch`` (seconds); ``whole_seconds`` cuts
    times as an mtree manifest compares them. A file with several links is written once, then as hard links.
    Raises InvalidArgument for a name that a layer cannot hold, because it would be a whiteout.
    """

    def __init__(
        self, write: Write, *, idmap: IdMap = IDENTITY, epoch: "int | None" = None, whole_seconds: bool = False
    ) -> None:
        self._write = write
        self._idmap = idmap
        self._epoch = epoch
        self._whole_seconds = whole_seconds
        self._links: dict[tuple[int, int], bytes] = {}

    def add(self, name: str, path: str, found: "os.stat_result | None" = None) -> None:
        """The file at ``path`` (its own status ``found``, if known) as ``name``; not what is below it."""
        found = found or os.stat(path, follow_symlinks=False)
        header = self._header(name, path, found)
        if header is None:
            return  # a socket: tar has no type for it, and it means nothing without its process
        self._write(header.encode())
        if header.type == tarwriter.REGULAR and header.size:
            self._contents(path, header.size)

    def whiteout(self, name: str) -> None:
        """``name`` is gone."""
        directory, base = self._checked(name)
        self._marker(f"{directory}/{PREFIX}{base}" if directory else PREFIX + base)

    def opaque(self, directory: str) -> None:
        """Nothing of the layers below shows in ``directory``."""
        self._checked(directory)
        self._marker(f"{directory}/{PREFIX}{PREFIX}.opq" if directory else f"{PREFIX}{PREFIX}.opq")

    def close(self) -> None:
        self._write(tarwriter.END)

    def _marker(self, name: str) -> None:
        self._write(Header(os.fsencode(name)).encode())

    def _checked(self, name: str) -> "tuple[str, str]":
        directory, _, base = name.rpartition("/")
        if base.startswith(PREFIX):
            raise InvalidArgument(
                f"{name!r} cannot be in a layer",
                cause=f"names that begin with {PREFIX} mean removals there",
                remedy="rename the file",
            )
        return directory, base

    def _header(self, name: str, path: str, found: os.stat_result) -> "Header | None":
        kind = _TYPES.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            return None
        self._checked(name)
        encoded = os.fsencode(name)
        if kind == tarwriter.DIRECTORY and name != ".":
            encoded += b"/"
        header = Header(encoded, kind, stat.S_IMODE(found.st_mode), mtime_ns=self._time(found.st_mtime_ns))
        header.xattrs, recorded = _xattrs(path)
        if recorded is not None and not self._idmap.rootless:
            header.xattrs[ROOTLESS_XATTR] = recorded
        header.uid, header.gid = self._idmap.to_container(found.st_uid, found.st_gid, recorded)
        if kind == tarwriter.REGULAR:
            header.size = found.st_size
        elif kind == tarwriter.SYMLINK:
            header.linkname = os.fsencode(os.readlink(path))
        elif kind in (tarwriter.CHAR, tarwriter.BLOCK_DEVICE):
            header.major, header.minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        if found.st_nlink > 1 and kind != tarwriter.DIRECTORY:
            first = self._links.setdefault((found.st_dev, found.st_ino), encoded)
            if first != encoded:
                header.type, header.linkname, header.size = tarwriter.LINK, first, 0
        return header

    def _time(self, mtime_ns: int) -> int:
        if self._epoch is not None:
            mtime_ns = min(mtime_ns, self._epoch * _SECOND)
        return mtime_ns // _SECOND * _SECOND if self._whole_seconds else mtime_ns

    def _contents(self, path: str, size: int) -> None:
        """Exactly ``size`` bytes: a file that changes meanwhile must not break the archive."""
        left = size
        with open(path, "rb", buffering=0) as file:
            while left:
                data = file.read(min(left, CHUNK))
                if not data:
                    self._write(bytes(left))
                    break
                self._write(data)
                left -= len(data)
        self._write(tarwriter.padding(size))


def write_layer(directory: str, write: Write, epoch: "int | None" = None) -> None:
    """Write the overlay upper directory ``directory`` as a layer tar."""
    layer = LayerWriter(write, epoch=epoch)
    for path, name, found in walk(directory):
        if is_whiteout(found):
            layer.whiteout(name)
            continue
        layer.add(name, path, found)
        if stat.S_ISDIR(found.st_mode) and is_opaque(path):
            layer.opaque(name)
    layer.close()


def walk(directory: str, name: str = "") -> "Iterator[tuple[str, str, os.stat_result]]":
    """What is below ``directory`` as (path, name, status), in the order of the names, parents first."""
    for entry in sorted(os.scandir(directory), key=lambda one: os.fsencode(one.name)):
        found = entry.stat(follow_symlinks=False)
        child = f"{name}/{entry.name}" if name else entry.name
        yield entry.path, child, found
        if stat.S_ISDIR(found.st_mode):
            yield from walk(entry.path, child)


def _xattrs(path: str) -> "tuple[dict[str, bytes], bytes | None]":
    """What goes into a layer, and apart from it the owner that a rootless tree has recorded."""
    found: dict[str, bytes] = {}
    recorded = None
    for key in os.listxattr(path, follow_symlinks=False):
        if key in HOST_XATTRS or key.startswith("trusted.overlay."):
            continue
        value = os.getxattr(path, key, follow_symlinks=False)
        if key == ROOTLESS_XATTR:
            recorded = value
        elif value:  # in PAX an empty value takes a record back, so a layer cannot hold it
            found[key] = value
    return found, recorded


def is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, OPAQUE_XATTR) == b"y"
    except OSError:
        return False
