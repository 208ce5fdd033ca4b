"""A streaming tar reader for layers: headers become `Entry` values, file data is read as it passes.

Formats read: v7, ustar, GNU (long names, base-256 numbers, old sparse) and PAX (POSIX.1-2017 pax, "pax
Interchange Format"), with the xattr records of star and libarchive and GNU's sparse records 0.0, 0.1 and 1.0.
The reader never seeks, so it works on a pipe, and trusts no size: names, PAX records and sparse maps have
limits. An archive that stops before its end marker is cut short and raises DataLoss; one whose header makes
no sense raises InvalidArgument. Why not tarfile: it costs twice the time of the whole unpacking and loses
sparse files when it streams.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from boxship.errors import DataLoss, InvalidArgument
from boxship.image.compression import CHUNK, Reader

BLOCK = 512
_ZERO = bytes(BLOCK)
_META_LIMIT = 1 << 20  # as Go's archive/tar: long names and PAX records beyond this are hostile
_SPARSE_LIMIT = 1 << 16  # entries of a sparse map

REGULAR, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = "0", "1", "2", "3", "4", "5", "6"
_REGULAR_TYPES = frozenset("0\x007S")
_WITHOUT_DATA = frozenset("123456")

_XATTR = "SCHILY.xattr."

# name, mode, uid, gid, size, mtime, checksum, type, linkname, magic, (version, names), devmajor, devminor, prefix
_FIELDS = struct.Struct("100s 8s 8s 8s 12s 12s 8s 1s 100s 6s 66x 8s 8s 155s 12x")


@dataclass(slots=True)
class Entry:
    """One member: ``size`` is of the data in the archive, ``real_size`` of the file when it is sparse."""

    name: str
    type: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    linkname: str = ""
    major: int = 0
    minor: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)
    sparse: "list[tuple[int, int]] | None" = None  # (offset, length) of each piece of data
    real_size: int = 0


class TarReader:
    """Iterate for entries; between two of them `data` yields what the last one holds (the rest is skipped).

    After the end marker the source is read to its end, so that whatever hashes it has seen everything.
    """

    def __init__(self, source: Reader, what: str = "archive") -> None:
        self._source = source
        self._what = what
        self._buffer = b""
        self._at = 0
        self._left = 0  # data bytes of the current entry not yet read
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        pax_global: dict[str, bytes] = {}
        pax: dict[str, bytes] = {}
        long_name = long_link = ""
        while True:
            self._skip(self._left + self._padding)
            self._left = self._padding = 0
            block = self._exactly(BLOCK, "a header")
            if block == _ZERO:
                self._drain()
                return
            entry = self._header(block)
            match entry.type:
                case "x" | "g":
                    records = self._pax_records(self._meta(entry))
                    if entry.type == "g":
                        pax_global |= records
                    else:
                        pax = records
                    continue
                case "L":
                    long_name = _text(self._meta(entry))
                    continue
                case "K":
                    long_link = _text(self._meta(entry))
                    continue
                case "V":  # a GNU volume label: no member
                    continue
            entry.name = long_name or entry.name
            entry.linkname = long_link or entry.linkname
            if entry.type == "S":
                self._old_sparse(entry, block)
            if pax_global or pax:
                self._apply_pax(entry, pax_global | pax)
            self._settle(entry)
            pax, long_name, long_link = {}, "", ""
            yield entry

    def data(self) -> Iterator[bytes]:
        """The current entry's bytes, as stored (without holes), in pieces."""
        while self._left:
            piece = self._some(self._left)
            self._left -= len(piece)
            yield piece

    def whole(self) -> "bytes | None":
        """All of the current entry's bytes when they have been read ahead, as those of small files have."""
        end = self._at + self._left
        if end > len(self._buffer):
            return None
        data = self._buffer[self._at : end]
        self._at, self._left = end, 0
        return data

    # -- headers

    def _header(self, block: bytes) -> Entry:
        name, mode, uid, gid, size, mtime, checksum, kind, linkname, magic, major, minor, prefix = _FIELDS.unpack(
            block
        )
        number = self._number
        try:
            stated = number(checksum, "checksum")
        except InvalidArgument as error:
            raise InvalidArgument(f"{self._what} is not a tar archive", cause="no checksum in a header") from error
        # The checksum counts its own field as spaces; some old writers summed signed bytes.
        total = sum(block) - sum(checksum) + 256
        if stated != total:
            signed = total - 256 * sum(1 for b in block[:148] + block[156:] if b > 127)
            if stated != signed:
                raise InvalidArgument(f"{self._what} is not a tar archive", cause="header checksum mismatch")
        path = _text(name)
        type = chr(kind[0])
        if magic == b"ustar\0" and prefix[0]:
            path = _text(prefix) + "/" + path
        if type in "\0" + "0" and path.endswith("/"):
            type = DIRECTORY  # v7 had no type for directories
        device = type in "34"
        return Entry(
            path,
            type,
            number(mode, "mode") & 0o7777,
            number(uid, "uid"),
            number(gid, "gid"),
            number(size, "size"),
            number(mtime, "mtime") * 1_000_000_000,
            _text(linkname) if linkname[0] else "",
            number(major, "devmajor") if device else 0,
            number(minor, "devminor") if device else 0,
        )

    def _settle(self, entry: Entry) -> None:
        """The type is final: how many bytes follow."""
        if entry.size < 0:
            raise InvalidArgument(f"{self._what}: {entry.name!r} has a negative size")
        if entry.type in _REGULAR_TYPES:
            entry.type = REGULAR
        elif entry.type in _WITHOUT_DATA:
            entry.size = 0  # as all readers do: some writers give hard links the size of their target
        else:
            raise InvalidArgument(f"{self._what}: {entry.name!r} has the unknown type {entry.type!r}")
        self._left = entry.size
        self._padding = -entry.size % BLOCK
        if entry.sparse is None and entry.real_size < 0:
            entry.sparse = self._sparse_map_1_0(entry)
        if entry.sparse is None:
            entry.real_size = entry.size
        else:
            self._check_sparse(entry)

    def _number(self, text: bytes, what: str) -> int:
        if text[0] & 0x80:  # GNU base-256: two's complement in the remaining bits
            value = int.from_bytes(bytes((text[0] & 0x7F,)) + text[1:], "big")
            return value - (1 << (8 * len(text) - 1)) if text[0] & 0x40 else value
        try:
            return int(text.partition(b"\0")[0] or b"0", 8)
        except ValueError:
            if not text.partition(b"\0")[0].strip():
                return 0
            raise InvalidArgument(f"{self._what}: a header's {what} is not a number") from None

    def _meta(self, entry: Entry) -> bytes:
        if not 0 <= entry.size <= _META_LIMIT:
            raise InvalidArgument(f"{self._what}: extended header of {entry.size} bytes is too large")
        data = self._exactly(entry.size, "an extended header")
        self._skip(-entry.size % BLOCK)
        return data

    def _pax_records(self, data: bytes) -> "dict[str, bytes]":
        """``"%d %s=%s\\n"``: length (of the whole record), keyword, value."""
        records: dict[str, bytes] = {}
        at = 0
        while at < len(data):
            space = data.find(b" ", at, at + 20)
            digits = data[at:space] if space > 0 else b""
            end = at + int(digits) if digits.isdigit() else 0
            equals = data.find(b"=", space, end)
            if equals < 0 or end > len(data) or data[end - 1 : end] != b"\n":
                raise InvalidArgument(f"{self._what}: damaged PAX record")
            key = data[space + 1 : equals].decode("utf-8", "surrogateescape")
            value = data[equals + 1 : end - 1]
            # GNU.sparse 0.0 repeats its keywords, so the pieces are gathered here in the form of 0.1.
            if key in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
                key = "GNU.sparse.map"
                value = records[key] + b"," + value if key in records else value
            records[key] = value
            at = end
        return records

    def _apply_pax(self, entry: Entry, records: "dict[str, bytes]") -> None:
        for key, value in records.items():
            match key:
                case "path":
                    entry.name = _path(value, self._what)
                case "linkpath":
                    entry.linkname = _path(value, self._what)
                case "size":
                    entry.size = self._decimal(value, key)
                case "uid":
                    entry.uid = self._decimal(value, key)
                case "gid":
                    entry.gid = self._decimal(value, key)
                case "mtime":
                    entry.mtime_ns = self._time(value)
                case _ if key.startswith(_XATTR):
                    entry.xattrs[key[len(_XATTR) :]] = value
        if "GNU.sparse.map" in records:
            numbers = [self._decimal(n, "sparse map") for n in records["GNU.sparse.map"].split(b",") if n]
            entry.sparse = self._pairs(numbers)
            real = records.get("GNU.sparse.size") or records.get("GNU.sparse.realsize") or b"0"
            entry.real_size = self._decimal(real, "sparse size")
        elif records.get("GNU.sparse.major") == b"1":
            entry.real_size = -1 - self._decimal(records.get("GNU.sparse.realsize", b""), "sparse size")
        if "GNU.sparse.name" in records:
            entry.name = _path(records["GNU.sparse.name"], self._what)

    def _decimal(self, value: bytes, what: str) -> int:
        if not value.isdigit() or len(value) > 20:
            raise InvalidArgument(f"{self._what}: a PAX record's {what} is not a number")
        return int(value)

    def _time(self, value: bytes) -> int:
        sign = -1 if value.startswith(b"-") else 1
        seconds, _, fraction = value.lstrip(b"-").partition(b".")
        if not seconds.isdigit() or len(seconds) > 20 or (fraction and not fraction.isdigit()):
            raise InvalidArgument(f"{self._what}: a PAX record's time is not a number")
        return sign * (int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0")))

    # -- sparse files

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        numbers: list[int] = []
        entry.real_size = self._number(block[483:495], "realsize")
        more, table, count = block[482], block[386:482], 4
        while True:
            for i in range(count):
                pair = table[i * 24 : i * 24 + 24]
                if pair[0]:
                    numbers += [self._number(pair[:12], "offset"), self._number(pair[12:], "length")]
            if not more:
                break
            if len(numbers) > 2 * _SPARSE_LIMIT:
                raise InvalidArgument(f"{self._what}: sparse map of {entry.name!r} is too long")
            table, count = self._exactly(BLOCK, "a sparse map"), 21
            more = table[504]
        entry.sparse = self._pairs(numbers)

    def _sparse_map_1_0(self, entry: Entry) -> "list[tuple[int, int]]":
        """The map stands before the data: decimal lines, the first one is their count, padded to a block."""
        entry.real_size = -1 - entry.real_size
        text = b""
        wanted = None
        while wanted is None or text.count(b"\n") < wanted:
            if self._left < BLOCK or len(text) > 48 * _SPARSE_LIMIT:
                raise InvalidArgument(f"{self._what}: damaged sparse map of {entry.name!r}")
            text += self._exactly(BLOCK, "a sparse map")
            self._left -= BLOCK
            if wanted is None and b"\n" in text:
                wanted = 1 + 2 * self._decimal(text.split(b"\n", 1)[0], "sparse map")
        numbers = [self._decimal(line, "sparse map") for line in text.split(b"\n")[1:wanted]]
        entry.size = self._left
        return self._pairs(numbers)

    def _pairs(self, numbers: "list[int]") -> "list[tuple[int, int]]":
        if len(numbers) % 2 or len(numbers) > 2 * _SPARSE_LIMIT:
            raise InvalidArgument(f"{self._what}: damaged sparse map")
        return list(zip(numbers[::2], numbers[1::2], strict=True))

    def _check_sparse(self, entry: Entry) -> None:
        end = total = 0
        for offset, length in entry.sparse or ():
            if offset < end or length < 0:
                raise InvalidArgument(f"{self._what}: sparse map of {entry.name!r} is out of order")
            end = offset + length
            total += length
        if end > entry.real_size or total != entry.size:
            raise InvalidArgument(f"{self._what}: sparse map of {entry.name!r} does not fit its data")

    # -- bytes

    def _exactly(self, size: int, what: str) -> bytes:
        end = self._at + size
        while len(self._buffer) < end:
            self._buffer = self._buffer[self._at :]
            self._at, end = 0, size
            more = self._source.read(CHUNK)
            if not more:
                raise DataLoss(f"{self._what} is cut short", cause=f"the end came inside {what}")
            self._buffer = self._buffer + more if self._buffer else more
        data = self._buffer[self._at : end]
        self._at = end
        return data

    def _some(self, limit: int) -> bytes:
        if self._at >= len(self._buffer):
            self._buffer, self._at = self._source.read(CHUNK), 0
            if not self._buffer:
                raise DataLoss(f"{self._what} is cut short", cause="the end came inside a file")
        piece = self._buffer[self._at : self._at + limit]
        self._at += len(piece)
        return piece

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._some(size))

    def _drain(self) -> None:
        self._buffer = b""
        while self._source.read(CHUNK):
            pass


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _path(value: bytes, what: str) -> str:
    if b"\0" in value:
        raise InvalidArgument(f"{what}: a name contains a NUL byte")
    return value.decode("utf-8", "surrogateescape")
