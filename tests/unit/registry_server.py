"""Our registry in a thread of the test, and a client that says what came."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from boxship.http.protocol import Connection
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.registry.anonymous import AnonymousPull
from boxship.registry.auth import Passwords
from boxship.registry.errors import answer
from boxship.registry.registry import Registry
from boxship.registry.routes import Limits, Routes
from boxship.registry.server import HEADER

TIMEOUT = 120
"""Seconds: while somebody else writes gigabytes to the disk, one fsync takes many of them."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The spec's error code."""
        return str(json.loads(self.body)["errors"][0]["code"])

    @property
    def json(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.body)
        return found


class Client:
    """A connection of its own for each request, so that none sees another's."""

    def __init__(self, port: int, tidy: Callable[[float], None] = lambda _: None) -> None:
        self.port = port
        self.tidy = tidy
        """Let the server look after uploads, as if those idle for so many seconds were old."""

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            data = response.read()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, data)
        finally:
            connection.close()

    def push_blob(self, repository: str, data: bytes, algorithm: str = "sha256") -> oci.Descriptor:
        digest = digests.of(data, algorithm)
        done = self("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data)
        assert done.status == 201, done
        return oci.Descriptor("application/octet-stream", digest, len(data))

    def push_manifest(self, repository: str, reference: str, document: object, **headers: str) -> Answer:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self("PUT", f"/v2/{repository}/manifests/{reference}", data, **headers)


def image(config: oci.Descriptor, *layers: oci.Descriptor, **more: object) -> dict[str, object]:
    """A manifest as a dict, for tests to break."""
    return {
        "schemaVersion": 2,
        "mediaType": oci.MEDIA_MANIFEST,
        "config": {"mediaType": oci.MEDIA_CONFIG, "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": oci.MEDIA_LAYER_GZIP, "digest": one.digest, "size": one.size} for one in layers],
        **more,
    }


@contextmanager
def serving(
    root: Path, *, limits: Limits | None = None, htpasswd: str = "", anonymous: bool = False, sparse: bool = False
) -> Iterator[Client]:
    """The registry in ``root`` until the block ends."""
    registry = Registry(str(root), sparse=sparse)
    passwords = Passwords(htpasswd) if htpasswd else None
    admission = AnonymousPull(passwords) if anonymous and passwords else passwords
    routes = Routes(registry, limits or Limits(), admission)
    loop = asyncio.new_event_loop()
    connections: list[Connection] = []

    def connection() -> Connection:
        connections.append(Connection(routes, HEADER, answer))
        return connections[-1]

    server = loop.run_until_complete(loop.create_server(connection, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:

        def tidy(idle: float) -> None:
            async def look() -> None:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("boxship.registry.routes.UPLOAD_IDLE", idle)
                    await routes.tidy()

            asyncio.run_coroutine_threadsafe(look(), loop).result(10)

        yield Client(server.sockets[0].getsockname()[1], tidy)
    finally:

        async def shut() -> None:
            server.close()
            for one in connections:
                await one.shut()

        asyncio.run_coroutine_threadsafe(shut(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        routes.close()
        registry.close()
