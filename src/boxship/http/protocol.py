"""HTTP/1.1 for the Engine API and the registry: a small asyncio Protocol that owns its transport.

Why not a web framework: hijacking and half-close are the point of the Engine API.
``attach`` and ``exec`` take the connection over: bytes that came in the same segment as the request's headers
belong to the stream, a client's FIN ends its input and not our output, and each side closes on its own.

A connection handles one request at a time; the lifecycle of one::

    headers ──► Request ──► handler task ──► Response          (whole, Content-Length)
                  │ body parts as they come  StreamResponse    (chunked, as long as the handler writes)
                  │                          Stream            (hijacked: raw bytes both ways)
                  └─ the client goes away: the handler task is cancelled

A client that closes its sending side of a plain request counts as gone, as it does for Go's server.
A hijacked stream is different: there it only ends the input.

What an error looks like is the program's: it gives an ``ErrorForm``, docker's ``{"message": ...}`` by default.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

import httptools

from boxship.errors import BoxshipError, Internal

from .messages import ErrorForm, MalformedRequest, Request, Response, Stream, engine_error

log = logging.getLogger("boxship.http")

MAX_HEAD = 64 * 1024  # a request line and headers longer than this are an attack or a mistake

REASONS = {
    100: "Continue", 101: "UPGRADED", 200: "OK", 201: "Created", 202: "Accepted", 204: "No Content",
    206: "Partial Content", 304: "Not Modified", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable", 409: "Conflict", 412: "Precondition Failed",
    413: "Request Entity Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 499: "Client Closed Request", 500: "Internal Server Error",
    501: "Not Implemented", 503: "Service Unavailable", 504: "Gateway Timeout", 507: "Insufficient Storage",
}  # fmt: skip

Handler = Callable[[Request], Awaitable[Response | None]]


class Connection(asyncio.Protocol):
    """One client connection; see the module for the lifecycle."""

    def __init__(self, handle: Handler, server_header: str, error_form: ErrorForm = engine_error) -> None:
        self._handle = handle
        self._error_form = error_form
        self._server_header = server_header
        self._transport: asyncio.Transport | None = None
        self._queue: deque[Request] = deque()
        self._receiving: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._stream: Stream | None = None
        self._undecided = False  # the client offered an upgrade, the handler has not answered yet
        self._paused = False
        self._writable = asyncio.Event()
        self._writable.set()
        self.keep_alive = True
        self._head_sent = False
        self._expects_continue: Request | None = None
        self._upgrade_body = 0  # bytes of a request body that follow an upgrade request's headers
        self._new_parser()

    # -- parsing

    def _new_parser(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: dict[str, str] = {}
        self._head_size = 0

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        self._count(len(name) + len(value))

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD:
            raise MalformedRequest(f"request line and headers are longer than {MAX_HEAD} bytes", 431)

    def on_headers_complete(self) -> None:
        method = self._parser.get_method().decode("latin-1")
        request = Request(self, method, self._target.decode("latin-1"), self._headers)
        self._receiving = request
        if self._headers.get("expect", "").lower() == "100-continue":
            self._expects_continue = request
        request.keep_alive = self._parser.should_keep_alive()
        self._target, self._headers, self._head_size = b"", {}, 0
        self._queue.append(request)
        self._next()

    def on_body(self, body: bytes) -> None:
        if self._receiving is not None:
            self._receiving.feed(body)

    def on_message_complete(self) -> None:
        if self._receiving is not None and not self._parser.should_upgrade():
            self._receiving.complete()
            self._receiving = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its base class
        self._transport.set_write_buffer_limits(high=1 << 20)

    def data_received(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.feed(data)
            return
        if self._upgrade_body:
            self._feed_upgrade_body(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, MalformedRequest):  # raised in a callback of ours, wrapped by the parser
                self._refuse(error.__context__)
            else:
                self._refuse(MalformedRequest(f"malformed HTTP request: {error}"))

    def _upgraded(self, rest: bytes) -> None:
        """The parser stops at an upgrade request's headers; its body, if any, is still ours to read."""
        request = self._receiving
        if request is None:
            return
        if request.headers.get("transfer-encoding"):
            self._refuse(MalformedRequest("an upgrade request must have a Content-Length, not a chunked body"))
            return
        try:
            self._upgrade_body = int(request.headers.get("content-length", "0"))
        except ValueError:
            self._refuse(MalformedRequest("malformed Content-Length"))
            return
        self._new_parser()
        if self._upgrade_body:
            self._feed_upgrade_body(rest)
        else:
            self._receiving = None
            request.complete()
            self._after_upgrade(rest)

    def _feed_upgrade_body(self, data: bytes) -> None:
        request = self._receiving
        if request is None:
            return
        part, rest = data[: self._upgrade_body], data[self._upgrade_body :]
        if part:
            request.feed(part)
        self._upgrade_body -= len(part)
        if not self._upgrade_body:
            self._receiving = None
            request.complete()
            self._after_upgrade(rest)

    def _after_upgrade(self, rest: bytes) -> None:
        """Bytes after an upgrade request are kept as a stream until the handler decides: hijack, or plain HTTP."""
        if self._stream is None:
            self._stream = Stream(self)
            self._undecided = True
        if rest:
            self._stream.feed(rest)

    def eof_received(self) -> bool:
        if self._stream is not None:
            self._stream.end()
            return True  # our side stays open
        if self._task is not None:
            self._task.cancel()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._writable.set()
        if self._stream is not None:
            self._stream.end()
            self._stream.gone.set()
        if self._task is not None and (self._stream is None or self._undecided):
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- serving

    def _next(self) -> None:
        if self._task is None and self._queue:
            self._task = asyncio.get_running_loop().create_task(self._serve(self._queue.popleft()))

    async def _serve(self, request: Request) -> None:
        self._head_sent = False
        self.keep_alive = request.keep_alive
        try:
            response = await self._handle(request)
            if response is not None:
                self._send_response(request, response)
        except BoxshipError as error:
            self._fail(request, error)
        except ConnectionError:
            self.keep_alive = False  # the client went away while we wrote to it
        except asyncio.CancelledError:
            self.close()
            return
        except Exception as error:
            log.exception("%s %s", request.method, request.path)
            self._fail(request, Internal(f"internal error in {request.method} {request.path}: {error!r}"))
        if self._stream is not None and not self._undecided:
            self.close()
            return
        if self._expects_continue is request:
            self._expects_continue = None
        else:
            async for _ in request.body():
                pass  # what the handler left unread stands before the next request
        self._task = None
        if not self.keep_alive:
            self.close()
            return
        if self._undecided and self._stream is not None:
            # The client offered an upgrade and the handler answered plainly: go on with HTTP.
            waiting, self._stream, self._undecided = self._stream, None, False
            while waiting._parts:
                self.data_received(waiting._parts.popleft())
        self._next()

    def _fail(self, request: Request, error: BoxshipError) -> None:
        if self._head_sent:
            self.keep_alive = False
            return
        self._send_response(request, self._error_form(error))

    def _refuse(self, error: MalformedRequest) -> None:
        answer = self._error_form(error)
        self.send_head(answer.status, {**answer.headers, "Content-Length": str(len(answer.body))}, close=True)
        self.send(answer.body)
        self.close()

    def _send_response(self, request: Request, response: Response) -> None:
        if self._expects_continue is request:
            self.keep_alive = False  # it waits for a word to send its body, and is answered without it
        headers, body = response.headers, response.body
        if response.status in (204, 304):
            body = b""  # these end with their headers (RFC 9110, 6.4.1): a client would take it for the next answer
            headers.pop("Content-Type", None)
        elif "Content-Length" not in headers:
            headers["Content-Length"] = str(len(body))
        self.send_head(response.status, headers, close=not self.keep_alive)
        if request.method != "HEAD" and body:
            self.send(body)

    # -- what requests and streams call

    def send_head(self, status: int, headers: dict[str, str], close: bool = False) -> None:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}", self._server_header]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if close:
            lines.append("Connection: close")
        self._head_sent = True
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drained(self) -> None:
        if not self._writable.is_set():
            await self._writable.wait()
        if self._transport is None:
            raise ConnectionResetError("the client closed the connection")

    def invite_body(self, request: Request) -> None:
        """Send 100 Continue, once, when a handler wants the body of a client that waits for it."""
        if self._expects_continue is request:
            self._expects_continue = None
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def hijack(self, request: Request, content_type: str) -> Stream:
        headers = {"Content-Type": content_type}
        status = 200
        if request.headers.get("upgrade"):
            status = 101
            headers |= {"Connection": "Upgrade", "Upgrade": request.headers["upgrade"]}
        if self._stream is None:
            self._stream = Stream(self)
        self._undecided = False
        self.send_head(status, headers)
        return self._stream

    async def shut(self) -> None:
        """Give up what is being served, and close; returns when its handler has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.close()

    def pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
