"""What a handler gets and gives: a request, and the answer to it, whole, chunked or as a raw stream."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

import msgspec

from boxship.errors import BoxshipError, InvalidArgument

from .status import status_of

if TYPE_CHECKING:
    from .protocol import Connection

log = logging.getLogger("boxship.http")

HIGH_WATER = 256 * 1024  # body bytes that wait for a handler before the socket is not read any more

_encode = msgspec.json.Encoder(enc_hook=str).encode


class MalformedRequest(InvalidArgument):
    """What came is no HTTP request, or one that is not taken; the connection ends with it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.http_status = status


class Request:
    """One request. ``path`` is decoded, ``query`` the last value of each key, ``headers`` have lower-case names."""

    def __init__(self, connection: Connection, method: str, target: str, headers: dict[str, str]) -> None:
        self.connection = connection
        self.method = method
        path, _, query = target.partition("?")
        self.path = unquote(path)
        pairs = parse_qsl(query, keep_blank_values=True)
        self.query = dict(pairs)
        self.query_lists: dict[str, list[str]] = {}
        for key, value in pairs:
            self.query_lists.setdefault(key, []).append(value)
        self.headers = headers
        self.keep_alive = True  # the client wants to ask more on this connection
        self.version = ""  # "1.47" of /v1.47/..., "" without one
        self.params: dict[str, str] = {}
        self._parts: deque[bytes] = deque()
        self._waiting = 0
        self._complete = False
        self._arrived = asyncio.Event()

    # -- what the connection calls

    def feed(self, part: bytes) -> None:
        self._parts.append(part)
        self._waiting += len(part)
        if self._waiting > HIGH_WATER:
            self.connection.pause()
        self._arrived.set()

    def complete(self) -> None:
        self._complete = True
        self._arrived.set()

    # -- what handlers call

    async def body(self) -> AsyncIterator[bytes]:
        """The body's parts as they arrive."""
        self.connection.invite_body(self)
        while True:
            while self._parts:
                part = self._parts.popleft()
                self._waiting -= len(part)
                if self._waiting < HIGH_WATER:
                    self.connection.resume()
                yield part
            if self._complete:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def read(self, limit: int = 16 * 1024 * 1024) -> bytes:
        """The whole body; raises InvalidArgument when it is longer than ``limit`` bytes."""
        found = bytearray()
        async for part in self.body():
            found += part
            if len(found) > limit:
                raise InvalidArgument(f"request body is longer than {limit} bytes")
        return bytes(found)

    async def json(self) -> dict[str, object]:
        """The body as a JSON object, {} when empty; raises InvalidArgument that says where it is broken."""
        data = await self.read()
        if not data.strip():
            return {}
        try:
            value = msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise InvalidArgument(f"request body of {self.method} {self.path} is not valid JSON: {error}") from error
        if not isinstance(value, dict):
            raise InvalidArgument(
                f"request body of {self.method} {self.path} must be a JSON object, not {type(value).__name__}"
            )
        return value

    def flag(self, name: str, otherwise: bool = False) -> bool:
        """A boolean query parameter, as the Engine reads them: anything but "", 0, no, false, none is true."""
        value = self.query.get(name)
        if value is None:
            return otherwise
        return value.strip().lower() not in ("", "0", "no", "false", "none")

    def number(self, name: str, otherwise: int) -> int:
        """A whole-number query parameter; raises InvalidArgument for anything else."""
        value = self.query.get(name, "")
        if value == "":
            return otherwise
        try:
            return int(value)
        except ValueError:
            raise InvalidArgument(f"query parameter {name}={value!r} must be a whole number") from None

    def stream(self, content_type: str = "application/json", status: int = 200) -> StreamResponse:
        """Answer with a chunked body that is written as it comes; headers go out at once."""
        return StreamResponse(self.connection, status, content_type, self.method == "HEAD")

    async def send_parts(self, status: int, headers: dict[str, str], parts: AsyncIterator[bytes]) -> None:
        """Answer with a body whose ``Content-Length`` the headers give, as it comes; the client's pace is kept.

        A body that breaks off ends the connection: its length tells the client.
        """
        connection = self.connection
        connection.send_head(status, headers, close=not connection.keep_alive)
        if self.method == "HEAD":
            return
        try:
            async for part in parts:
                connection.send(part)
                await connection.drained()
        except BoxshipError:
            log.exception("%s %s", self.method, self.path)
            connection.keep_alive = False

    def hijack(self, content_type: str) -> Stream:
        """Take the connection over; 101 when the client asked for an upgrade, else 200 (as dockerd)."""
        return self.connection.hijack(self, content_type)


class Response:
    """A whole answer."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, status: int = 200, body: bytes = b"", content_type: str = "", headers: dict[str, str] | None = None
    ) -> None:
        self.status = status
        self.body = body
        self.headers = dict(headers or {})
        if content_type:
            self.headers["Content-Type"] = content_type


def json_response(value: object, status: int = 200) -> Response:
    """``value`` as JSON with the newline that dockerd ends its documents with."""
    return Response(status, _encode(value) + b"\n", "application/json")


def encode_json(value: object) -> bytes:
    """``value`` as compact JSON."""
    return _encode(value)


ErrorForm = Callable[[BoxshipError], Response]


def engine_error(error: BoxshipError) -> Response:
    """How the Engine API says that something went wrong."""
    return json_response({"message": str(error)}, status_of(error))


class StreamResponse:
    """A chunked answer: ``await write(...)`` as often as needed; leaving the ``async with`` ends it."""

    def __init__(self, connection: Connection, status: int, content_type: str, head_only: bool) -> None:
        self._connection = connection
        self._head_only = head_only
        headers = {"Content-Type": content_type} if content_type else {}
        connection.send_head(status, {**headers, "Transfer-Encoding": "chunked"})

    async def write(self, data: bytes) -> None:
        """Send one chunk and wait until the client keeps up."""
        if data and not self._head_only:
            self._connection.send(b"%x\r\n%b\r\n" % (len(data), data))
            await self._connection.drained()

    async def write_json(self, value: object, end: bytes = b"\n") -> None:
        await self.write(_encode(value) + end)

    async def __aenter__(self) -> StreamResponse:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            if not self._head_only:
                self._connection.send(b"0\r\n\r\n")
        else:
            # Headers are out: the only honest sign of failure left is a body without its end.
            self._connection.keep_alive = False


class Stream:
    """A hijacked connection. Input ends with ``b""``; ``close`` ends our side, and with it the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._parts: deque[bytes] = deque()
        self._waiting = 0
        self._ended = False
        self._arrived = asyncio.Event()
        self.gone = asyncio.Event()  # the client closed both ways, or the connection broke

    def feed(self, data: bytes) -> None:
        self._parts.append(data)
        self._waiting += len(data)
        if self._waiting > HIGH_WATER:
            self._connection.pause()
        self._arrived.set()

    def end(self) -> None:
        self._ended = True
        self._arrived.set()

    async def read(self) -> bytes:
        """The next bytes of the client, ``b""`` when it closed its side."""
        while not self._parts:
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        part = self._parts.popleft()
        self._waiting -= len(part)
        if self._waiting < HIGH_WATER:
            self._connection.resume()
        return part

    async def write(self, data: bytes) -> None:
        """Send bytes; raises ConnectionResetError when the client is gone."""
        if self.gone.is_set():
            raise ConnectionResetError("the client closed the stream")
        self._connection.send(data)
        await self._connection.drained()

    def close(self) -> None:
        self._connection.close()
