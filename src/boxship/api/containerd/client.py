"""The client: eleven typed services over one channel."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from boxship import tracing
from boxship.api.containerd.containers import Containers
from boxship.api.containerd.content import Content
from boxship.api.containerd.diff import Diff
from boxship.api.containerd.events import Events
from boxship.api.containerd.images import Images
from boxship.api.containerd.introspection import Introspection
from boxship.api.containerd.leases import Leases
from boxship.api.containerd.namespaces import Namespaces
from boxship.api.containerd.services import SERVICES, Services
from boxship.api.containerd.snapshots import Snapshots
from boxship.api.containerd.tasks import Tasks
from boxship.api.containerd.version import Version
from boxship.errors import DeadlineExceeded, Unimplemented
from boxship.protobuf import Bidi, Channel, ClientStream, Message, Method, ServerStream, Unary

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


class Client:
    """A containerd, in this process or another. ``async with`` it, or `close` it; closing twice is fine.

    Every attribute is a declared service: ``await client.containers.Get(GetContainerRequest(id="web"))``.
    Streams are async iterators; leaving one early (``aclose``, or the end of its task) cancels the call.
    Calls raise BoxshipErrors. A message passed to an in-process service must not be changed afterwards.
    """

    def __init__(self, channel: Channel, close: "Callable[[], Awaitable[None]] | None" = None) -> None:
        self.channel = channel
        self._close = close
        self.namespaces = Namespaces(channel)
        self.containers = Containers(channel)
        self.content = Content(channel)
        self.images = Images(channel)
        self.snapshots = Snapshots(channel)
        self.diff = Diff(channel)
        self.leases = Leases(channel)
        self.tasks = Tasks(channel)
        self.events = Events(channel)
        self.version = Version(channel)
        self.introspection = Introspection(channel)

    @classmethod
    def in_process(cls, services: Services) -> "Client":
        """Bound straight to the service objects: a call costs a coroutine, not a message."""
        return cls(InProcessChannel(services))

    @classmethod
    def connect(cls, address: str) -> "Client":
        """Over gRPC to ``address``, a socket's path with or without ``unix://``. Connects at the first call."""
        from boxship.api.containerd.grpc_channel import GrpcChannel

        channel = GrpcChannel(address)
        return cls(channel, channel.close)

    async def close(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            await close()

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class InProcessChannel:
    """Calls service objects; a method that an object lacks is Unimplemented, as over the wire."""

    def __init__(self, services: Services) -> None:
        self._targets = {kind.full_name: getattr(services, name) for name, kind in SERVICES.items()}

    async def unary(self, method: "Unary[Q, R]", request: Q, timeout: "float | None") -> R:
        function = self._find(method)
        with tracing.span("containerd", span_name(method)):
            try:
                async with asyncio.timeout(timeout):
                    return cast(R, await function(request))
            except TimeoutError as error:
                raise DeadlineExceeded(f"{method.path} took longer than {timeout} s") from error

    def server_stream(self, method: "ServerStream[Q, R]", request: Q, timeout: "float | None") -> AsyncIterator[R]:
        # Called here and not when the first item is asked for: a subscription begins with the call.
        return self._relay(method, self._find(method)(request), timeout)

    async def _relay(self, method: Method, items: AsyncIterator[R], timeout: "float | None") -> AsyncIterator[R]:
        with tracing.span("containerd", span_name(method)):
            async with asyncio.timeout(timeout):
                async with closing(items):
                    async for item in items:
                        yield item

    async def client_stream(
        self, method: "ClientStream[Q, R]", requests: AsyncIterator[Q], timeout: "float | None"
    ) -> R:
        with tracing.span("containerd", span_name(method)):
            async with asyncio.timeout(timeout):
                return cast(R, await self._find(method)(requests))

    async def bidi(
        self, method: "Bidi[Q, R]", requests: AsyncIterator[Q], timeout: "float | None"
    ) -> AsyncIterator[R]:
        with tracing.span("containerd", span_name(method)):
            async with asyncio.timeout(timeout):
                items = self._find(method)(requests)
                async with closing(items):
                    async for item in items:
                        yield item

    def _find(self, method: Method) -> "Callable[..., Any]":
        function = getattr(self._targets.get(method.service), method.name, None)
        if function is None:
            raise Unimplemented(f"unknown method {method.name} for service {method.service}")
        return cast("Callable[..., Any]", function)


@asynccontextmanager
async def closing(items: object) -> AsyncIterator[None]:
    """Close the source ``items`` when the block ends, also early: an ``async for`` leaves that to the collector."""
    try:
        yield
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


def span_name(method: Method) -> str:
    """``containerd.services.tasks.v1.Tasks`` and ``Create`` as ``tasks.Create``."""
    return f"{method.service.rpartition('.')[2].lower()}.{method.name}"
