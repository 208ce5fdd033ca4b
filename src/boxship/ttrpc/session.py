"""One ttrpc connection without I/O: bytes become calls, answers become bytes.

``ServerSession.feed`` yields what the client asks; ``ClientSession.feed`` what the server answers.
Mistakes of a client that Go's server answers on the stream (an even or reused number, an unreadable request,
an oversized one) are answered the same way: the answer is appended to ``ServerSession.outgoing``.
"""

from ..errors import BoxshipError, FailedPrecondition, InvalidArgument, PeerError, ResourceExhausted
from .frames import (
    DATA,
    NO_DATA,
    REMOTE_CLOSED,
    REMOTE_OPEN,
    REQUEST,
    RESPONSE,
    Frame,
    FrameReader,
    KeyValue,
    Request,
    Response,
    decode_response,
    error_of,
    status_of,
)


class Call:
    """A client opened ``stream``: ``open`` means that more requests follow as Data.

    ``timeout_ns`` 0 is no limit.  Of a metadata key that comes twice the last value is kept.
    """

    __slots__ = ("metadata", "method", "open", "payload", "service", "stream", "timeout_ns")

    def __init__(self, stream: int, request: Request, open: bool) -> None:
        self.stream = stream
        self.service = request.service
        self.method = request.method
        self.payload = request.payload
        self.timeout_ns = request.timeout_nano
        self.metadata = {pair.key: pair.value for pair in request.metadata}
        self.open = open


class Data:
    """A message on an open stream, or with ``payload`` None only the news that it was the ``last``."""

    __slots__ = ("last", "payload", "stream")

    def __init__(self, stream: int, payload: "bytes | None", last: bool) -> None:
        self.stream = stream
        self.payload = payload
        self.last = last


class Answer:
    """The end of a call: its payload, or the error that the server reports."""

    __slots__ = ("error", "payload", "stream")

    def __init__(self, stream: int, payload: bytes, error: "BoxshipError | None") -> None:
        self.stream = stream
        self.payload = payload
        self.error = error


def _data(frame: Frame) -> Data:
    payload = None if frame.flags & NO_DATA else frame.payload
    return Data(frame.stream, payload, bool(frame.flags & REMOTE_CLOSED))


class ServerSession:
    """The server's end.  ``outgoing`` collects bytes to send; the owner takes and clears it."""

    def __init__(self) -> None:
        self.outgoing = bytearray()
        self._reader = FrameReader()
        self._last_stream = 0
        self._streams: dict[int, bool] = {}  # active stream -> the client may still send

    def feed(self, data: bytes) -> "list[Call | Data]":
        events: list[Call | Data] = []
        for frame in self._reader.feed(data):
            try:
                event = self._take(frame)
            except BoxshipError as error:
                self._send(frame.stream, RESPONSE, 0, Response(status=status_of(error)).encode())
            else:
                if event is not None:
                    events.append(event)
        return events

    def end(self) -> None:
        """The client closed; PeerError when in the middle of a frame."""
        self._reader.end()

    def _take(self, frame: Frame) -> "Call | Data | None":
        if frame.oversized:
            raise ResourceExhausted("ttrpc: the message is over the limit of 4 MiB")
        if frame.stream % 2 != 1:
            raise InvalidArgument("StreamID must be odd for client initiated streams")
        if frame.type == DATA:
            if not self._streams.get(frame.stream):
                raise InvalidArgument("StreamID is no longer active")
            data = _data(frame)
            self._streams[frame.stream] = not data.last
            return data
        if frame.type != REQUEST:
            return None  # PROTOCOL.md: unknown types are ignored, for the sake of later versions
        if frame.stream <= self._last_stream:
            raise InvalidArgument("StreamID cannot be re-used and must increment")
        self._last_stream = frame.stream
        try:
            request = Request.decode(frame.payload)
        except PeerError as error:
            raise InvalidArgument("unmarshal request error", cause=str(error)) from error
        self._streams[frame.stream] = bool(frame.flags & REMOTE_OPEN)
        return Call(frame.stream, request, bool(frame.flags & REMOTE_OPEN))

    def reply(self, stream: int, payload: bytes) -> None:
        """End a unary call (or one that only the client streamed) with its response."""
        self._finish(stream)
        self._send(stream, RESPONSE, 0, Response(payload=payload).encode())

    def fail(self, stream: int, error: BaseException) -> None:
        """End a call of any kind with an error."""
        self._finish(stream)
        self._send(stream, RESPONSE, 0, Response(status=status_of(error)).encode())

    def send(self, stream: int, payload: bytes) -> None:
        """One message of a streaming response."""
        if stream not in self._streams:
            raise FailedPrecondition(f"ttrpc: stream {stream} is closed")
        self._send(stream, DATA, 0, payload)

    def finish(self, stream: int) -> None:
        """The end of a streaming response that went well."""
        self._finish(stream)
        self._send(stream, DATA, REMOTE_CLOSED | NO_DATA, b"")

    def _finish(self, stream: int) -> None:
        if self._streams.pop(stream, None) is None:
            raise FailedPrecondition(f"ttrpc: stream {stream} is closed")

    def _send(self, stream: int, type: int, flags: int, payload: bytes) -> None:
        self.outgoing += Frame(stream, type, flags, payload).encode()


