"""The ttrpc wire: frames of a ten-byte header and a protobuf payload.

::

    length (4, big endian)  stream (4, big endian)  type (1)  flags (1)  payload (length)

A client opens streams with odd, growing numbers, one REQUEST each.  A unary call is answered by one RESPONSE.
On a streaming call both sides send DATA; REMOTE_CLOSED says "my last", NO_DATA "this frame carries none", and
the server's RESPONSE carries the status when the call fails.
Source: github.com/containerd/ttrpc PROTOCOL.md, channel.go.
"""

from struct import Struct

from ..errors import BoxshipError, InvalidArgument, PeerError, by_code
from ..protobuf import Message, Status, binary, int64, message, repeated, string

REQUEST, RESPONSE, DATA = 1, 2, 3
REMOTE_CLOSED, REMOTE_OPEN, NO_DATA = 1, 2, 4
MAX_PAYLOAD = 4 << 20
"""Bytes; both sides refuse longer payloads."""

HEADER = Struct(">IIBB")


class KeyValue(Message, name="ttrpc.KeyValue"):
    key: str = string(1)
    value: str = string(2)


class Request(Message, name="ttrpc.Request"):
    """``timeout_nano`` 0 means no limit; a metadata key may come more than once."""

    service: str = string(1)
    method: str = string(2)
    payload: bytes = binary(3)
    timeout_nano: int = int64(4)
    metadata: list[KeyValue] = repeated(5, KeyValue)


class Response(Message, name="ttrpc.Response"):
    """``status`` is absent when all went well."""

    status: Status | None = message(1, Status)
    payload: bytes = binary(2)


class Frame:
    """One frame; ``oversized`` frames had a payload longer than MAX_PAYLOAD, which was read over."""

    __slots__ = ("flags", "oversized", "payload", "stream", "type")

    def __init__(self, stream: int, type: int, flags: int, payload: bytes, oversized: bool = False) -> None:
        self.stream = stream
        self.type = type
        self.flags = flags
        self.payload = payload
        self.oversized = oversized

    def encode(self) -> bytes:
        """The frame's bytes; a payload over the limit is our caller's InvalidArgument."""
        if len(self.payload) > MAX_PAYLOAD:
            raise InvalidArgument(f"ttrpc: a message of {len(self.payload)} bytes is over the limit of 4 MiB")
        return HEADER.pack(len(self.payload), self.stream, self.type, self.flags) + self.payload


class FrameReader:
    """Bytes in, frames out; feed it any pieces."""

    __slots__ = ("_buffer", "_skip", "_skipped")

    def __init__(self) -> None:
        self._buffer = b""
        self._skip = 0
        self._skipped: Frame | None = None

    def feed(self, data: bytes) -> "list[Frame]":
        """The frames that ``data`` completes."""
        data = self._buffer + data if self._buffer else data
        frames = []
        pos, end = 0, len(data)
        while True:
            if self._skipped is not None:
                step = min(self._skip, end - pos)
                self._skip -= step
                pos += step
                if self._skip:
                    break
                frames.append(self._skipped)
                self._skipped = None
            if end - pos < HEADER.size:
                break
            length, stream, type, flags = HEADER.unpack_from(data, pos)
            if length > MAX_PAYLOAD:
                self._skip, self._skipped = length, Frame(stream, type, flags, b"", oversized=True)
                pos += HEADER.size
                continue
            stop = pos + HEADER.size + length
            if stop > end:
                break
            frames.append(Frame(stream, type, flags, data[pos + HEADER.size : stop]))
            pos = stop
        self._buffer = data[pos:]
        return frames

    def end(self) -> None:
        """The stream ended here; in the middle of a frame that is a PeerError."""
        if self._buffer or self._skipped is not None:
            raise PeerError("ttrpc: the connection ended in the middle of a frame")


def status_of(error: BaseException) -> Status:
    """How an error crosses the wire; what was not raised on purpose is Unknown, as in Go."""
    if isinstance(error, BoxshipError):
        return Status(code=error.code, message=str(error))
    return Status(code=BoxshipError.code, message=f"{type(error).__name__}: {error}")


def error_of(status: Status) -> BoxshipError:
    """The error that a peer's status stands for."""
    return by_code(status.code, status.message)


def decode_response(frame: Frame) -> Response:
    """The Response in a RESPONSE frame, which may not be oversized."""
    if frame.oversized:
        raise PeerError("ttrpc: the server sent a message over the limit of 4 MiB")
    return Response.decode(frame.payload)


def unix_path(address: str) -> str:
    """The socket's path from ``unix:///run/x.sock`` or a bare path; ``@name`` is an abstract socket."""
    path = address.removeprefix("unix://")
    if not path or "://" in path:
        raise InvalidArgument(f"{address!r} is not the address of a unix socket")
    if len(path.encode()) > 107:
        raise InvalidArgument(f"socket path {path!r} is too long", cause="the kernel takes 107 bytes")
    return "\0" + path[1:] if path[0] == "@" else path
