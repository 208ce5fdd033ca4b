"""ttrpc for asyncio: a client (containerd calling a shim) and a server (containerd taking a shim's events).

Client: ``task = TaskV3(await Client.connect(address)); await task.Start(StartRequest(id="web"))``.
Server: ``await serve(path, {Events: implementation})`` with one coroutine per method.
A connection is one transport that any number of calls share; when it breaks, every call on it that still
waits fails with Unavailable, and ``closed`` is set.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import Any as Anything
from typing import Self, TypeVar, cast

from ..errors import BoxshipError, DeadlineExceeded, InvalidArgument, PeerError, Unavailable, Unimplemented
from ..protobuf import Bidi, ClientStream, Message, Method, ServerStream, Service, Unary
from .frames import REMOTE_CLOSED, REMOTE_OPEN, unix_path
from .session import Answer, Call, ClientSession, Data, ServerSession

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

metadata: ContextVar[Mapping[str, str]] = ContextVar("ttrpc_metadata", default={})  # noqa: B039  never mutated
"""In a server's method: what the client sent beside the request."""


class _Inbox:
    """What arrived for one stream and was not taken yet."""

    __slots__ = ("error", "queue")

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Data | Answer | None] = asyncio.Queue()
        self.error: BoxshipError | None = None


class Client(asyncio.Protocol):
    """A ``protobuf.Channel`` over one connection.

    ``metadata`` is asked once per call for what to send beside it (namespace, trace).
    """

    def __init__(self, metadata: Callable[[], dict[str, str]] | None = None) -> None:
        self._session = ClientSession()
        self._transport: asyncio.Transport | None = None
        self._unary: dict[int, asyncio.Future[bytes]] = {}
        self._streams: dict[int, _Inbox] = {}
        self._metadata = metadata or dict
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost: BoxshipError | None = None
        self.closed = asyncio.Event()

    @classmethod
    async def connect(
        cls, address: str, *, timeout: float = 10.0, metadata: Callable[[], dict[str, str]] | None = None
    ) -> Self:
        """Connect within ``timeout`` seconds; nobody there is Unavailable."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                _, client = await loop.create_unix_connection(lambda: cls(metadata), unix_path(address))
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"cannot connect to {address}", cause=str(error)) from error
        return client

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            events = self._session.feed(data)
        except PeerError as error:
            self._fail(error)
            return
        for event in events:
            waiter = self._unary.pop(event.stream, None)
            if waiter is not None:
                self._settle(waiter, event)
            elif event.stream in self._streams:
                self._streams[event.stream].queue.put_nowait(event)

    def eof_received(self) -> None:
        try:
            self._session.end()
        except PeerError as error:
            self._fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        cause = str(error) if error else "the server closed it"
        self._fail(Unavailable("the ttrpc connection is lost", cause=cause))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _settle(self, waiter: asyncio.Future[bytes], event: Data | Answer) -> None:
        if waiter.done():
            return
        if isinstance(event, Data):
            waiter.set_exception(PeerError("ttrpc: the server streams the answer of a unary call"))
        elif event.error is not None:
            waiter.set_exception(event.error)
        else:
            waiter.set_result(event.payload)

    def _fail(self, error: BoxshipError) -> None:
        """The connection is of no use any more; tell everyone who waits on it."""
        if self._lost is None:
            self._lost = error
        self.closed.set()
        self._writable.set()
        for waiter in self._unary.values():
            if not waiter.done():
                waiter.set_exception(self._lost)
        self._unary.clear()
        for inbox in self._streams.values():
            inbox.error = self._lost
            inbox.queue.put_nowait(None)
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close the connection; calls that still wait fail with Unavailable.  Closing twice is fine."""
        self._fail(Unavailable("the ttrpc connection was closed"))

    # -- protobuf.Channel

    def _open(self, method: Method, payload: bytes, timeout: float | None, flags: int) -> int:
        if self._lost is not None or self._transport is None:
            raise Unavailable(f"{method.service}/{method.name}", cause=str(self._lost or "not connected"))
        stream, data = self._session.call(
            method.service, method.name, payload, metadata=self._metadata(),
            timeout_ns=int(timeout * 1e9) if timeout else 0, flags=flags,
        )  # fmt: skip
        self._transport.write(data)
        return stream

    async def unary(self, method: Unary[Q, R], request: Q, timeout: float | None = None) -> R:
        """One call; no answer within ``timeout`` seconds is DeadlineExceeded."""
        waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        stream = self._open(method, request.encode(), timeout, 0)
        self._unary[stream] = waiter
        try:
            if timeout is None:
                payload = await waiter
            else:
                async with asyncio.timeout(timeout):
                    payload = await waiter
        except TimeoutError as error:
            raise DeadlineExceeded(f"{method.service}/{method.name}: no answer in {timeout} s") from error
        finally:
            self._unary.pop(stream, None)
            self._session.forget(stream)
        return method.response.decode(payload)  # type: ignore[return-value]  # the declaration pairs them

    async def server_stream(
        self, method: ServerStream[Q, R], request: Q, timeout: float | None = None
    ) -> AsyncIterator[R]:
        """Responses as they come; closing the iterator forgets the call."""
        stream = self._open(method, request.encode(), timeout, REMOTE_CLOSED)
        async for response in self._responses(method, stream, timeout):
            yield response  # type: ignore[misc]  # the declaration pairs them

    async def client_stream(
        self, method: ClientStream[Q, R], requests: AsyncIterator[Q], timeout: float | None = None
    ) -> R:
        """One response to a stream of requests."""
        waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        stream = self._open(method, b"", timeout, REMOTE_OPEN)
        self._unary[stream] = waiter
        try:
            async with asyncio.timeout(timeout), asyncio.TaskGroup() as tasks:
                sender = tasks.create_task(self._send_all(stream, requests))
                payload = await waiter
                sender.cancel()
        except TimeoutError as error:
            raise DeadlineExceeded(f"{method.service}/{method.name}: no answer in {timeout} s") from error
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._unary.pop(stream, None)
            self._session.forget(stream)
        return method.response.decode(payload)  # type: ignore[return-value]  # the declaration pairs them

    async def bidi(
        self, method: Bidi[Q, R], requests: AsyncIterator[Q], timeout: float | None = None
    ) -> AsyncIterator[R]:
        """Streams both ways; the requests are sent by a task that ends with the iterator."""
        stream = self._open(method, b"", timeout, REMOTE_OPEN)
        sender = asyncio.create_task(self._send_all(stream, requests))
        try:
            async for response in self._responses(method, stream, timeout):
                yield response  # type: ignore[misc]  # the declaration pairs them
        finally:
            sender.cancel()

    async def _send_all(self, stream: int, requests: AsyncIterator[Q]) -> None:
        async for request in requests:
            await self._writable.wait()
            self._write(self._session.send(stream, request.encode()))
        self._write(self._session.finish(stream))

    def _write(self, data: bytes) -> None:
        if self._lost is not None or self._transport is None:
            raise Unavailable("the ttrpc connection is lost", cause=str(self._lost))
        self._transport.write(data)

    async def _responses(self, method: Method, stream: int, timeout: float | None) -> AsyncIterator[Message]:
        inbox = self._streams[stream] = _Inbox()
        try:
            async with asyncio.timeout(timeout):
                while (event := await inbox.queue.get()) is not None:
                    if isinstance(event, Answer):
                        if event.error is not None:
                            raise event.error
                        return
                    if event.payload is not None:
                        yield method.response.decode(event.payload)
                    if event.last:
                        return
                raise inbox.error or Unavailable("the ttrpc connection is lost")
        except TimeoutError as error:
            raise DeadlineExceeded(f"{method.service}/{method.name}: not done in {timeout} s") from error
        finally:
            self._streams.pop(stream, None)
            self._session.forget(stream)


