"""A small D-Bus client: enough of the protocol to ask systemd for a unit (dbus-specification, versions 0.3x).

A value travels by its signature: ``y b n q i u x t d s o g``, arrays, structs as tuples, ``a{..}`` as dicts, and a
variant as the pair (signature, value).
``marshal`` and ``unmarshal`` are pure; ``Bus`` is one blocking connection, on which calls are answered in order and
signals are kept until somebody asks for them.
Imported only by the systemd manager.
"""

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket
from _struct import Struct, pack, unpack_from
from time import monotonic

from boxship.errors import BoxshipError, InvalidArgument, PeerError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
# Header fields, by number: their name here and their type.
FIELDS = {1: ("path", "o"), 2: ("interface", "s"), 3: ("member", "s"), 4: ("error", "s"), 5: ("reply_to", "u"),
          6: ("destination", "s"), 7: ("sender", "s"), 8: ("signature", "g"), 9: ("fds", "u")}  # fmt: skip
_NUMBERS = {name: (number, type) for number, (name, type) in FIELDS.items()}
_FIXED = {"y": ("B", 1), "n": ("h", 2), "q": ("H", 2), "i": ("i", 4), "u": ("I", 4), "x": ("q", 8), "t": ("Q", 8),
          "d": ("d", 8), "b": ("I", 4)}  # fmt: skip
LONGEST = 128 * 1024 * 1024
_HEAD = Struct("<4BIII")


def first(signature: str) -> str:
    """The first complete type of a signature; raises PeerError for a broken one."""
    kind = signature[:1]
    if kind == "a":
        return "a" + first(signature[1:])
    if kind in ("(", "{"):
        depth = 0
        for index, letter in enumerate(signature):
            depth += (letter in "({") - (letter in ")}")
            if not depth:
                return signature[: index + 1]
        raise PeerError(f"D-Bus signature {signature!r} is not complete")
    if not kind:
        raise PeerError("D-Bus signature ends too early")
    return kind


def types(signature: str) -> "list[str]":
    """The complete types of a signature."""
    found = []
    while signature:
        found.append(first(signature))
        signature = signature[len(found[-1]) :]
    return found


