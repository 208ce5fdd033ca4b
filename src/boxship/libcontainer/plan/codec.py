"""Plans as bytes: a header, one fixed record for each operation, then the texts that the records point into.

``executor.c`` maps the same three structures (``struct header``, ``struct op``, ``struct report``).
A field of type Text, Bytes or Texts is ``offset | length << 32`` into the plan; every text ends with a NUL that
the length does not count, and equal texts are stored once.
"""

from struct import Struct

from boxship.errors import InvalidArgument, PeerError

from .ops import FINGERPRINT, MAX_FIELDS, OPS, Op

HEADER = Struct("<QIHH")  # fingerprint, size in bytes, number of operations, flags
RECORD = Struct(f"<HHHH{MAX_FIELDS}q")  # number, two tolerated errnos, nothing, the fields
REPORT = Struct("<IIq")  # kind, step (from 0), value

FLAG_TRACE = 1

FAILED, CLONED, AWAITING, HANDLE, TIMES, REFUSED = range(1, 7)

_PADDING = tuple((0,) * n for n in range(MAX_FIELDS + 1))


def encode(plan: "list[Op]", *, trace: bool = False) -> bytes:
    """The plan's bytes. Raises InvalidArgument for a text with a NUL or a number that does not fit."""
    offset = HEADER.size + RECORD.size * len(plan)
    records = bytearray(offset)
    texts: dict[bytes, int] = {}
    blob: list[bytes] = []
    pack = RECORD.pack_into
    at = HEADER.size
    for op in plan:
        args = op.args
        if op.BLOBS:
            values = list(args)
            for index in op.BLOBS:
                value = values[index]
                if type(value) is str:
                    data = value.encode("utf-8", "surrogateescape")
                    if b"\0" in data:
                        raise InvalidArgument(f"{op!r}: {op.FIELDS[index]} contains a NUL byte")
                elif type(value) is bytes:
                    data = value
                else:
                    data = _texts(op, index, value)
                place = texts.get(data)
                if place is None:
                    texts[data] = place = offset | len(data) << 32
                    blob.append(data)
                    offset += len(data) + 1
                values[index] = place
            args = values
        tolerate = op.tolerate
        count = len(tolerate)
        try:
            pack(
                records,
                at,
                op.NUMBER,
                tolerate[0] if count else 0,
                tolerate[1] if count > 1 else 0,
                0,
                *args,
                *_PADDING[MAX_FIELDS - len(args)],
            )
        except Exception as error:
            raise InvalidArgument(f"{op!r}: a field does not fit the wire", cause=str(error)) from error
        at += RECORD.size
    blob.append(b"")
    HEADER.pack_into(records, 0, FINGERPRINT, offset, len(plan), FLAG_TRACE if trace else 0)
    return bytes(records) + b"\0".join(blob)


def _texts(op: Op, index: int, value: object) -> bytes:
    if not isinstance(value, (list, tuple)):
        raise InvalidArgument(f"{op.NAME}: {op.FIELDS[index]} must be text, bytes or a list of texts")
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

