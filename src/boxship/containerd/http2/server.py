"""gRPC over HTTP/2 on asyncio (grpc, doc/PROTOCOL-HTTP2.md), driven by our service declarations.

A message on the wire is a flag (1: compressed), a length of four bytes, and the message. The status comes in the
trailers. Each call is a task in a context of its own; a client that goes away cancels its calls.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from struct import Struct
from typing import Any

from boxship.api.containerd.client import closing
from boxship.containerd.http2 import frames
from boxship.containerd.http2.hpack import literal
from boxship.errors import (
    BoxshipError,
    DeadlineExceeded,
    InvalidArgument,
    PeerError,
    ResourceExhausted,
    Unimplemented,
)
from boxship.protobuf import Message, Method

log = logging.getLogger("boxship.containerd")

_PREFIX = Struct(">BI")
_CONTENT_TYPE = literal("content-type", "application/grpc")
_BEGIN = b"\x88" + _CONTENT_TYPE  # 0x88 is ":status: 200" of the static table
_OK = literal("grpc-status", "0")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_AHEAD = 4  # messages that a client may have waiting before its window is held back
_INTERNAL = 13

Function = Callable[..., Any]
Accept = Callable[["dict[str, str]"], None]
Routes = Mapping[str, "tuple[Method, Function]"]


class GrpcServer:
    """Serves ``routes`` (path -> declaration and function). ``accept`` gets each call's metadata first, in the
    call's own context. `listen`, then `close`; closing twice is fine."""

    def __init__(self, routes: Routes, accept: Accept, *, message_limit: int) -> None:
        self.routes = routes
        self.accept = accept
        self.message_limit = message_limit
        self.connections: "set[_Connection]" = set()
        self._listener: "asyncio.Server | None" = None

    async def listen(self, path: str) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(lambda: _Connection(self), path=path)

    async def close(self, grace: float = 0.5) -> None:
        """Take no more calls, give those under way ``grace`` seconds, then cancel them."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        tasks = [call.task for connection in self.connections for call in connection.calls.values()]
        for connection in list(self.connections):
            connection.go_away()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in list(self.connections):
            connection.close()


class _Call:
    """One stream: the messages that came, and the task that answers."""

    __slots__ = ("buffer", "ended", "failure", "messages", "method", "stream", "task", "wanted")

    def __init__(self, stream: int, method: Method) -> None:
        self.stream = stream
        self.method = method
        self.buffer = bytearray()
        self.messages: "deque[bytes]" = deque()
        self.ended = False
        self.failure: "BoxshipError | None" = None
        self.wanted: "asyncio.Future[None] | None" = None
        self.task: "asyncio.Task[None]"

    def wake(self) -> None:
        if self.wanted is not None and not self.wanted.done():
            self.wanted.set_result(None)

    def feed(self, data: bytes, ended: bool, limit: int) -> None:
        """Take a piece of the body; what is wrong with it is told to the handler when it asks."""
        buffer = self.buffer
        buffer += data
        while len(buffer) >= _PREFIX.size and self.failure is None:
            compressed, length = _PREFIX.unpack_from(buffer)
            if compressed:
                self.failure = Unimplemented("compressed messages are not supported")
            elif length > limit:
                self.failure = ResourceExhausted(f"message of {length} bytes is larger than {limit}")
            if len(buffer) < _PREFIX.size + length:
                break
            self.messages.append(bytes(buffer[_PREFIX.size : _PREFIX.size + length]))
            del buffer[: _PREFIX.size + length]
        if ended:
            self.ended = True
            if buffer and self.failure is None:
                self.failure = InvalidArgument("the last message is cut short")
        self.wake()


class _Connection(asyncio.Protocol):
    def __init__(self, server: GrpcServer) -> None:
        self._server = server
        self._http = frames.Connection()
        self._transport: "asyncio.Transport | None" = None
        self._drained: "asyncio.Future[None] | None" = None
        self._paused = False
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self.calls: dict[int, _Call] = {}

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is not a subclass
        self._server.connections.add(self)
        self.flush()

    def connection_lost(self, error: "Exception | None") -> None:
        self._transport = None
        self._server.connections.discard(self)
        for call in list(self.calls.values()):
            call.task.cancel()
        self._writable()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._writable()

    def data_received(self, data: bytes) -> None:
        try:
            events = self._http.receive(data)
        except PeerError as error:
            log.debug("client dropped: %s", error)
            self.close()
            return
        for event in events:
            match event:
                case frames.Request():
                    self._begin(event)
                case frames.Received():
                    call = self.calls.get(event.stream)
                    if call is not None:
                        call.feed(event.data, event.ended, self._server.message_limit)
                        if len(call.messages) < _AHEAD:
                            self._http.consumed(event.stream)
                case frames.Reset():
                    call = self.calls.get(event.stream)
                    if call is not None:
                        call.task.cancel()
        self._writable()  # a window may have opened
        self._flush_soon()

    def go_away(self) -> None:
        self._http.go_away()
        self.flush()

    def close(self) -> None:
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def flush(self) -> None:
        self._scheduled = False
        if self._http.output:
            data = self._http.take_output()
            if self._transport is not None:
                self._transport.write(data)

    def _flush_soon(self) -> None:
        """What several calls answer in one turn of the loop goes out in one write."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def _writable(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    # -- calls

    def _begin(self, request: frames.Request) -> None:
        headers = dict(request.headers)
        if not headers.get("content-type", "").startswith("application/grpc"):
            self._http.end(request.stream, literal(":status", "415"))
            return
        found = self._server.routes.get(headers.get(":path", ""))
        if found is None:
            service, _, name = headers.get(":path", "").lstrip("/").partition("/")
            self._fail(request.stream, Unimplemented.code, f"unknown method {name} for service {service}")
            return
        method, function = found
        call = _Call(request.stream, method)
        call.ended = request.ended
        self.calls[request.stream] = call
        call.task = self._loop.create_task(self._run(call, function, headers))

    async def _run(self, call: _Call, function: Function, headers: "dict[str, str]") -> None:
        begun = False
        try:
            self._server.accept(headers)
            deadline = _timeout(headers.get("grpc-timeout", ""))
            async with asyncio.timeout(deadline):
                method = call.method
                argument: object
                if method.client_streaming:
                    argument = self._requests(call)
                else:
                    argument = await self._next(call)
                    if argument is None:
                        raise InvalidArgument(f"{method.path} was called without a request")
                if not method.server_streaming:
                    response: Message = await function(argument)
                    data = response.encode()
                    begun = True
                    self._http.send_headers(call.stream, _BEGIN)
                    await self._send(call, data)
                else:
                    items = function(argument)
                    # The headers say that the call has begun: a subscriber may now cause what it waits for.
                    begun = True
                    self._http.send_headers(call.stream, _BEGIN)
                    self._flush_soon()
                    async with closing(items):
                        async for item in items:
                            await self._send(call, item.encode())
            self._http.end(call.stream, _OK)
        except BoxshipError as error:
            self._fail(call.stream, error.code, str(error), begun)
        except TimeoutError:
            self._fail(call.stream, DeadlineExceeded.code, f"{call.method.path}: deadline exceeded", begun)
        except asyncio.CancelledError:
            self._http.reset(call.stream)
            raise
        except Exception as error:
            log.exception("%s failed", call.method.path)
            self._fail(call.stream, _INTERNAL, f"{type(error).__name__}: {error}", begun)
        finally:
            self.calls.pop(call.stream, None)
            self._flush_soon()

    async def _requests(self, call: _Call) -> AsyncIterator[Message]:
        while (message := await self._next(call)) is not None:
            yield message

    async def _next(self, call: _Call) -> "Message | None":
        """The next message of the request, None after the last. Not a generator, for a unary call would leave it
        unfinished, and the loop then makes a task to close it."""
        while True:
            if call.messages:
                data = call.messages.popleft()
                self._http.consumed(call.stream)
                self._flush_soon()
                return call.method.request.decode(data)
            if call.failure is not None:
                raise call.failure
            if call.ended:
                return None
            call.wanted = self._loop.create_future()
            await call.wanted

    async def _send(self, call: _Call, data: bytes) -> None:
        """Send one message; waits while the client's window or the socket is full."""
        self._http.send_data(call.stream, _PREFIX.pack(0, len(data)) + data)
        if self._paused or self._http.waiting(call.stream):
            self.flush()
            while self._transport is not None and (self._paused or self._http.waiting(call.stream)):
                if self._drained is None:
                    self._drained = self._loop.create_future()
                await asyncio.shield(self._drained)
        else:
            self._flush_soon()

    def _fail(self, stream: int, code: int, message: str, begun: bool = False) -> None:
        block = literal("grpc-status", str(code)) + literal("grpc-message", _percent(message))
        self._http.end(stream, block if begun else _BEGIN + block)


def _timeout(text: str) -> "float | None":
    """``grpc-timeout``: up to eight digits and a unit; in seconds."""
    match = re.fullmatch(r"([0-9]{1,8})([HMSmun])", text)
    return int(match[1]) * _UNITS[match[2]] if match else None


def _percent(message: str) -> str:
    """As grpc-message wants it: what is not printable ASCII, and ``%``, in percent encoding."""
    return "".join(
        chr(byte) if 0x20 <= byte <= 0x7E and byte != 0x25 else f"%{byte:02X}"
        for byte in message.encode("utf-8", "surrogateescape")
    )
