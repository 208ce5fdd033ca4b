"""The client's calls over gRPC; grpcio is imported only by who needs it, for it takes 35 ms."""

from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc
import grpc.aio

from boxship.api.containerd.context import outgoing_metadata
from boxship.errors import BoxshipError, by_code
from boxship.protobuf import Bidi, ClientStream, Message, ServerStream, Unary

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

# containerd's limit for a message (defaults/defaults.go); the authority is what grpc-go servers accept.
MESSAGE_LIMIT = 16 << 20
OPTIONS = (
    ("grpc.default_authority", "localhost"),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
)


class GrpcChannel:
    def __init__(self, address: str) -> None:
        path = address.removeprefix("unix://")
        self._channel = grpc.aio.insecure_channel(f"unix:{path}", options=OPTIONS)

    async def close(self) -> None:
        await self._channel.close()

    async def unary(self, method: "Unary[Q, R]", request: Q, timeout: "float | None") -> R:
        call = self._channel.unary_unary(method.path, Message.encode, method.response.decode)
        try:
            return await call(request, timeout=timeout, metadata=outgoing_metadata())  # type: ignore[no-any-return]
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error

    def server_stream(self, method: "ServerStream[Q, R]", request: Q, timeout: "float | None") -> AsyncIterator[R]:
        # The call begins here, as it does in-process, not when the first item is asked for.
        call = self._channel.unary_stream(method.path, Message.encode, method.response.decode)
        return _items(call(request, timeout=timeout, metadata=outgoing_metadata()))

    async def client_stream(
        self, method: "ClientStream[Q, R]", requests: AsyncIterator[Q], timeout: "float | None"
    ) -> R:
        call = self._channel.stream_unary(method.path, Message.encode, method.response.decode)
        try:
            return await call(requests, timeout=timeout, metadata=outgoing_metadata())  # type: ignore[no-any-return]
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error

    def bidi(self, method: "Bidi[Q, R]", requests: AsyncIterator[Q], timeout: "float | None") -> AsyncIterator[R]:
        call = self._channel.stream_stream(method.path, Message.encode, method.response.decode)
        return _items(call(requests, timeout=timeout, metadata=outgoing_metadata()))


async def _items(stream: Any) -> AsyncIterator[Any]:
    """What a grpcio call receives; leaving early cancels it."""
    try:
        async for item in stream:
            yield item
    except grpc.aio.AioRpcError as error:
        raise _translate(error) from error
    finally:
        stream.cancel()


def _translate(error: "grpc.aio.AioRpcError") -> BoxshipError:
    return by_code(error.code().value[0], error.details() or error.code().name)
