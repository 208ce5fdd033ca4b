"""HTTP/2 (RFC 9113) from the server's side, without any I/O: bytes in, events out; the caller writes ``output``.

What a gRPC server needs and no more: no priorities, no push. A peer that breaks the protocol raises PeerError
from `receive`, after a GOAWAY was put into ``output``.

Flow control: `receive` gives back the connection's window as it goes, because each stream's own window already
bounds what a client may send ahead; a stream's window is given back by `consumed`, so a handler that does not
take messages stops its client. Sending waits for both windows: `send_data` takes what fits and keeps the rest.
"""

from collections import deque
from dataclasses import dataclass
from struct import Struct

from boxship.containerd.http2.hpack import Decoder
from boxship.errors import PeerError

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, REFUSED_STREAM, CANCEL = 0, 1, 3, 7, 8

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW = 65_535
WINDOW = 4 << 20  # that we give each stream, and the connection
FRAME_LIMIT = 16_384  # largest payload that we take: SETTINGS_MAX_FRAME_SIZE's default
_HEADERS_LIMIT = 64 << 10  # of one header block, CONTINUATIONs included (CVE-2024-27316 was their flood)
_STREAM_LIMIT = 1000

_HEADER = Struct(">IBI")  # length << 8 | type, flags, stream
_WORD = Struct(">I")
_SETTING = Struct(">HI")
_HEADER_SIZE = 9
_SETTINGS_INITIAL_WINDOW, _SETTINGS_MAX_FRAME, _SETTINGS_MAX_STREAMS = 4, 5, 3


@dataclass(frozen=True, slots=True)
class Request:
    """A stream has begun."""

    stream: int
    headers: "list[tuple[str, str]]"
    ended: bool


