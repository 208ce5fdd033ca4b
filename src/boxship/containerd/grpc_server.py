"""The services on a gRPC socket: declarations in, handlers out.

A call's metadata (namespace, lease, trace) becomes current in its task; a BoxshipError becomes its code's
status; what has no implementation is answered Unimplemented by gRPC itself.
"""

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from boxship import tracing
from boxship.api.containerd.client import span_name
from boxship.api.containerd.context import accept_metadata
from boxship.api.containerd.grpc_channel import MESSAGE_LIMIT
from boxship.api.containerd.services import SERVICES, Services
from boxship.containerd.sockets import remove_stale_socket
from boxship.errors import BoxshipError
from boxship.protobuf import Message, Method, implementation

log = logging.getLogger("boxship.containerd")

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.so_reuseport", 0),
)

Function = Callable[..., Any]
Context = Any  # grpc.aio.ServicerContext; grpcio has no types


class GrpcServer:
    """Serves ``services`` at the socket ``path``. `close` it; closing twice is fine."""

    def __init__(self, services: Services, path: str, *, group: int = -1) -> None:
        self._path = path
        self._group = group
        self._server = grpc.aio.server(options=_OPTIONS)
        for attribute, declared in SERVICES.items():
            functions = implementation(declared, getattr(services, attribute))
            handlers = {name: _handler(declared.methods[name], call) for name, call in functions.items()}
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(declared.full_name, handlers),)
            )

    async def start(self) -> None:
        """Listen; a socket that nobody listens on any more is replaced, a live one is Unavailable."""
        remove_stale_socket(self._path)
        self._server.add_insecure_port(f"unix:{self._path}")
        await self._server.start()
        os.chmod(self._path, 0o660)
        if self._group >= 0:
            os.chown(self._path, -1, self._group)

    async def close(self, grace: float = 0.5) -> None:
        await self._server.stop(grace)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


def _handler(method: Method, function: Function) -> "grpc.RpcMethodHandler":
    decode, encode = method.request.decode, Message.encode
    if method.client_streaming and method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(_streaming(method, function), decode, encode)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(_streaming(method, function), decode, encode)
    return grpc.unary_unary_rpc_method_handler(_unary(method, function), decode, encode)


def _unary(method: Method, function: Function) -> "Callable[[Any, Context], Awaitable[Message]]":
    name = span_name(method)

    async def call(request: Any, context: Context) -> Message:
        _accept(context)
        try:
            with tracing.span("containerd", name):
                return await function(request)  # type: ignore[no-any-return]  # as the method declares
        except BoxshipError as error:
            await _abort(context, error)
            raise
        except Exception:
            log.exception("%s failed", method.path)
            raise

    return call


def _streaming(method: Method, function: Function) -> "Callable[[Any, Context], AsyncIterator[Message]]":
    name = span_name(method)

    async def call(request: Any, context: Context) -> AsyncIterator[Message]:
        _accept(context)
        try:
            with tracing.span("containerd", name):
                items = function(request)
                # The headers say that the call has begun: a subscriber may now cause the events it waits for.
                if method.name == "Subscribe":
                    await context.send_initial_metadata(())
                async for item in items:
                    yield item
        except BoxshipError as error:
            await _abort(context, error)
        except Exception:
            log.exception("%s failed", method.path)
            raise

    return call


def _accept(context: Context) -> None:
    accept_metadata(
        {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    )


async def _abort(context: Context, error: BoxshipError) -> None:
    await context.abort(_STATUS.get(error.code, grpc.StatusCode.UNKNOWN), str(error))
