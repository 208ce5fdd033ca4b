"""The engine's HTTP: requests in any segmentation, bodies, pipelining, hijack and half-close."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from boxship.engine.router import Router
from boxship.errors import FailedPrecondition, NotFound
from boxship.http.messages import Request, Response, json_response
from boxship.http.protocol import Connection

Handler = Callable[[Request], Awaitable[Response | None]]


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.closed = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def talk(handler: Handler, *segments: bytes) -> tuple[Wire, Connection]:
    wire = Wire()
    connection = Connection(handler, "Server: test")
    connection.connection_made(wire)
    for segment in segments:
        connection.data_received(segment)
        await settle()
    await settle()
    return wire, connection


async def echo(request: Request) -> Response:
    body = await request.read()
    return json_response(
        {"method": request.method, "path": request.path, "query": request.query, "body": body.decode()}
    )


REQUESTS = [
    (b"GET /a%20b?x=1&y=%2F&z HTTP/1.1\r\nHost: h\r\n\r\n", b'"path":"/a b","query":{"x":"1","y":"/","z":""}'),
    (b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", b'"body":"hello"'),
    (
        b"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b'"body":"hello"',
    ),
    (b"DELETE /d HTTP/1.1\r\nHost: h\r\n\r\n", b'"method":"DELETE"'),
    # an upgrade that the handler does not take: its body is still its body
    (
        b"POST /p HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
        b'"body":"hi"',
    ),
]


@pytest.mark.parametrize(("data", "expected"), REQUESTS)
@pytest.mark.parametrize("step", [1, 7, 100000])
async def test_a_request_in_any_segmentation(data: bytes, expected: bytes, step: int) -> None:
    segments = [data[i : i + step] for i in range(0, len(data), step)]
    wire, _ = await talk(echo, *segments)
    assert wire.sent.startswith(b"HTTP/1.1 200 OK\r\nServer: test\r\n")
    assert expected in wire.sent
    assert not wire.closed


async def test_pipelined_requests_are_answered_in_order() -> None:
    wire, _ = await talk(echo, b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert wire.sent.index(b'"/1"') < wire.sent.index(b'"/2"')


async def test_after_a_declined_upgrade_the_connection_goes_on() -> None:
    first = b"GET /1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    wire, _ = await talk(echo, first + b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b'"/1"' in wire.sent
    assert b'"/2"' in wire.sent


async def test_head_has_the_length_and_no_body() -> None:
    wire, _ = await talk(echo, b"HEAD /_ping HTTP/1.1\r\nHost: h\r\n\r\n")
    head, _, body = bytes(wire.sent).partition(b"\r\n\r\n")
    assert b"Content-Length: " in head
    assert body == b""


async def test_errors_become_statuses_with_a_message() -> None:
    async def missing(request: Request) -> Response:
        raise NotFound("No such container: x")

    wire, _ = await talk(missing, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert wire.sent.startswith(b"HTTP/1.1 404 Not Found")
    assert wire.sent.endswith(b'{"message":"No such container: x"}\n')


async def test_a_client_that_expects_100_is_told_once_the_body_is_wanted() -> None:
    head = b"POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    wire, connection = await talk(echo, head)
    assert bytes(wire.sent) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.data_received(b"ok")
    await settle()
    assert b'"body":"ok"' in wire.sent


async def test_a_body_that_nobody_reads_stops_the_reading() -> None:
    release = asyncio.Event()

    async def slow(request: Request) -> Response:
        await release.wait()
        return json_response(len(await request.read(limit=1 << 22)))

    size = 1 << 20
    wire, connection = await talk(
        slow, b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size, bytes(size)
    )
    assert not wire.reading
    release.set()
    await settle()
    assert wire.reading
    assert str(size).encode() in wire.sent
    assert connection.keep_alive


class Streams:
    """A handler that hijacks, and shows what came."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.ended = False
        self.proceed = asyncio.Event()

    async def __call__(self, request: Request) -> None:
        body = await request.read()
        stream = request.hijack("application/vnd.docker.raw-stream")
        await stream.write(b"[" + body + b"]")
        while data := await stream.read():
            self.got += data
        self.ended = True
        await self.proceed.wait()
        await stream.write(b"after the end of input")


