"""Tar headers for layers: ustar where its fields suffice, PAX records (POSIX.1-2017) where they do not.

The bytes are a function of the entry alone: no user names, no time but the entry's own, records in the order of their
keys. Where an entry fits, the choice of fields is that of Go's archive/tar, so that equal trees give the diff IDs
that umoci, buildah and docker give. `Header.encode` is all there is; tarfile costs five times as much per entry.
"""

from dataclasses import dataclass, field

BLOCK = 512
END = bytes(2 * BLOCK)
REGULAR, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"

_MAGIC = b"ustar\x0000"
_SECOND = 1_000_000_000
_NAME, _PREFIX, _LINK = 100, 155, 100
_SMALL, _LARGE = 0o7777777, 0o77777777777  # what the octal fields of 8 and 12 bytes can say


@dataclass(slots=True)
class Header:
    """One member to be written. ``name`` and ``linkname`` are bytes as on disk; a directory's name ends in ``/``."""

    name: bytes
    type: bytes = REGULAR
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    linkname: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: "dict[str, bytes]" = field(default_factory=dict)

    def encode(self) -> bytes:
        """The header's blocks: one, or three and more when it needs PAX records."""
        seconds, fraction = divmod(self.mtime_ns, _SECOND)
        records: dict[bytes, bytes] = {}
        prefix, name = b"", self.name
        if len(name) > _NAME:
            prefix, name = _split(name)
        if not name or not self.name.isascii():
            records[b"path"] = self.name
            prefix, name = b"", self.name
        if len(self.linkname) > _LINK or not self.linkname.isascii():
            records[b"linkpath"] = self.linkname
        for key, number, most in (
            (b"uid", self.uid, _SMALL),
            (b"gid", self.gid, _SMALL),
            (b"size", self.size, _LARGE),
        ):
            if number > most:
                records[key] = b"%d" % number
        if fraction or not 0 <= seconds <= _LARGE:
            records[b"mtime"] = _time(self.mtime_ns)
        for attribute, value in self.xattrs.items():
            records[b"SCHILY.xattr." + attribute.encode("utf-8", "surrogateescape")] = value
        if not records:
            return _block(self, prefix, name, self.linkname, seconds)
        if prefix:  # records or a split name, never both: readers disagree on which goes first
            prefix, name = b"", self.name
            records[b"path"] = self.name
        body = b"".join(_record(key, records[key]) for key in sorted(records))
        extended = Header(_extended_name(self.name), b"x", size=len(body))
        return (
            _block(extended, b"", extended.name, b"", 0)
            + body
            + bytes(-len(body) % BLOCK)
            + _block(self, b"", _ascii(name), _ascii(self.linkname), seconds)
        )


def padding(size: int) -> bytes:
    """What follows ``size`` bytes of data."""
    return bytes(-size % BLOCK)


def _block(header: Header, prefix: bytes, name: bytes, link: bytes, seconds: int) -> bytes:
    type = header.type
    device = type in (CHAR, BLOCK_DEVICE)
    numbers = b"%07o\0%07o\0" % ((header.major, header.minor) if device else (0, 0))
    block = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%b%b%b%b%b" % (
        _cut(name, _NAME).ljust(_NAME, b"\0"),
        header.mode,
        header.uid if header.uid <= _SMALL else 0,
        header.gid if header.gid <= _SMALL else 0,
        header.size if header.size <= _LARGE else 0,
        seconds if 0 <= seconds <= _LARGE else 0,
        type,
        link[:_LINK].ljust(_LINK, b"\0"),
        _MAGIC,
        bytes(64),
        bytes(16) if type == b"x" else numbers,
        prefix.ljust(BLOCK - 345, b"\0"),
    )
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])


def _split(name: bytes) -> "tuple[bytes, bytes]":
    """A long name as prefix and name, cut at the last ``/`` that fits; empty when there is none."""
    end = min(len(name), _PREFIX + 1)
    if name[end - 1 : end] == b"/" and end == len(name):
        end -= 1
    at = name.rfind(b"/", 0, end)
    if at <= 0 or len(name) - at - 1 > _NAME or len(name) - at - 1 == 0 or at > _PREFIX:
        return b"", b""
    return name[:at], name[at + 1 :]


def _cut(name: bytes, most: int) -> bytes:
    """A name cut short must not end in ``/``: old readers would take the member for a directory."""
    return name if len(name) <= most else name[:most].rstrip(b"/")


def _extended_name(name: bytes) -> bytes:
    directory, _, base = name.rpartition(b"/")
    parts = [part for part in (*directory.split(b"/"), b"PaxHeaders.0", *base.split(b"/")) if part not in (b"", b".")]
    return _ascii(b"/".join(parts))[:_NAME].rstrip(b"/")


def _ascii(name: bytes) -> bytes:
    return name if name.isascii() else bytes(byte for byte in name if byte < 0x80)


def _time(mtime_ns: int) -> bytes:
    sign, mtime_ns = (b"-", -mtime_ns) if mtime_ns < 0 else (b"", mtime_ns)
    seconds, fraction = divmod(mtime_ns, _SECOND)
    text = b"%b%d.%09d" % (sign, seconds, fraction)
    return text.rstrip(b"0").rstrip(b".")


def _record(key: bytes, value: bytes) -> bytes:
    """``"%d %s=%s\\n"``, where the number counts the whole record, itself included."""
    rest = len(key) + len(value) + 3
    size = rest + len(str(rest))
    if len(str(size)) != len(str(rest)):
        size = rest + len(str(size))
    return b"%d %b=%b\n" % (size, key, value)
