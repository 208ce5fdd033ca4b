"""One registry on one address, until a signal comes."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from dataclasses import dataclass, field

from boxship import __version__
from boxship.errors import BoxshipError, InvalidArgument
from boxship.http.listen import tcp_listener
from boxship.http.protocol import Connection

from .anonymous import AnonymousPull
from .auth import Passwords
from .errors import answer
from .registry import Registry
from .routes import Limits, Routes

log = logging.getLogger("boxship.registry")

DEFAULT_PORT = 5000
HEADER = "\r\n".join(
    (
        "Docker-Distribution-Api-Version: registry/2.0",
        "X-Content-Type-Options: nosniff",  # blobs are what strangers pushed: no browser shall guess what they are
        f"Server: Boxship/{__version__}",
    )
)
TIDY_EVERY = 300.0
HANDSHAKE = 30.0
"""Seconds that a client has for TLS's."""


@dataclass(frozen=True, slots=True)
class Collecting:
    """Collection while the registry is served: how often, and of what (`boxship.registry.collect`)."""

    every: float
    age: float
    untagged: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """How a directory is served. ``tls_*`` and ``htpasswd`` are paths, "" for none.

    ``anonymous_pull`` lets everybody read where ``htpasswd`` says who may write.
    """

    root: str
    listen: str = f"127.0.0.1:{DEFAULT_PORT}"
    tls_cert: str = ""
    tls_key: str = ""
    htpasswd: str = ""
    anonymous_pull: bool = False
    sparse: bool = False
    limits: Limits = field(default_factory=Limits)
    collecting: Collecting | None = None


async def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. What is wrong with the settings is raised before the first request."""
    admission: Passwords | AnonymousPull | None = Passwords(settings.htpasswd) if settings.htpasswd else None
    if settings.anonymous_pull:
        if not isinstance(admission, Passwords):
            raise InvalidArgument(
                "anonymous pulls are pulls beside passwords", remedy="give a file of passwords, too"
            )
        admission = AnonymousPull(admission, tls=bool(settings.tls_cert))
    context = tls_context(settings.tls_cert, settings.tls_key) if settings.tls_cert else None
    registry = Registry(settings.root, sparse=settings.sparse)
    try:
        routes = Routes(registry, settings.limits, admission)
        try:
            await _listen(settings, routes, context)
        finally:
            routes.close()
    finally:
        registry.close()


async def _listen(settings: Settings, routes: Routes, context: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    connections: set[Connection] = set()

    class Client(Connection):
        def __init__(self) -> None:
            super().__init__(routes, HEADER, answer)
            connections.add(self)

        def connection_lost(self, error: Exception | None) -> None:
            connections.discard(self)
            super().connection_lost(error)

    listening = tcp_listener(settings.listen, default_port=DEFAULT_PORT)
    server = await loop.create_server(
        Client, sock=listening, ssl=context, ssl_handshake_timeout=HANDSHAKE if context else None
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    host, port = listening.getsockname()[:2]
    chores = [loop.create_task(_tidy(routes))]
    if settings.collecting is not None:
        chores.append(loop.create_task(_collect(routes, settings.collecting)))
    log.info("serving %s on %s://%s:%d", settings.root, "https" if context else "http", host, port)
    await stop.wait()
    server.close()
    for chore in chores:
        chore.cancel()
    await asyncio.gather(*(connection.shut() for connection in list(connections)))
    await asyncio.gather(*chores, return_exceptions=True)  # a collection that runs ends first


async def _tidy(routes: Routes) -> None:
    while True:
        await asyncio.sleep(TIDY_EVERY)
        try:
            await routes.tidy()
        except OSError:
            log.exception("cannot look after uploads")


async def _collect(routes: Routes, collecting: Collecting) -> None:
    while True:
        await asyncio.sleep(collecting.every)
        try:
            gone = await routes.collect(collecting.age, collecting.untagged)
        except (OSError, BoxshipError):
            log.exception("cannot collect")
        else:
            log.info("collected %d manifests and %d blobs, %d bytes", gone.manifests, gone.blobs, gone.freed)


def tls_context(cert: str, key: str) -> ssl.SSLContext:
    """Raises InvalidArgument that names the files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key or None, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        cause = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise InvalidArgument(
            f"cannot use the TLS certificate {cert} with the key {key or cert}", cause=cause
        ) from error
    return context