UPGRADE = b"POST /attach HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"


@pytest.mark.parametrize("step", [1, 50, 100000])
async def test_bytes_in_the_segment_of_the_headers_reach_the_stream(step: int) -> None:
    handler = Streams()
    data = UPGRADE + b"Content-Length: 2\r\n\r\n{}early bytes"
    wire, _ = await talk(handler, *[data[i : i + step] for i in range(0, len(data), step)])
    assert wire.sent.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    assert b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n[{}]" in wire.sent
    assert bytes(handler.got) == b"early bytes"


async def test_the_clients_fin_ends_input_and_not_output() -> None:
    handler = Streams()
    wire, connection = await talk(handler, UPGRADE + b"\r\n")
    assert connection.eof_received() is True
    await settle()
    assert handler.ended
    assert not wire.closed
    handler.proceed.set()
    await settle()
    assert wire.sent.endswith(b"after the end of input")
    assert wire.closed


async def test_a_fin_before_the_switch_does_not_close_our_side() -> None:
    handler = Streams()
    handler.proceed.set()
    wire = Wire()
    connection = Connection(handler, "Server: test")
    connection.connection_made(wire)
    connection.data_received(UPGRADE + b"\r\n")
    assert connection.eof_received() is True
    await settle()
    assert wire.sent.endswith(b"after the end of input")


async def test_without_an_upgrade_a_hijack_answers_200() -> None:
    wire, _ = await talk(Streams(), b"POST /attach HTTP/1.1\r\nHost: h\r\n\r\n")
    assert wire.sent.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_client_that_goes_away_cancels_its_handler() -> None:
    cancelled = asyncio.Event()

    async def forever(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Response()

    _, connection = await talk(forever, b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
    connection.connection_lost(None)
    await settle()
    assert cancelled.is_set()


async def test_a_stream_that_fails_midway_has_no_proper_end() -> None:
    async def broken(request: Request) -> None:
        async with request.stream() as out:
            await out.write(b"part")
            raise NotFound("gone midway")

    wire, _ = await talk(broken, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert wire.sent.endswith(b"4\r\npart\r\n")
    assert wire.closed


async def test_routes_match_names_with_slashes_and_versions() -> None:
    async def image(request: Request) -> Response:
        return json_response([request.params["name"], request.version])

    router = Router([[("GET", "/images/{name*}/json", image)]])
    wire, _ = await talk(router, b"GET /v1.41/images/a/b:1/json HTTP/1.1\r\nHost: h\r\n\r\n")
    assert wire.sent.endswith(b'["a/b:1","1.41"]\n')


async def test_a_request_that_keeps_the_connection_is_not_closed_for_the_next_one_that_does_not() -> None:
    first, last = b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    wire, _ = await talk(echo, first + last)
    one, two = bytes(wire.sent).split(b"HTTP/1.1 ")[1:]
    assert b'"path":"/1"' in one
    assert b"Connection: close" not in one
    assert b'"path":"/2"' in two
    assert b"Connection: close" in two
    assert wire.closed


async def test_too_long_headers_are_refused_by_name() -> None:
    wire, _ = await talk(echo, b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n")
    assert wire.sent.startswith(b"HTTP/1.1 431 ")
    assert wire.closed


async def test_not_modified_has_no_body_that_would_be_taken_for_the_next_answer() -> None:
    class NotModified(FailedPrecondition):
        http_status = 304

    async def refuse(request: Request) -> Response | None:
        raise NotModified("it runs already")

    wire, _ = await talk(refuse, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
    head, _, body = bytes(wire.sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 304 ")
    assert b"Content-" not in head
    assert body == b""
