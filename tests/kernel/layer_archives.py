"""Small tar archives for the applier's tests, built byte by byte where tarfile would refuse to."""

import io
import tarfile
from collections.abc import Iterable
from typing import Any

END = bytes(1024)
Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes = b"", *, type: bytes = tarfile.REGTYPE, link: str = "", **fields: Any) -> Member:
    """One member; ``fields`` are TarInfo's attributes (mode, uid, pax_headers, ...)."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = type, link, len(data)
    info.mode = 0o755 if type == tarfile.DIRTYPE else 0o644
    info.mtime = 1_000_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, **fields: Any) -> Member:
    return member(name, type=tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str, **fields: Any) -> Member:
    return member(name, type=tarfile.SYMTYPE, link=target, **fields)


def hard_link(name: str, target: str) -> Member:
    return member(name, type=tarfile.LNKTYPE, link=target)


def archive(members: Iterable[Member], format: int = tarfile.PAX_FORMAT, end: bytes = END) -> bytes:
    out = io.BytesIO()
    for info, data in members:
        out.write(info.tobuf(format, "utf-8", "surrogateescape"))
        out.write(data + bytes(-len(data) % 512))
    return out.getvalue() + end


def with_checksum(header: bytearray) -> bytes:
    """The header with its checksum made right again."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