class _ServerConnection(asyncio.Protocol):
    """One client of a ``Server``; its calls are tasks that end with it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.session = ServerSession()
        self.transport: asyncio.Transport | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.requests: dict[int, asyncio.Queue[Data]] = {}
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self.transport = transport
        self.server.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.server.connections.discard(self)
        self.writable.set()
        for task in self.tasks:
            task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        for event in self.session.feed(data):
            if isinstance(event, Data):
                queue = self.requests.get(event.stream)
                if queue is not None:
                    queue.put_nowait(event)
                continue
            if event.open:
                self.requests[event.stream] = asyncio.Queue()
            task = asyncio.create_task(self._serve(event))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        self.flush()

    def flush(self) -> None:
        if self.session.outgoing and self.transport is not None:
            self.transport.write(bytes(self.session.outgoing))
            self.session.outgoing.clear()

    async def _serve(self, call: Call) -> None:
        metadata.set(call.metadata)
        try:
            method, function = self.server.find(call)
            async with asyncio.timeout(call.timeout_ns / 1e9 if call.timeout_ns else None):
                await self._run(method, function, call)
        except TimeoutError:
            self.session.fail(call.stream, DeadlineExceeded(f"{call.method}: not done in time"))
        except Exception as error:
            self.session.fail(call.stream, error)
        finally:
            self.requests.pop(call.stream, None)
        self.flush()

    async def _run(self, method: Method, function: Callable[..., Anything], call: Call) -> None:
        streams = method.client_streaming
        request: Anything = self._incoming(method, call) if streams else method.request.decode(call.payload)
        if not method.server_streaming:
            response = await function(request)
            self.session.reply(call.stream, response.encode())
            return
        async for response in function(request):
            self.session.send(call.stream, response.encode())
            self.flush()
            await self.writable.wait()
        self.session.finish(call.stream)

    async def _incoming(self, method: Method, call: Call) -> AsyncIterator[Message]:
        queue = self.requests.get(call.stream)
        if queue is None:
            raise InvalidArgument(f"{call.method} takes a stream of requests")
        while True:
            data = await queue.get()
            if data.payload is not None:
                yield method.request.decode(data.payload)
            if data.last:
                return


class Server:
    """A listening ttrpc server; ``close`` stops listening and ends every call."""

    def __init__(self, services: Mapping[type[Service], object]) -> None:
        self.connections: set[_ServerConnection] = set()
        self._listener: asyncio.Server | None = None
        self._methods: dict[tuple[str, str], tuple[Method, Callable[..., Coroutine[None, None, Message]]]] = {}
        for service, implementation in services.items():
            for name, method in service.methods.items():
                function = getattr(implementation, name, None)
                if function is not None:
                    self._methods[service.full_name, name] = (method, function)

    async def listen(self, path: str | None = None, sock: socket.socket | None = None) -> None:
        """Serve on a socket file, which must not exist, or on a listening socket."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(lambda: _ServerConnection(self), path=path, sock=sock)

    def find(self, call: Call) -> tuple[Method, Callable[..., Anything]]:
        found = self._methods.get((call.service, call.method))
        if found is None:
            raise Unimplemented(f"service {call.service} has no method {call.method}")
        return found

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        tasks = [task for connection in self.connections for task in connection.tasks]
        for connection in list(self.connections):
            if connection.transport is not None:
                connection.transport.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def serve(path: str, services: Mapping[type[Service], object]) -> Server:
    """A server that listens on the socket file ``path``."""
    server = Server(services)
    await server.listen(path)
    return server
