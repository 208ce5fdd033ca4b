"""The services on their gRPC socket: declarations in, routes out.

A call's metadata (namespace, lease, trace) becomes current in its task; a BoxshipError becomes its code's
status; what has no implementation is answered Unimplemented.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from boxship import tracing
from boxship.api.containerd.client import closing, span_name
from boxship.api.containerd.context import accept_metadata
from boxship.api.containerd.services import SERVICES, Services
from boxship.containerd.http2.server import Function, GrpcServer
from boxship.containerd.sockets import remove_stale_socket
from boxship.protobuf import Message, Method, implementation

MESSAGE_LIMIT = 16 << 20  # containerd's (defaults/defaults.go)


@asynccontextmanager
async def serve(services: Services, path: str, *, group: int = -1) -> AsyncIterator[None]:
    """Serve ``services`` at the socket ``path`` (0660, of ``group`` when one is given) while the block runs.

    A socket that nobody listens on any more is replaced; a live one raises FailedPrecondition.
    """
    remove_stale_socket(path)
    routes = {}
    for attribute, declared in SERVICES.items():
        for name, function in implementation(declared, getattr(services, attribute)).items():
            method = declared.methods[name]
            routes[method.path] = (method, _traced(method, function))
    server = GrpcServer(routes, accept_metadata, message_limit=MESSAGE_LIMIT)
    await server.listen(path)
    try:
        os.chmod(path, 0o660)
        if group >= 0:
            os.chown(path, -1, group)
        yield
    finally:
        await server.close()
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # somebody tidied up before us


def _traced(method: Method, function: Function) -> Function:
    name = span_name(method)
    if method.server_streaming:

        async def stream(request: object) -> AsyncIterator[Message]:
            with tracing.span("containerd", name):
                items = function(request)
                async with closing(items):
                    async for item in items:
                        yield item

        return stream

    async def call(request: object) -> Message:
        with tracing.span("containerd", name):
            return await function(request)  # type: ignore[no-any-return]  # as the method declares

    return call