@dataclass(frozen=True, slots=True)
class Received:
    """A piece of a stream's body."""

    stream: int
    data: bytes
    ended: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The client gave the stream up."""

    stream: int


Event = Request | Received | Reset


class _Stream:
    __slots__ = ("after", "pending", "remote_ended", "unread", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.unread = 0  # bytes that came and were not given back to the client's window
        self.remote_ended = False
        self.pending: "deque[memoryview]" = deque()  # body that waits for a window
        self.after = b""  # the frame that ends the stream, once all of the body has gone


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return _HEADER.pack(len(payload) << 8 | kind, flags, stream) + payload


class Connection:
    """One client. ``output`` is what to write next; take it with `take_output`."""

    def __init__(self) -> None:
        self.output: "list[bytes | memoryview]" = [
            frame(SETTINGS, 0, 0, _SETTING.pack(_SETTINGS_INITIAL_WINDOW, WINDOW)
                  + _SETTING.pack(_SETTINGS_MAX_STREAMS, _STREAM_LIMIT)),
            frame(WINDOW_UPDATE, 0, 0, _WORD.pack(WINDOW - DEFAULT_WINDOW)),
        ]  # fmt: skip
        self._streams: dict[int, _Stream] = {}
        self._decoder = Decoder()
        self._buffer = bytearray()
        self._preface = False
        self._window = DEFAULT_WINDOW
        self._unread = 0  # bytes that came and were not given back to the connection's window
        self._initial_window = DEFAULT_WINDOW
        self._frame_limit = FRAME_LIMIT
        self._last = 0
        self._block: "tuple[int, int, bytearray] | None" = None  # stream, flags, header block so far

    def take_output(self) -> bytes:
        data = b"".join(self.output)
        self.output.clear()
        return data

    # -- receiving

    def receive(self, data: bytes) -> "list[Event]":
        """Raises PeerError; the connection is of no use after that, but its output (a GOAWAY) should be sent."""
        buffer = self._buffer
        buffer += data
        events: list[Event] = []
        try:
            if not self._preface:
                if len(buffer) < len(PREFACE):
                    if not PREFACE.startswith(buffer):
                        raise PeerError("http2: no preface: this is no HTTP/2 client")
                    return events
                if buffer[: len(PREFACE)] != PREFACE:
                    raise PeerError("http2: no preface: this is no HTTP/2 client")
                self._preface = True
                del buffer[: len(PREFACE)]
            at = 0
            while len(buffer) - at >= _HEADER_SIZE:
                head, flags, stream = _HEADER.unpack_from(buffer, at)
                length = head >> 8
                if length > FRAME_LIMIT:
                    raise PeerError(f"http2: a frame of {length} bytes")
                end = at + _HEADER_SIZE + length
                if len(buffer) < end:
                    break
                payload = bytes(buffer[at + _HEADER_SIZE : end])
                at = end
                self._frame(head & 0xFF, flags, stream & 0x7FFFFFFF, payload, events)
            if at:
                del buffer[:at]
        except PeerError as error:
            self.go_away(PROTOCOL_ERROR, str(error))
            raise
        return events

    def _frame(self, kind: int, flags: int, number: int, payload: bytes, events: "list[Event]") -> None:
        if self._block is not None and (kind != CONTINUATION or number != self._block[0]):
            raise PeerError("http2: a header block was interrupted")
        match kind:
            case _ if kind == DATA:
                self._data(flags, number, payload, events)
            case _ if kind == HEADERS:
                if flags & PADDED:
                    payload = _unpadded(payload)
                if flags & WITH_PRIORITY:
                    payload = payload[5:]
                self._headers(number, flags, bytearray(payload), events)
            case _ if kind == CONTINUATION:
                if self._block is None:
                    raise PeerError("http2: CONTINUATION without HEADERS")
                stream, first_flags, block = self._block
                self._block = None
                block += payload
                self._headers(stream, first_flags | flags & END_HEADERS, block, events)
            case _ if kind == SETTINGS:
                self._settings(flags, payload)
            case _ if kind == PING:
                if len(payload) != 8:
                    raise PeerError("http2: PING of a wrong size")
                if not flags & ACK:
                    self.output.append(frame(PING, ACK, 0, payload))
            case _ if kind == WINDOW_UPDATE:
                self._window_update(number, payload)
            case _ if kind == RST_STREAM:
                if self._streams.pop(number, None) is not None:
                    events.append(Reset(number))
            case _ if kind == PUSH_PROMISE:
                raise PeerError("http2: a client cannot push")
            case _:
                pass  # PRIORITY and GOAWAY ask nothing of us; unknown kinds must be ignored (section 4.1)

    def _data(self, flags: int, number: int, payload: bytes, events: "list[Event]") -> None:
        self._unread += len(payload)
        if self._unread > WINDOW // 2:  # in large steps: an update for each small call would double the writes
            self.output.append(frame(WINDOW_UPDATE, 0, 0, _WORD.pack(self._unread)))
            self._unread = 0
        stream = self._streams.get(number)
        if stream is None:
            if number == 0 or number > self._last:
                raise PeerError("http2: DATA on a stream that was never opened")
            return  # we have ended it meanwhile
        stream.unread += len(payload)
        if stream.unread > WINDOW or stream.remote_ended:
            raise PeerError("http2: more DATA than the window allows")
        if flags & PADDED:
            payload = _unpadded(payload)
        ended = bool(flags & END_STREAM)
        stream.remote_ended = ended
        events.append(Received(number, payload, ended))

    def _headers(self, number: int, flags: int, block: bytearray, events: "list[Event]") -> None:
        if len(block) > _HEADERS_LIMIT:
            raise PeerError("http2: a header block is too large")
        if not flags & END_HEADERS:
            self._block = (number, flags, block)
            return
        headers = self._decoder.decode(bytes(block))
        stream = self._streams.get(number)
        if stream is not None:  # trailers of a request: gRPC has none that matter
            stream.remote_ended = True
            events.append(Received(number, b"", ended=True))
            return
        if number % 2 == 0 or number <= self._last:
            if number % 2 and number:
                return  # trailers of a stream that we have ended
            raise PeerError("http2: a client opened an even stream")
        self._last = number
        if len(self._streams) >= _STREAM_LIMIT:
            self.output.append(frame(RST_STREAM, 0, number, _WORD.pack(REFUSED_STREAM)))
            return
        opened = self._streams[number] = _Stream(self._initial_window)
        opened.remote_ended = bool(flags & END_STREAM)
        events.append(Request(number, headers, opened.remote_ended))

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            return
        if len(payload) % 6:
            raise PeerError("http2: SETTINGS of a wrong size")
        for key, value in _SETTING.iter_unpack(payload):
            if key == _SETTINGS_INITIAL_WINDOW:
                change = value - self._initial_window
                self._initial_window = value
                for stream in self._streams.values():
                    stream.window += change
            elif key == _SETTINGS_MAX_FRAME:
                self._frame_limit = min(max(value, FRAME_LIMIT), 1 << 20)
        self.output.append(frame(SETTINGS, ACK, 0))
        self._flush()

    def _window_update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise PeerError("http2: WINDOW_UPDATE of a wrong size")
        increment = _WORD.unpack(payload)[0] & 0x7FFFFFFF
        if number == 0:
            self._window += increment
            if self._window > 0x7FFFFFFF or not increment:
                raise PeerError("http2: WINDOW_UPDATE out of range")
        elif (stream := self._streams.get(number)) is not None:
            stream.window += increment
        self._flush()

    # -- sending

    def consumed(self, number: int) -> None:
        """What came on the stream has been used: its client may send as much again."""
        stream = self._streams.get(number)
        if stream is not None and stream.unread and not stream.remote_ended:
            self.output.append(frame(WINDOW_UPDATE, 0, number, _WORD.pack(stream.unread)))
            stream.unread = 0

    def send_headers(self, number: int, block: bytes) -> None:
        if number in self._streams:
            self.output.append(frame(HEADERS, END_HEADERS, number, block))

    def send_data(self, number: int, data: bytes) -> None:
        """Queue a piece of the body; `waiting` says whether all of it went out."""
        stream = self._streams.get(number)
        if stream is not None:
            stream.pending.append(memoryview(data))
            self._pour(number, stream)

    def waiting(self, number: int) -> bool:
        """Whether a part of the body waits for the client's window."""
        stream = self._streams.get(number)
        return stream is not None and bool(stream.pending)

    def end(self, number: int, block: bytes) -> None:
        """End the stream with ``block`` as its trailers, after all of its body."""
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.after = frame(HEADERS, END_HEADERS | END_STREAM, number, block)
        if not stream.remote_ended:
            # The answer is complete, the request is not: the client need not send the rest (section 8.1).
            stream.after += frame(RST_STREAM, 0, number, _WORD.pack(NO_ERROR))
        self._pour(number, stream)

    def reset(self, number: int, code: int = CANCEL) -> None:
        if self._streams.pop(number, None) is not None:
            self.output.append(frame(RST_STREAM, 0, number, _WORD.pack(code)))

    def go_away(self, code: int = NO_ERROR, why: str = "") -> None:
        payload = _WORD.pack(self._last) + _WORD.pack(code) + why.encode()[:200]
        self.output.append(frame(GOAWAY, 0, 0, payload))

    def _flush(self) -> None:
        for number, stream in list(self._streams.items()):
            if stream.pending:
                self._pour(number, stream)

    def _pour(self, number: int, stream: _Stream) -> None:
        while stream.pending:
            data = stream.pending[0]
            room = min(self._window, stream.window, self._frame_limit)
            if len(data) and room <= 0:
                return
            part = data[:room]
            if len(part) < len(data):
                stream.pending[0] = data[room:]
            else:
                stream.pending.popleft()
            self._window -= len(part)
            stream.window -= len(part)
            self.output += (_HEADER.pack(len(part) << 8 | DATA, 0, number), part)
        if stream.after:
            self.output.append(stream.after)
            del self._streams[number]


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise PeerError("http2: more padding than payload")
    return payload[1 : len(payload) - payload[0]]