class ClientSession:
    """The client's end.  Each method returns the bytes to send."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._next = 1
        self._streams: set[int] = set()

    def call(
        self, service: str, method: str, payload: bytes, *, timeout_ns: int = 0,
        metadata: "dict[str, str] | None" = None, flags: int = 0,
    ) -> "tuple[int, bytes]":  # fmt: skip
        """Open a stream: its number and the bytes to send.

        ``flags`` is 0 for a unary call, REMOTE_OPEN when requests will be streamed, REMOTE_CLOSED when only
        responses will.
        """
        pairs = [KeyValue(key=key, value=value) for key, value in (metadata or {}).items()]
        request = Request(service=service, method=method, payload=payload, timeout_nano=timeout_ns)
        if pairs:
            request.metadata = pairs
        frame = Frame(self._next, REQUEST, flags, request.encode()).encode()
        stream = self._next
        self._next += 2
        self._streams.add(stream)
        return stream, frame

    def send(self, stream: int, payload: bytes) -> bytes:
        """One message of a streaming request."""
        return Frame(stream, DATA, 0, payload).encode()

    def finish(self, stream: int) -> bytes:
        """The end of a streaming request."""
        return Frame(stream, DATA, REMOTE_CLOSED | NO_DATA, b"").encode()

    def forget(self, stream: int) -> None:
        """Nobody waits for this call any more; ttrpc has no way to tell the server."""
        self._streams.discard(stream)

    def feed(self, data: bytes) -> "list[Data | Answer]":
        """What the server said; a message that fits no call made here is a PeerError."""
        events: list[Data | Answer] = []
        for frame in self._reader.feed(data):
            if frame.stream % 2 != 1 or frame.stream >= self._next:
                raise PeerError(f"ttrpc: the server answered stream {frame.stream}, which was never opened")
            if frame.type == DATA:
                event: Data | Answer = _data(frame)
                closed = bool(frame.flags & REMOTE_CLOSED)
            elif frame.type == RESPONSE:
                response = decode_response(frame)
                status = response.status
                error = error_of(status) if status is not None and status.code else None
                event = Answer(frame.stream, response.payload, error)
                closed = True
            else:
                raise PeerError(f"ttrpc: the server sent a message of type {frame.type}")
            if frame.stream not in self._streams:
                continue  # forgotten, or closed by an error that crossed the server's data
            if closed:
                self._streams.discard(frame.stream)
            events.append(event)
        return events

    def end(self) -> None:
        """The server closed; PeerError when in the middle of a frame."""
        self._reader.end()
