"""Layer creation: what a snapshot changed, as a layer tar (the other direction of `apply`).

An overlay's upper directory already is the difference: character devices 0:0 are whiteouts, the xattr
trusted.overlay.opaque marks an opaque directory. Entries come in the order of their names, parents first, in PAX
format, so that equal trees give equal bytes.
"""

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from boxship.errors import Unimplemented
from boxship.image.apply import OPAQUE_XATTR
from boxship.image.compression import CHUNK
from boxship.image.snapshots import Mount

Write = Callable[[bytes], object]


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


def write_layer(directory: str, write: Write) -> None:
    """Write the overlay upper directory ``directory`` as a layer tar."""
    links: dict[tuple[int, int], str] = {}
    for path, name, found in _walk(directory, ""):
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            parent, _, base = name.rpartition("/")
            write(_header(_empty(f"{parent}/.wh.{base}" if parent else f".wh.{base}")))
            continue
        info = _info(path, name, found)
        if info is None:
            continue  # a socket: tar has no type for it, and it means nothing without its process
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            first = links.setdefault((found.st_dev, found.st_ino), name)
            if first != name:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
        write(_header(info))
        if info.type == tarfile.REGTYPE:
            _write_file(path, info.size, write)
        elif info.type == tarfile.DIRTYPE and _opaque(path):
            write(_header(_empty(f"{name}/.wh..wh..opq")))
    write(bytes(2 * tarfile.BLOCKSIZE))


def _walk(path: str, name: str) -> Iterator[tuple[str, str, os.stat_result]]:
    for entry in sorted(os.scandir(path), key=lambda one: os.fsencode(one.name)):
        found = entry.stat(follow_symlinks=False)
        child = f"{name}/{entry.name}" if name else entry.name
        yield entry.path, child, found
        if stat.S_ISDIR(found.st_mode):
            yield from _walk(entry.path, child)


_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def _info(path: str, name: str, found: os.stat_result) -> "tarfile.TarInfo | None":
    kind = _TYPES.get(stat.S_IFMT(found.st_mode))
    if kind is None:
        return None
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode, info.uid, info.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    info.mtime = found.st_mtime_ns // 1_000_000_000
    seconds, nanoseconds = divmod(found.st_mtime_ns, 1_000_000_000)
    records = {"mtime": f"{seconds}.{nanoseconds:09d}"}
    if kind == tarfile.REGTYPE:
        info.size = found.st_size
    elif kind == tarfile.SYMTYPE:
        info.linkname = os.readlink(path)
    elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
    for key in os.listxattr(path, follow_symlinks=False):
        if not key.startswith("trusted.overlay."):
            value = os.getxattr(path, key, follow_symlinks=False)
            # PAX values are bytes; surrogateescape carries the ones that are no UTF-8 through tarfile's str.
            records[f"SCHILY.xattr.{key}"] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = records
    return info


def _empty(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = 0
    return info


def _header(info: tarfile.TarInfo) -> bytes:
    binary = any("\udc80" <= c <= "\udcff" for value in info.pax_headers.values() for c in str(value))
    if not binary:
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    # tarfile writes such records only for names; build the extended header here and the rest by tarfile.
    records = b"".join(_record(key, str(value)) for key, value in sorted(info.pax_headers.items()))
    extended = tarfile.TarInfo("././@PaxHeader")
    extended.type, extended.size = tarfile.XHDTYPE, len(records)
    info.pax_headers = {}
    padding = bytes(-len(records) % tarfile.BLOCKSIZE)
    return extended.tobuf(tarfile.USTAR_FORMAT) + records + padding + info.tobuf(tarfile.GNU_FORMAT)


def _record(key: str, value: str) -> bytes:
    body = b" " + key.encode() + b"=" + value.encode("utf-8", "surrogateescape") + b"\n"
    length = len(body)
    while True:
        total = len(body) + len(str(length))
        if total == length:
            return str(length).encode() + body
        length = total


def _opaque(path: str) -> bool:
    try:
        return os.getxattr(path, OPAQUE_XATTR) == b"y"
    except OSError:
        return False


def _write_file(path: str, size: int, write: Write) -> None:
    """Exactly ``size`` bytes: a file that changes meanwhile must not break the archive."""
    left = size
    with open(path, "rb", buffering=0) as file:
        while left:
            data = file.read(min(left, CHUNK))
            if not data:
                write(bytes(left))
                break
            write(data)
            left -= len(data)
    write(bytes(-size % tarfile.BLOCKSIZE))