def _alignment(kind: str) -> int:
    if kind[0] in _FIXED:
        return _FIXED[kind[0]][1]
    return {"s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8}[kind[0]]


def _put(out: bytearray, kind: str, value: "Any") -> None:
    out += b"\0" * (-len(out) % _alignment(kind))
    if kind in _FIXED:
        out += pack("<" + _FIXED[kind][0], value)
    elif kind in ("s", "o"):
        data = value.encode()
        out += pack("<I", len(data)) + data + b"\0"
    elif kind == "g":
        out += bytes((len(value),)) + value.encode() + b"\0"
    elif kind == "v":
        signature, inner = value
        _put(out, "g", signature)
        _put(out, signature, inner)
    elif kind[0] == "a":
        element = kind[1:]
        at = len(out)
        out += b"\0\0\0\0"
        out += b"\0" * (-len(out) % _alignment(element))
        start = len(out)
        if element == "y":
            out += value
        else:
            for item in value.items() if element[0] == "{" else value:
                _put(out, element, item)
        out[at : at + 4] = pack("<I", len(out) - start)
    else:
        for inner_kind, inner in zip(types(kind[1:-1]), value, strict=True):
            _put(out, inner_kind, inner)


def marshal(signature: str, values: "tuple[Any, ...]") -> bytes:
    """The body of a message."""
    out = bytearray()
    for kind, value in zip(types(signature), values, strict=True):
        _put(out, kind, value)
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def take(self, kind: str) -> "Any":
        self.at += -self.at % _alignment(kind)
        if kind in _FIXED:
            (value,) = unpack_from("<" + _FIXED[kind][0], self.data, self.at)
            self.at += _FIXED[kind][1]
            return bool(value) if kind == "b" else value
        if kind in ("s", "o", "g"):
            size = self.take("y" if kind == "g" else "u")
            text = self.data[self.at : self.at + size]
            if len(text) != size:
                raise PeerError("D-Bus string is cut off")
            self.at += size + 1
            return text.decode()
        if kind == "v":
            signature = self.take("g")
            return signature, self.take(first(signature))
        if kind[0] == "a":
            return self._array(kind[1:])
        return tuple(self.take(inner) for inner in types(kind[1:-1]))

    def _array(self, element: str) -> "Any":
        size = self.take("u")
        self.at += -self.at % _alignment(element)
        end = self.at + size
        if end > len(self.data):
            raise PeerError("D-Bus array is cut off")
        if element == "y":
            value = self.data[self.at : end]
            self.at = end
            return value
        found = []
        while self.at < end:
            found.append(self.take(element))
        return dict(found) if element[0] == "{" else found


def unmarshal(signature: str, data: bytes) -> "tuple[Any, ...]":
    """The values of a body. Raises PeerError when it does not fit its signature."""
    reader = _Reader(data)
    try:
        return tuple(reader.take(kind) for kind in types(signature))
    except BoxshipError:
        raise
    except Exception as error:
        raise PeerError(f"D-Bus message does not fit its signature {signature!r}: {error}") from error


class Message:
    """One message: its ``kind``, ``serial``, header ``fields`` by name, and the values of its ``body``."""

    __slots__ = ("body", "fields", "kind", "serial")

    def __init__(self, kind: int, serial: int, fields: "dict[str, Any]", body: "tuple[Any, ...]" = ()) -> None:
        self.kind = kind
        self.serial = serial
        self.fields = fields
        self.body = body

    def encode(self) -> bytes:
        body = marshal(self.fields.get("signature", ""), self.body)
        fields = [(_NUMBERS[name][0], (_NUMBERS[name][1], value)) for name, value in self.fields.items()]
        out = bytearray(pack("<4BII", ord("l"), self.kind, 0, 1, len(body), self.serial))
        _put(out, "a(yv)", fields)
        out += b"\0" * (-len(out) % 8)
        return bytes(out) + body


def size(data: bytes) -> int:
    """How long the message is that ``data`` begins with, 0 when that cannot be told yet. Raises PeerError."""
    if len(data) < _HEAD.size:
        return 0
    if data[0] != ord("l"):
        raise PeerError("D-Bus message is not little-endian")
    body, _, fields = _HEAD.unpack_from(data)[4:]
    whole: int = _HEAD.size + fields + -fields % 8 + body
    if whole > LONGEST:
        raise PeerError(f"D-Bus message of {whole} bytes")
    return whole


def decode(data: bytes) -> Message:
    """A whole message. Raises PeerError."""
    _, kind, _, _, body, serial, _ = _HEAD.unpack_from(data)
    reader = _Reader(data, 12)
    try:
        fields = {FIELDS[number][0]: value for number, (_, value) in reader.take("a(yv)") if number in FIELDS}
    except BoxshipError:
        raise
    except Exception as error:
        raise PeerError(f"D-Bus header: {error}") from error
    return Message(kind, serial, fields, unmarshal(fields.get("signature", ""), data[len(data) - body :]))


class CallFailed(BoxshipError):
    """The other side answered a call with an error; ``name`` is its D-Bus name."""

    kind = "failed_precondition"
    code = 9

    def __init__(self, what: str, name: str, text: str) -> None:
        super().__init__(what, cause=f"{text} ({name})" if text else name)
        self.name = name


def addresses(text: str) -> "list[str]":
    """The unix sockets of an address list (``unix:path=/run/bus;...``), abstract ones with a NUL in front."""
    found = []
    for address in text.split(";"):
        kind, _, options = address.partition(":")
        for option in options.split(",") if kind == "unix" else ():
            key, _, value = option.partition("=")
            value = b"".join(
                bytes((int(part[:2], 16),)) + part[2:].encode() if index else part.encode()
                for index, part in enumerate(value.split("%"))
            ).decode()
            if key == "path":
                found.append(value)
            elif key == "abstract":
                found.append("\0" + value)
    return found


class Bus:
    """A connection to a bus, or to a peer when ``peer``. Closing twice is fine.

    Raises Unavailable when nobody listens on any of the addresses, or nobody answers within ``timeout`` seconds.
    """

    def __init__(self, paths: "list[str]", *, peer: bool = False, timeout: float = 30) -> None:
        self.timeout = timeout
        self._serial = 0
        self._data = b""
        self._kept: list[Message] = []
        self._socket: socket | None = None
        last: OSError | None = None
        for path in paths:
            connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
            connection.settimeout(timeout)
            try:
                connection.connect(path)
                self._socket = connection
                break
            except OSError as error:
                connection.close()
                last = error
        if self._socket is None:
            raise Unavailable(
                f"connect to D-Bus at {', '.join(paths) or 'no address'}",
                cause=last.strerror or str(last) if last else "",
                remedy="systemd must be running here, or use the cgroupfs manager",
            )
        try:
            self._authenticate()
            if not peer:
                self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> "Bus":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _authenticate(self) -> None:
        """SASL EXTERNAL: the kernel tells the other side who we are."""
        self._send(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        while b"\r\n" not in self._data:
            self._more()
        line, _, self._data = self._data.partition(b"\r\n")
        if not line.startswith(b"OK "):
            raise Unavailable("authenticate to D-Bus", cause=line.decode("utf-8", "replace"))
        self._send(b"BEGIN\r\n")

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Unavailable("send to D-Bus", cause=error.strerror or str(error)) from error

    def _more(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(65536)
        except TimeoutError as error:
            raise Unavailable(f"D-Bus: no answer within {self.timeout:g} s") from error
        except OSError as error:
            raise Unavailable("read from D-Bus", cause=error.strerror or str(error)) from error
        if not data:
            raise Unavailable("D-Bus: the other side hung up")
        self._data += data

    def _receive(self) -> Message:
        while True:
            whole = size(self._data)
            if whole and len(self._data) >= whole:
                data, self._data = self._data[:whole], self._data[whole:]
                return decode(data)
            self._more()

    def call(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", *values: "Any"
    ) -> "tuple[Any, ...]":
        """Call a method; the values of its answer. Raises CallFailed, Unavailable, PeerError."""
        self._serial += 1
        fields = {"path": path, "interface": interface, "member": member, "destination": destination}
        if signature:
            fields["signature"] = signature
        self._send(Message(CALL, self._serial, fields, values).encode())
        while True:
            message = self._receive()
            if message.kind in (RETURN, ERROR) and message.fields.get("reply_to") == self._serial:
                break
            if message.kind == SIGNAL:
                self._kept.append(message)
        if message.kind == ERROR:
            text = message.body[0] if message.body and isinstance(message.body[0], str) else ""
            raise CallFailed(f"call {interface}.{member}", str(message.fields.get("error", "")), text)
        return message.body

    def signal(self, member: str, wanted: "Callable[[tuple[Any, ...]], bool]") -> "tuple[Any, ...]":
        """Wait for the signal of that name that is ``wanted``; it may have come already. Raises Unavailable."""
        deadline = monotonic() + self.timeout
        while True:
            message = self._kept.pop(0) if self._kept else self._receive()
            if message.kind == SIGNAL and message.fields.get("member") == member and wanted(message.body):
                return message.body
            if monotonic() > deadline:
                raise Unavailable(f"D-Bus: no signal {member} within {self.timeout:g} s")


# ── Variants as text ──

_WORDS = {"boolean": "b", "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "handle": "h",
          "int64": "x", "uint64": "t", "double": "d", "string": "s", "objectpath": "o", "signature": "g"}  # fmt: skip


def parse_variant(text: str) -> "tuple[str, Any]":
    """A value in GVariant's text format, like ``uint64 5``, ``'word'`` or ``@as []``: (signature, value).

    Numbers are int32 or double unless a type says otherwise. Raises InvalidArgument.
    """
    parser = _Text(text)
    found = parser.value("")
    parser.blanks()
    if parser.at < len(text):
        raise InvalidArgument(f"{text!r}: unexpected {text[parser.at :]!r}")
    return found


class _Text:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def blanks(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def fail(self, why: str) -> InvalidArgument:
        return InvalidArgument(f"{self.text!r}: {why} at {self.at}")

    def word(self) -> str:
        start = self.at
        while self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] in "_+-."):
            self.at += 1
        return self.text[start : self.at]

    def value(self, kind: str) -> "tuple[str, Any]":
        self.blanks()
        letter = self.text[self.at : self.at + 1]
        if letter == "@":
            self.at += 1
            start = self.at
            while self.at < len(self.text) and not self.text[self.at].isspace():
                self.at += 1
            return self.value(self.text[start : self.at])
        if letter and letter in "'\"":
            return kind or "s", self.string(letter)
        if letter == "[":
            return self.array(kind)
        if letter == "(":
            return self.struct(kind)
        word = self.word()
        if word in _WORDS:
            return self.value(_WORDS[word])
        if word in ("true", "false"):
            return "b", word == "true"
        try:
            if kind == "d" or (not kind and ("." in word or "e" in word.lower()) and not word.startswith("0x")):
                return "d", float(word)
            number = int(word, 0) if word.lstrip("+-")[:2].lower() in ("0x", "0o", "0b") else int(word)
        except ValueError as error:
            raise self.fail("no value") from error
        code, width = _FIXED.get(kind or "i", ("", 0))
        if not width:
            raise self.fail(f"a number where {kind!r} is expected")
        try:
            pack("<" + code, number)
        except Exception as error:  # struct.error, which _struct does not export by this name everywhere
            raise self.fail(f"{number} does not fit") from error
        return kind or "i", number

    def string(self, quote: str) -> str:
        found = ""
        self.at += 1
        while self.at < len(self.text):
            letter = self.text[self.at]
            self.at += 1
            if letter == quote:
                return found
            if letter == "\\":
                letter = self.text[self.at : self.at + 1]
                self.at += 1
                letter = {"n": "\n", "t": "\t"}.get(letter, letter)
            found += letter
        raise self.fail("the string does not end")

    def array(self, kind: str) -> "tuple[str, Any]":
        element = kind[1:] if kind.startswith("a") else ""
        values: list[Any] = []
        self.at += 1
        while True:
            self.blanks()
            if self.text[self.at : self.at + 1] == "]":
                self.at += 1
                break
            if values:
                self.expect(",")
            element, value = self.value(element)
            values.append(value)
        if not element:
            raise self.fail("an empty array needs its type, like @as []")
        return "a" + element, bytes(values) if element == "y" else values

    def struct(self, kind: str) -> "tuple[str, Any]":
        kinds = types(kind[1:-1]) if kind else []
        found: list[tuple[str, Any]] = []
        self.at += 1
        while True:
            self.blanks()
            if self.text[self.at : self.at + 1] == ")":
                self.at += 1
                break
            if found:
                self.expect(",")
                self.blanks()
                if self.text[self.at : self.at + 1] == ")":
                    continue
            found.append(self.value(kinds[len(found)] if len(found) < len(kinds) else ""))
        return "(" + "".join(signature for signature, _ in found) + ")", tuple(value for _, value in found)

    def expect(self, letter: str) -> None:
        self.blanks()
        if self.text[self.at : self.at + 1] != letter:
            raise self.fail(f"expected {letter!r}")
        self.at += 1
