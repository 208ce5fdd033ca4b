"""Plans as bytes: a header, one fixed record for each operation, then the texts that the records point into.

A plan may travel in segments, each encoded by itself; the last one is marked, and the executor works on the first
while the rest is still being compiled. A segment is a multiple of eight bytes long, so that one can follow another.

``executor.c`` maps the same three structures (``struct header``, ``struct op``, ``struct report``).
A field of type Text, Bytes or Texts is ``offset | length << 32`` into the plan; every text ends with a NUL that
the length does not count, and equal texts are stored once.
"""

from _struct import Struct, pack
from _struct import error as StructError  # type: ignore[attr-defined]  # typeshed lacks it

from boxship.errors import InvalidArgument, PeerError

from .ops import FINGERPRINT, MAX_FIELDS, OPS, Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boxship.libcontainer.compile import Plan

HEADER = Struct("<QIHH")  # fingerprint, size in bytes, number of operations, flags
RECORD = Struct(f"<HHHH{MAX_FIELDS}q")  # number, two tolerated errnos, nothing, the fields

FLAG_TRACE, FLAG_LAST = 1, 2


def encode(plan: "list[Op]", *, trace: bool = False, last: bool = True) -> bytes:
    """The bytes of a plan, or of one segment of it. Raises InvalidArgument for a field that does not fit.

    A record is eight 64-bit words, so all records are packed by one call: this runs for every container.
    """
    offset = HEADER.size + RECORD.size * len(plan)
    words: list[int] = []
    places: dict[object, int] = {}
    blob: list[bytes] = []
    for op in plan:
        kind, args, tolerate = op
        if tolerate:
            words.append(kind.NUMBER | tolerate[0] << 16 | (tolerate[1] << 32 if len(tolerate) > 1 else 0))
        else:
            words.append(kind.NUMBER)
        blobs = kind.BLOBS
        if blobs:
            values = list(args)
            for index in blobs:
                value = values[index]
                if type(value) is list:
                    value = _texts(op, index, value)
                place = places.get(value)
                if place is None:
                    data = value if type(value) is bytes else _text(op, index, value)
                    places[value] = place = offset | len(data) << 32
                    blob.append(data)
                    offset += len(data) + 1
                values[index] = place
            words += values
        else:
            words += args
        words += kind.PADDING
    blob.append(b"")
    odd = -offset % 8
    if odd:
        blob.append(bytes(odd - 1))
        offset += odd
    header = HEADER.pack(FINGERPRINT, offset, len(plan), (FLAG_TRACE if trace else 0) | (FLAG_LAST if last else 0))
    try:
        records = pack(f"<{len(words)}q", *words)
    except (StructError, TypeError) as error:
        raise InvalidArgument(_misfit(plan), cause=str(error)) from error
    return b"".join((header, records, b"\0".join(blob)))


def segments(plan: "Plan", first: int, *, trace: bool = False, last: bool = True) -> "list[bytes]":
    """The operations from ``first`` on as segments; those that are encoded already are taken as they are."""
    found = []
    for begin, end, data in () if trace else plan.encoded:  # a trace is asked for in the first of them
        if begin >= first:
            if begin > first:
                found.append(encode(plan.ops[first:begin], trace=trace, last=False))
            found.append(data)
            first = end
    if last or first < len(plan.ops):
        found.append(encode(plan.ops[first:], trace=trace, last=last))
    return found


def _misfit(plan: "list[Op]") -> str:
    """Which operation has the number that does not fit: only looked for once packing failed."""
    for op in plan:
        for kind, value in zip(op.WIRE, op.args, strict=True):
            if kind in ("Int", "Flags", "Slot") and not (isinstance(value, int) and -(1 << 63) <= value < 1 << 63):
                return f"{op!r}: {value!r} does not fit the wire"
        if any(not 0 < number < 1 << 16 for number in op.tolerate) or len(op.tolerate) > 2:
            return f"{op!r}: tolerates what is no errno"
    return "the plan does not fit the wire"


def _text(op: Op, index: int, value: object) -> bytes:
    if not isinstance(value, str):
        raise InvalidArgument(f"{op.NAME}: {op.FIELDS[index]} must be text, not {value!r}")
    data = value.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise InvalidArgument(f"{op!r}: {op.FIELDS[index]} contains a NUL byte")
    return data


def _texts(op: Op, index: int, value: object) -> bytes:
    assert isinstance(value, list)
    data = "\0".join(value).encode("utf-8", "surrogateescape")
    if data.count(0) != max(len(value) - 1, 0):
        raise InvalidArgument(f"{op.NAME}: a text of {op.FIELDS[index]} contains a NUL byte")
    return data + b"\0" if value else b""


def decode(data: bytes) -> "list[Op]":
    """The plan that the bytes carry; raises PeerError when they are not a plan of this vocabulary."""
    if len(data) < HEADER.size:
        raise PeerError("a plan is shorter than its header")
    fingerprint, size, count, _ = HEADER.unpack_from(data)
    if fingerprint != FINGERPRINT:
        raise PeerError("the plan was made with another vocabulary")
    if size != len(data) or HEADER.size + count * RECORD.size > size:
        raise PeerError("the plan's size is not what its header says")
    plan = []
    for index in range(count):
        number, first, second, _, *fields = RECORD.unpack_from(data, HEADER.size + index * RECORD.size)
        if not 1 <= number <= len(OPS):
            raise PeerError(f"step {index + 1}: unknown operation {number}")
        cls = OPS[number - 1]
        values: list[object] = []
        for kind, value in zip(cls.WIRE, fields, strict=False):
            if kind in ("Int", "Flags", "Slot"):
                values.append(value)
                continue
            start, length = value & 0xFFFFFFFF, value >> 32
            if length < 0 or start + length >= size:
                raise PeerError(f"step {index + 1}: a text lies outside the plan")
            raw = data[start : start + length]
            if kind == "Bytes":
                values.append(raw)
            elif kind == "Text":
                values.append(raw.decode("utf-8", "surrogateescape"))
            else:
                values.append(raw.decode("utf-8", "surrogateescape").split("\0")[:-1])
        tolerate = tuple(n for n in (first, second) if n)
        plan.append(cls(*values, tolerate=tolerate))
    return plan
