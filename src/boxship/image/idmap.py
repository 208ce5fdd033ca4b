"""Owners: which user and group of the host stand for those that a layer names.

A `Mapping` says that ``size`` IDs from ``container`` on are those from ``host`` on, as in runtime-spec's
``uidMappings``. An empty list maps every ID to itself; with any mapping, an ID outside all of them is refused.

Without privileges nobody can give files away: with ``rootless`` every file belongs to the container's root, and an
owner other than root is kept beside the file in the xattr ``user.rootlesscontainers``, a protobuf message of two
numbers (rootless-containers/proto), so that packing the tree again finds it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from boxship.errors import InvalidArgument

ROOTLESS_XATTR = "user.rootlesscontainers"
_NOT_CHANGED = 0xFFFFFFFF
_ID_END = 1 << 32


@dataclass(frozen=True, slots=True)
class Mapping:
    container: int
    host: int
    size: int = 1

    def to_json(self) -> "dict[str, int]":
        """As runtime-spec's LinuxIDMapping."""
        return {"containerID": self.container, "hostID": self.host, "size": self.size}


def parse_mapping(text: str, flag: str = "mapping") -> Mapping:
    """``container:host[:size]``; raises InvalidArgument."""
    parts = text.split(":")
    if not 2 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise InvalidArgument(f"invalid {flag} {text!r}", cause="expected container:host[:size], three numbers")
    mapping = Mapping(*(int(part) for part in parts))
    if max(mapping.container, mapping.host) + mapping.size > _ID_END:
        raise InvalidArgument(f"invalid {flag} {text!r}", cause="IDs have 32 bits")
    return mapping


def mappings_from_json(entries: "Iterable[dict[str, Any]] | None") -> "tuple[Mapping, ...]":
    """The other direction of `Mapping.to_json`, for a whole list; raises InvalidArgument."""
    found = []
    for one in entries or ():
        try:
            found.append(Mapping(int(one["containerID"]), int(one["hostID"]), int(one["size"])))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidArgument("an ID mapping lacks containerID, hostID or size", cause=str(error)) from error
    return tuple(found)


def _translate(number: int, mappings: "tuple[Mapping, ...]", to_host: bool, kind: str) -> int:
    if not mappings:
        return number
    for one in mappings:
        start, target = (one.container, one.host) if to_host else (one.host, one.container)
        if start <= number < start + one.size:
            return target + number - start
    where = "container" if to_host else "host"
    raise InvalidArgument(
        f"{kind} {number} of the {where} is not in the {kind} mappings",
        remedy=f"map it with --{kind}-map, or use --rootless",
    )


@dataclass(frozen=True, slots=True)
class IdMap:
    """How owners are translated between a layer and a directory. `IDENTITY` changes nothing."""

    uids: "tuple[Mapping, ...]" = ()
    gids: "tuple[Mapping, ...]" = ()
    rootless: bool = False
    _seen: "dict[tuple[int, int], tuple[int, int]]" = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_identity(self) -> bool:
        return not (self.uids or self.gids or self.rootless)

    def to_host(self, uid: int, gid: int) -> "tuple[int, int]":
        """The owner on disk; raises InvalidArgument for an ID that is not mapped."""
        if self.is_identity:
            return uid, gid
        if self.rootless:
            uid = gid = 0
        known = self._seen.get((uid, gid))
        if known is None:
            known = _translate(uid, self.uids, True, "uid"), _translate(gid, self.gids, True, "gid")
            self._seen[uid, gid] = known
        return known

    def to_container(self, uid: int, gid: int, recorded: "bytes | None" = None) -> "tuple[int, int]":
        """The owner for the layer; ``recorded`` is the file's `ROOTLESS_XATTR`, which goes before."""
        uid = _translate(uid, self.uids, False, "uid")
        gid = _translate(gid, self.gids, False, "gid")
        if self.rootless and recorded is not None:
            kept_uid, kept_gid = decode_owner(recorded)
            uid = uid if kept_uid == _NOT_CHANGED else kept_uid
            gid = gid if kept_gid == _NOT_CHANGED else kept_gid
        return uid, gid

    def record(self, uid: int, gid: int) -> "bytes | None":
        """What `ROOTLESS_XATTR` must say for a layer's owner; None when nothing needs to be kept."""
        if not self.rootless or (uid, gid) == (0, 0):
            return None
        return encode_owner(uid or _NOT_CHANGED, gid or _NOT_CHANGED)


IDENTITY = IdMap()


def encode_owner(uid: int, gid: int) -> bytes:
    """The message ``{uint32 uid = 1; uint32 gid = 2}``; a zero is left out, as protobuf does."""
    return b"".join(bytes((tag,)) + _varint(number) for tag, number in ((0x08, uid), (0x10, gid)) if number)


def decode_owner(message: bytes) -> "tuple[int, int]":
    """Raises InvalidArgument; unknown fields are not expected here and are refused."""
    found = {0x08: 0, 0x10: 0}
    at = 0
    while at < len(message):
        tag, at = message[at], at + 1
        number = shift = 0
        while True:
            if tag not in found or at >= len(message) or shift > 28:
                raise InvalidArgument(f"damaged xattr {ROOTLESS_XATTR}", remedy="remove it: the owner is root then")
            byte, at = message[at], at + 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        found[tag] = number & _NOT_CHANGED
    return found[0x08], found[0x10]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
