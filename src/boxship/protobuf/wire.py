"""The protobuf wire format: varints, tags, and one reader and one writer for each kind of field.

A field on the wire is a tag (field number << 3 | wire type) and a value; the wire types are VARINT 0, I64 1,
LEN 2 and I32 5, and the groups 3 and 4, which no message of ours uses.
Source: protobuf.dev, "Encoding".

``writer(field)`` and ``readers(field)`` build small closures once per field, so that the hot loops in
``messages`` do one call per field that is present.  Bytes that are not protobuf raise ``PeerError``.
"""

from struct import Struct

from ..errors import InvalidArgument, PeerError

VARINT, I64, LEN, I32 = 0, 1, 2, 5

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any as Anything

    from .fields import Field

    Writer = Callable[[Anything, list[bytes]], None]
    Reader = Callable[[dict[str, Anything], bytes, int, int], int]

_ONE_BYTE = tuple(bytes((n,)) for n in range(128))
_DOUBLE = Struct("<d")

# kind -> (wire type, value of an absent field)
SCALARS: "dict[str, tuple[int, object]]" = {
    "string": (LEN, ""),
    "bytes": (LEN, b""),
    "bool": (VARINT, False),
    "int32": (VARINT, 0),
    "int64": (VARINT, 0),
    "uint32": (VARINT, 0),
    "uint64": (VARINT, 0),
    "enum": (VARINT, 0),
    "double": (I64, 0.0),
}

_RANGES = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "enum": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, (1 << 64) - 1),
}


def varint(value: int) -> bytes:
    """A non-negative integer below 2**64 in base 128, low group first."""
    if value < 128:
        return _ONE_BYTE[value]
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, pos: int) -> "tuple[int, int]":
    """The varint at ``pos`` and the position after it; reading past the end is an IndexError."""
    byte = data[pos]
    if byte < 128:
        return byte, pos + 1
    value = byte & 127
    shift = 7
    while True:
        pos += 1
        byte = data[pos]
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, pos + 1
        shift += 7
        if shift > 63:
            raise PeerError("protobuf: a varint is longer than ten bytes")


def read_tag(data: bytes, pos: int) -> "tuple[int, int]":
    """A field's tag, which is 32 bits in at most five bytes, and where its value begins."""
    tag, after = read_varint(data, pos)
    if tag >> 32 or after - pos > 5:
        raise PeerError("a field's tag is longer than 32 bits")
    return tag, after


def read_length(data: bytes, pos: int, end: int) -> "tuple[int, int]":
    """The bounds (start, stop) of a length-delimited value whose length is at ``pos``."""
    length = data[pos]
    pos += 1
    if length > 127:
        length, pos = read_varint(data, pos - 1)
    stop = pos + length
    if stop > end:
        raise PeerError("protobuf: a field is longer than its message")
    return pos, stop


def skip(data: bytes, pos: int, end: int, wire_type: int) -> int:
    """The position after an unknown field's value."""
    if wire_type == VARINT:
        return read_varint(data, pos)[1]
    if wire_type == LEN:
        return read_length(data, pos, end)[1]
    if wire_type == I64:
        return pos + 8
    if wire_type == I32:
        return pos + 4
    raise PeerError("protobuf: wire type " + str(wire_type) + " is not supported")


def encode_scalar(kind: str, value: "Anything") -> bytes:
    """One value without its tag; a value outside its kind's range is InvalidArgument."""
    if kind == "string":
        try:
            data: bytes = value.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument("protobuf: a string is not valid Unicode", cause=str(error)) from error
        return varint(len(data)) + data
    if kind == "bytes":
        return varint(len(value)) + bytes(value)
    if kind == "bool":
        return b"\1" if value else b"\0"
    if kind == "double":
        return _DOUBLE.pack(value)
    low, high = _RANGES[kind]
    if not low <= value <= high:
        raise InvalidArgument("protobuf: " + str(value) + " does not fit " + kind)
    return varint(value if value >= 0 else value + (1 << 64))


def decode_scalar(kind: str, data: bytes, pos: int, end: int) -> "tuple[Anything, int]":
    """One value of a scalar kind at ``pos``, and the position after it."""
    if kind == "string":
        start, stop = read_length(data, pos, end)
        try:
            return data[start:stop].decode(), stop
        except UnicodeDecodeError as error:
            raise PeerError("protobuf: a string is not UTF-8", cause=str(error)) from error
    if kind == "bytes":
        start, stop = read_length(data, pos, end)
        return data[start:stop], stop
    if kind == "double":
        if pos + 8 > end:
            raise PeerError("protobuf: the message is cut short")
        return _DOUBLE.unpack_from(data, pos)[0], pos + 8
    value, pos = read_varint(data, pos)
    if kind == "bool":
        return value != 0, pos
    if kind == "uint64":
        return value, pos
    if kind == "int64":
        return value - (1 << 64) if value >> 63 else value, pos
    value &= 0xFFFFFFFF
    if kind != "uint32" and value >> 31:
        value -= 1 << 32
    return value, pos


