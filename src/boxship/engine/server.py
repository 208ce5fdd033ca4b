"""The sockets that an engine serves on: unix and TCP, with or without TLS."""

from __future__ import annotations

import asyncio
import grp
import os
import socket
import ssl
import stat
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from boxship import __version__, tracing
from boxship.errors import AlreadyExists, InvalidArgument, PermissionDenied
from boxship.http.listen import tcp_listener
from boxship.http.messages import Request, Response
from boxship.http.protocol import Connection
from boxship.http.tls import TlsProtocol

from .app import Engine
from .config import EngineConfig
from .router import API_VERSION, Route, Router
from .routes.containers import ContainerRoutes
from .routes.execs import ExecRoutes
from .routes.images import ImageRoutes
from .routes.missing import MissingRoutes
from .routes.networks import NetworkRoutes
from .routes.system import SystemRoutes
from .routes.volumes import VolumeRoutes

SERVER_HEADER = "\r\n".join(
    (
        f"Api-Version: {API_VERSION}",
        "Ostype: linux",
        "Docker-Experimental: false",
        f"Server: Boxship/{__version__} (linux)",
    )
)


def routes(engine: Engine) -> Iterable[list[Route]]:
    """Every route of the API, group by group."""
    groups = (ContainerRoutes, ExecRoutes, ImageRoutes, VolumeRoutes, NetworkRoutes, SystemRoutes, MissingRoutes)
    return [group(engine).table() for group in groups]


class Api:
    """The router, with each request's trace around it."""

    def __init__(self, engine: Engine) -> None:
        self.router = Router(routes(engine))
        self._traces = engine.config.exec_root / "traces"

    async def __call__(self, request: Request) -> Response | None:
        id = tracing.trace_id(request.headers.get(tracing.TRACEPARENT, ""))
        if not id:
            return await self.router(request)
        self._traces.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._traces / f"{id}.jsonl"
        path.touch(mode=0o600)
        token = tracing.current.set(tracing.Trace(id, str(path)))
        try:
            with tracing.span("engine", f"{request.method} {request.path}"):
                return await self.router(request)
        finally:
            tracing.current.reset(token)


async def listen(api: Api, config: EngineConfig) -> list[asyncio.Server]:
    """Serve on every address of the configuration; raises what `_listen_unix` and `tcp_listener` raise."""
    loop = asyncio.get_running_loop()

    def connection() -> Connection:
        return Connection(api, SERVER_HEADER)

    servers: list[asyncio.Server] = []
    try:
        for host in config.hosts or [f"unix://{config.exec_root}/engine.sock"]:
            scheme, separator, address = host.partition("://")
            if not separator or scheme not in ("unix", "tcp", "fd"):
                raise InvalidArgument(f"invalid host {host!r}", remedy="unix:///PATH or tcp://ADDRESS:PORT")
            if scheme == "unix":
                bound = _listen_unix(Path("/" + address.lstrip("/")), config.group)
                servers.append(await loop.create_unix_server(connection, sock=bound))
            elif scheme == "tcp":
                listening = tcp_listener(address, default_port=2375)
                protocol: Callable[[], asyncio.Protocol] = connection
                if config.tls or config.tls_verify:
                    protocol = partial(_over_tls, _tls(config), connection)
                servers.append(await loop.create_server(protocol, sock=listening))
            else:
                raise InvalidArgument(f"invalid host {host!r}: socket activation is not supported")
    except BaseException:
        for server in servers:
            server.close()
        raise
    return servers


def _over_tls(context: ssl.SSLContext, connection: Callable[[], Connection]) -> asyncio.Protocol:
    return TlsProtocol(context, connection())


def _listen_unix(path: Path, group: str) -> socket.socket:
    """A listening unix socket, 0660 and of ``group``; one that a dead engine left is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    gid = _group(group)
    if path.exists():
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise AlreadyExists(f"listen on {path}: a file that is no socket is there", remedy="remove it")
        probe = socket.socket(socket.AF_UNIX)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise AlreadyExists(f"listen on {path}: another engine is serving there", remedy="use another -H")
        finally:
            probe.close()
    bound = socket.socket(socket.AF_UNIX)
    before = os.umask(0o117)
    try:
        bound.bind(str(path))
    except PermissionError as error:
        raise PermissionDenied(f"listen on {path}", cause="EACCES", remedy="run as root") from error
    except OSError as error:
        raise InvalidArgument(f"listen on {path}", cause=str(error)) from error
    finally:
        os.umask(before)
    os.chown(path, 0 if os.geteuid() == 0 else -1, gid)
    bound.listen(512)
    bound.setblocking(False)
    return bound


def _group(name: str) -> int:
    if not name:
        return -1
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name.isdigit():
            return int(name)
        raise InvalidArgument(
            f"group {name!r} is not a group of this host", remedy="groupadd it, or leave -G out"
        ) from None


def _tls(config: EngineConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
        if config.tls_verify:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(config.tls_ca)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(
            f"TLS: certificate {config.tls_cert!r}, key {config.tls_key!r}, CA {config.tls_ca!r}", cause=str(error)
        ) from error
    return context
