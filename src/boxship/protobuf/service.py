# ruff: noqa: F811, RUF012  overload and ClassVar are imported for the type checker only, so ruff does not know them
"""RPC services, declared once; servers and clients of gRPC and ttrpc are driven by the declaration.

::

    class Tasks(Service, name="containerd.services.tasks.v1.Tasks"):
        Create = unary(CreateTaskRequest, CreateTaskResponse)

A declared service is also its typed client: ``Tasks(channel).Create(request)`` hands the call to a channel,
which is whatever carries it (gRPC, ttrpc, or the service object itself in the same process).
A server's implementation is any object with one coroutine per method, of the method's name.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from typing import Any as Anything
    from typing import ClassVar, Generic, Protocol, TypeVar, overload

    from .messages import Message

    Q = TypeVar("Q", bound=Message)
    R = TypeVar("R", bound=Message)

    class Channel(Protocol):
        """What carries a client's calls.  ``timeout`` is in seconds; errors are BoxshipErrors.

        Cancelling the coroutine, or closing the iterator, cancels the call.
        """

        def unary(self, method: "Unary[Q, R]", request: Q, timeout: float | None) -> Awaitable[R]: ...

        def server_stream(
            self, method: "ServerStream[Q, R]", request: Q, timeout: float | None
        ) -> AsyncIterator[R]: ...

        def client_stream(
            self, method: "ClientStream[Q, R]", requests: AsyncIterator[Q], timeout: float | None
        ) -> Awaitable[R]: ...

        def bidi(
            self, method: "Bidi[Q, R]", requests: AsyncIterator[Q], timeout: float | None
        ) -> AsyncIterator[R]: ...
else:

    def overload(function: object) -> object:
        return function

    Q = R = None

    class Generic:
        def __class_getitem__(cls, _item: object) -> type:
            return cls

    Channel = object


class Method:
    """One method of a service; ``path`` is gRPC's ``/service/Method``."""

    client_streaming = False
    server_streaming = False

    def __init__(self, request: "type[Message]", response: "type[Message]") -> None:
        self.request: type[Message] = request
        self.response: type[Message] = response
        self.service = ""
        self.name = ""

    @property
    def path(self) -> str:
        return "/" + self.service + "/" + self.name

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name


class Unary(Method, Generic[Q, R]):
    """One request, one response."""

    @overload
    def __get__(self, client: None, owner: object) -> "Unary[Q, R]": ...
    @overload
    def __get__(self, client: "Service", owner: object) -> "UnaryCall[Q, R]": ...
    def __get__(self, client: "Service | None", owner: object) -> "Unary[Q, R] | UnaryCall[Q, R]":
        return self if client is None else UnaryCall(client.channel, self)


class ServerStream(Method, Generic[Q, R]):
    """One request, a stream of responses."""

    server_streaming = True

    @overload
    def __get__(self, client: None, owner: object) -> "ServerStream[Q, R]": ...
    @overload
    def __get__(self, client: "Service", owner: object) -> "ServerStreamCall[Q, R]": ...
    def __get__(self, client: "Service | None", owner: object) -> "ServerStream[Q, R] | ServerStreamCall[Q, R]":
        return self if client is None else ServerStreamCall(client.channel, self)


class ClientStream(Method, Generic[Q, R]):
    """A stream of requests, one response."""

    client_streaming = True

    @overload
    def __get__(self, client: None, owner: object) -> "ClientStream[Q, R]": ...
    @overload
    def __get__(self, client: "Service", owner: object) -> "ClientStreamCall[Q, R]": ...
    def __get__(self, client: "Service | None", owner: object) -> "ClientStream[Q, R] | ClientStreamCall[Q, R]":
        return self if client is None else ClientStreamCall(client.channel, self)


class Bidi(Method, Generic[Q, R]):
    """Streams both ways."""

    client_streaming = True
    server_streaming = True

    @overload
    def __get__(self, client: None, owner: object) -> "Bidi[Q, R]": ...
    @overload
    def __get__(self, client: "Service", owner: object) -> "BidiCall[Q, R]": ...
    def __get__(self, client: "Service | None", owner: object) -> "Bidi[Q, R] | BidiCall[Q, R]":
        return self if client is None else BidiCall(client.channel, self)


class UnaryCall(Generic[Q, R]):
    __slots__ = ("channel", "method")

    def __init__(self, channel: "Channel", method: "Unary[Q, R]") -> None:
        self.channel, self.method = channel, method

    def __call__(self, request: "Q", *, timeout: "float | None" = None) -> "Awaitable[R]":
        return self.channel.unary(self.method, request, timeout)


class ServerStreamCall(Generic[Q, R]):
    __slots__ = ("channel", "method")

    def __init__(self, channel: "Channel", method: "ServerStream[Q, R]") -> None:
        self.channel, self.method = channel, method

    def __call__(self, request: "Q", *, timeout: "float | None" = None) -> "AsyncIterator[R]":
        return self.channel.server_stream(self.method, request, timeout)


class ClientStreamCall(Generic[Q, R]):
    __slots__ = ("channel", "method")

    def __init__(self, channel: "Channel", method: "ClientStream[Q, R]") -> None:
        self.channel, self.method = channel, method

    def __call__(self, requests: "AsyncIterator[Q]", *, timeout: "float | None" = None) -> "Awaitable[R]":
        return self.channel.client_stream(self.method, requests, timeout)


class BidiCall(Generic[Q, R]):
    __slots__ = ("channel", "method")

    def __init__(self, channel: "Channel", method: "Bidi[Q, R]") -> None:
        self.channel, self.method = channel, method

    def __call__(self, requests: "AsyncIterator[Q]", *, timeout: "float | None" = None) -> "AsyncIterator[R]":
        return self.channel.bidi(self.method, requests, timeout)


def unary(request: "type[Q]", response: "type[R]") -> "Unary[Q, R]":
    return Unary(request, response)


def server_stream(request: "type[Q]", response: "type[R]") -> "ServerStream[Q, R]":
    return ServerStream(request, response)


def client_stream(request: "type[Q]", response: "type[R]") -> "ClientStream[Q, R]":
    return ClientStream(request, response)


def bidi(request: "type[Q]", response: "type[R]") -> "Bidi[Q, R]":
    return Bidi(request, response)


class Service:
    """Base of declared services; an instance is a client over ``channel``."""

    full_name: "ClassVar[str]" = ""
    methods: "ClassVar[dict[str, Method]]" = {}

    def __init_subclass__(cls, *, name: str) -> None:
        cls.full_name = name
        cls.methods = {key: value for key, value in vars(cls).items() if isinstance(value, Method)}
        for method in cls.methods.values():
            method.service = name

    def __init__(self, channel: "Channel") -> None:
        self.channel = channel


def implementation(service: "type[Service]", target: "Anything") -> "dict[str, Anything]":
    """The functions of ``target`` by method name; a method that it lacks is left out (Unimplemented)."""
    found = {name: getattr(target, name, None) for name in service.methods}
    return {name: function for name, function in found.items() if function is not None}