def writer(field: "Field") -> "Writer":
    """The function that appends a present value of ``field`` to a list of chunks."""
    kind = field.kind
    wire_type = LEN if kind == "message" else SCALARS[kind][0]
    tag = varint(field.number << 3 | wire_type)
    long_tag = varint(field.number << 3 | LEN)

    def put_message(value: "Anything", out: "list[bytes]") -> None:
        data = value.encode()
        out += (tag, varint(len(data)), data)

    def put_scalar(value: "Anything", out: "list[bytes]") -> None:
        out += (tag, encode_scalar(kind, value))

    def put_string(value: "Anything", out: "list[bytes]") -> None:
        if value.isascii():
            length = len(value)
            out += (tag, _ONE_BYTE[length] if length < 128 else varint(length), value.encode())
        else:
            out += (tag, encode_scalar("string", value))

    def put_bytes(value: "Anything", out: "list[bytes]") -> None:
        out += (tag, varint(len(value)), value if type(value) is bytes else bytes(value))

    put_one = {"message": put_message, "string": put_string, "bytes": put_bytes}.get(kind, put_scalar)

    def put_each(value: "Anything", out: "list[bytes]") -> None:
        for item in value:
            put_one(item, out)

    def put_packed(value: "Anything", out: "list[bytes]") -> None:
        data = b"".join([encode_scalar(kind, item) for item in value])
        out += (long_tag, varint(len(data)), data)

    def put_map(value: "Anything", out: "list[bytes]") -> None:
        # Sorted, so that equal messages have equal bytes.
        for key in sorted(value):
            item = value[key]
            entry = b"\x0a" + encode_scalar("string", key)
            if kind == "message":
                data = item.encode()
                entry += b"\x12" + varint(len(data)) + data
            else:
                entry += (b"\x12" if wire_type == LEN else b"\x10") + encode_scalar(kind, item)
            out += (long_tag, varint(len(entry)), entry)

    if field.label == "map":
        return put_map
    if field.label == "repeated":
        return put_each if wire_type == LEN else put_packed
    return put_one


def readers(field: "Field") -> "list[tuple[int, Reader]]":
    """The tags that may carry ``field``, each with the function that reads a value into a message's dict.

    A packed repeated field has two: protobuf.dev asks a parser to accept both forms.
    """
    name, kind = field.name, field.kind
    wire_type = LEN if kind == "message" else SCALARS[kind][0]
    tag, long_tag = field.number << 3 | wire_type, field.number << 3 | LEN
    rivals = field.rivals

    def take_scalar(into: "dict[str, Anything]", data: bytes, pos: int, end: int) -> int:
        into[name], pos = decode_scalar(kind, data, pos, end)
        return pos

    def take_message(into: "dict[str, Anything]", data: bytes, pos: int, end: int) -> int:
        start, stop = read_length(data, pos, end)
        value = into.get(name)
        if value is None:
            value = into[name] = field.message()
        # A singular message that comes twice is merged ("Last One Wins" of the encoding guide).
        value.merge(data, start, stop)
        return stop

    def take_each(into: "dict[str, Anything]", data: bytes, pos: int, end: int) -> int:
        values = into.get(name)
        if values is None:
            values = into[name] = []
        if kind == "message":
            start, stop = read_length(data, pos, end)
            value = field.message()
            value.merge(data, start, stop)
            values.append(value)
            return stop
        value, pos = decode_scalar(kind, data, pos, end)
        values.append(value)
        return pos

    def take_packed(into: "dict[str, Anything]", data: bytes, pos: int, end: int) -> int:
        values = into.get(name)
        if values is None:
            values = into[name] = []
        pos, stop = read_length(data, pos, end)
        while pos < stop:
            value, pos = decode_scalar(kind, data, pos, stop)
            values.append(value)
        if pos != stop:
            raise PeerError("protobuf: a packed field is cut short")
        return stop

    def take_entry(into: "dict[str, Anything]", data: bytes, pos: int, end: int) -> int:
        values = into.get(name)
        if values is None:
            values = into[name] = {}
        pos, stop = read_length(data, pos, end)
        key: object = ""
        value: Anything = field.message() if kind == "message" else SCALARS[kind][1]
        while pos < stop:
            entry_tag, pos = read_tag(data, pos)
            if entry_tag == 0x0A:
                key, pos = decode_scalar("string", data, pos, stop)
            elif entry_tag == (2 << 3 | wire_type) and kind == "message":
                start, pos = read_length(data, pos, stop)
                value.merge(data, start, pos)
            elif entry_tag == (2 << 3 | wire_type):
                value, pos = decode_scalar(kind, data, pos, stop)
            else:
                pos = skip(data, pos, stop, entry_tag & 7)
        if pos != stop:
            raise PeerError("protobuf: a map entry is cut short")
        values[key] = value
        return stop

    def take_member(into: "dict[str, Anything]", data: bytes, pos: int, end: int) -> int:
        for rival in rivals:
            into.pop(rival, None)
        return (take_message if kind == "message" else take_scalar)(into, data, pos, end)

    if field.label == "map":
        return [(tag if kind == "message" else long_tag, take_entry)]
    if field.label == "repeated":
        return [(tag, take_each)] if wire_type == LEN else [(tag, take_each), (long_tag, take_packed)]
    if rivals:
        return [(tag, take_member)]
    return [(tag, take_message if kind == "message" else take_scalar)]
