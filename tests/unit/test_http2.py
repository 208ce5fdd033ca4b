"""HTTP/2 and HPACK without I/O, and gRPC on top of them against grpcio's client."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from boxship.api.containerd import events
from boxship.api.containerd import namespaces as api
from boxship.containerd.http2 import frames, hpack
from boxship.containerd.http2.frames import Connection, Received, Request, Reset, frame
from boxship.containerd.http2.server import GrpcServer
from boxship.errors import NotFound, PeerError
from boxship.protobuf import Empty, Message

# RFC 7541, appendix C: the examples with their dynamic table, plain (C.3) and Huffman-coded (C.4).
C3 = ["828684410f7777772e6578616d706c652e636f6d", "828684be58086e6f2d6361636865",
      "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565"]  # fmt: skip
C4 = ["828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf",
      "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"]  # fmt: skip
AUTHORITY = (":authority", "www.example.com")
GET, HTTP, HTTPS, ROOT = (":method", "GET"), (":scheme", "http"), (":scheme", "https"), (":path", "/")
EXPECTED = [
    [GET, HTTP, ROOT, AUTHORITY],
    [GET, HTTP, ROOT, AUTHORITY, ("cache-control", "no-cache")],
    [GET, HTTPS, (":path", "/index.html"), AUTHORITY, ("custom-key", "custom-value")],
]


@pytest.mark.parametrize("blocks", [C3, C4])
def test_the_examples_of_the_rfc_are_decoded_in_order(blocks: "list[str]") -> None:
    decoder = hpack.Decoder()
    assert [decoder.decode(bytes.fromhex(block)) for block in blocks] == EXPECTED


def test_the_dynamic_table_evicts_what_does_not_fit() -> None:
    decoder = hpack.Decoder()
    big = b"\x40" + b"\x01a" + b"\x7f\xa1\x1e" + b"v" * 4000  # 127 + 3873 = 4000 bytes of value
    assert decoder.decode(big) == [("a", "v" * 4000)]
    assert decoder.decode(b"\xbe") == [("a", "v" * 4000)]
    decoder.decode(b"\x40\x01b" + b"\x01w")
    decoder.decode(b"\x40\x01c" + b"\x7f\x00" + b"x" * 127)
    with pytest.raises(PeerError, match="no header"):
        decoder.decode(b"\xc0")
    decoder.decode(b"\x20")
    with pytest.raises(PeerError, match="no header"):
        decoder.decode(b"\xbe")


@pytest.mark.parametrize(
    "block",
    ["80", "ff", "ffffffffff7f", "40", "4085", "4001", "0085ffffffffff00", "3fe21f", "4003612d", "be"],
)
def test_a_damaged_header_block_is_the_peers_fault(block: str) -> None:
    with pytest.raises(PeerError):
        hpack.Decoder().decode(bytes.fromhex(block))


def test_what_we_encode_we_decode() -> None:
    for value in ("", "x" * 126, "x" * 127, "x" * 128, "y" * 5000, "é\udcff"):
        assert hpack.Decoder().decode(hpack.literal("name", value)) == [("name", value)]


HEADERS = bytes.fromhex(C3[0])


def opened(window: int = 1 << 20) -> Connection:
    """A connection whose client has said hello, and given room."""
    connection = Connection()
    hello = frame(frames.SETTINGS, 0, 0, struct.pack(">HI", 4, window))
    assert connection.receive(frames.PREFACE + hello) == []
    connection.take_output()
    return connection


def parsed(data: bytes) -> "list[tuple[int, int, int, bytes]]":
    """(type, flags, stream, payload) of each frame."""
    found = []
    while data:
        length = int.from_bytes(data[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", data[3:9])
        found.append((kind, flags, stream, data[9 : 9 + length]))
        data = data[9 + length :]
    return found


CONVERSATION = (
    frames.PREFACE
    + frame(frames.SETTINGS, 0, 0)
    + frame(frames.HEADERS, 0, 1, HEADERS[:5])
    + frame(frames.CONTINUATION, frames.END_HEADERS, 1, HEADERS[5:])
    + frame(frames.DATA, frames.PADDED, 1, b"\x02abc\0\0")
    + frame(0x77, 0, 0, b"unknown kinds are ignored")
    + frame(frames.PING, 0, 0, b"12345678")
    + frame(frames.DATA, frames.END_STREAM, 1, b"def")
    + frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM | frames.WITH_PRIORITY, 3, b"\0\0\0\0\1" + b"\x82")
    + frame(frames.RST_STREAM, 0, 3, struct.pack(">I", frames.CANCEL))
)
EVENTS = [
    Request(1, EXPECTED[0], ended=False),
    Received(1, b"abc", ended=False),
    Received(1, b"def", ended=True),
    Request(3, [GET], ended=True),
    Reset(3),
]


def test_a_conversation_gives_its_events_also_when_it_comes_byte_by_byte() -> None:
    assert Connection().receive(CONVERSATION) == EVENTS
    connection = Connection()
    found = [event for byte in CONVERSATION for event in connection.receive(bytes((byte,)))]
    assert found == EVENTS
    assert (frames.PING, frames.ACK, 0, b"12345678") in parsed(connection.take_output())


def test_an_answer_is_headers_data_and_trailers_and_stops_a_client_that_still_sends() -> None:
    connection = opened()
    connection.receive(frame(frames.HEADERS, frames.END_HEADERS, 1, HEADERS))
    connection.send_headers(1, b"\x88")
    connection.send_data(1, b"body")
    connection.end(1, b"\x89")
    assert parsed(connection.take_output()) == [
        (frames.HEADERS, frames.END_HEADERS, 1, b"\x88"),
        (frames.DATA, 0, 1, b"body"),
        (frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, b"\x89"),
        (frames.RST_STREAM, 0, 1, struct.pack(">I", frames.NO_ERROR)),
    ]
    assert connection.receive(frame(frames.DATA, frames.END_STREAM, 1, b"late")) == []


def test_data_waits_for_the_stream_and_the_connection_to_have_room() -> None:
    connection = opened(window=10)
    connection.receive(frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, HEADERS))
    connection.send_data(1, b"x" * 25)
    connection.end(1, b"\x88")
    assert connection.waiting(1)
    assert parsed(connection.take_output()) == [(frames.DATA, 0, 1, b"x" * 10)]
    connection.receive(frame(frames.WINDOW_UPDATE, 0, 1, struct.pack(">I", 5)))
    assert parsed(connection.take_output()) == [(frames.DATA, 0, 1, b"x" * 5)]
    connection.receive(frame(frames.SETTINGS, 0, 0, struct.pack(">HI", 4, 30)))
    sent = parsed(connection.take_output())
    assert [one[0] for one in sent] == [frames.SETTINGS, frames.DATA, frames.HEADERS]
    assert not connection.waiting(1)


def test_a_large_body_is_cut_into_frames_and_held_by_the_connections_window() -> None:
    connection = opened()
    connection.receive(frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, HEADERS))
    connection.send_data(1, bytes(100_000))
    sizes = [len(one[3]) for one in parsed(connection.take_output())]
    assert max(sizes) == frames.FRAME_LIMIT
    assert sum(sizes) == frames.DEFAULT_WINDOW
    connection.receive(frame(frames.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 20)))
    assert sum(len(one[3]) for one in parsed(connection.take_output())) == 100_000 - frames.DEFAULT_WINDOW


def test_a_clients_window_is_given_back_when_its_data_is_used() -> None:
    connection = opened()
    connection.receive(frame(frames.HEADERS, frames.END_HEADERS, 1, HEADERS))
    connection.receive(frame(frames.DATA, 0, 1, bytes(1000)))
    assert connection.take_output() == b""
    connection.consumed(1)
    assert parsed(connection.take_output()) == [(frames.WINDOW_UPDATE, 0, 1, struct.pack(">I", 1000))]


HOSTILE = {
    "no preface": b"GET / HTTP/1.1\r\n\r\n" + bytes(20),
    "a frame that is too large": frames.PREFACE + b"\x00\x40\x01\x00\x00\x00\x00\x00\x01",
    "data on an idle stream": frames.PREFACE + frame(frames.DATA, 0, 1, b"x"),
    "data on stream 0": frames.PREFACE + frame(frames.DATA, 0, 0, b"x"),
    "an even stream": frames.PREFACE + frame(frames.HEADERS, frames.END_HEADERS, 2, b"\x82"),
    "an interrupted header block": frames.PREFACE + frame(frames.HEADERS, 0, 1, b"\x82")
    + frame(frames.PING, 0, 0, bytes(8)),
    "a continuation of nothing": frames.PREFACE + frame(frames.CONTINUATION, 4, 1, b"\x82"),
    "endless continuations": frames.PREFACE + frame(frames.HEADERS, 0, 1, b"\x82")
    + frame(frames.CONTINUATION, 0, 1, b"\x82" * 16000) * 5,
    "a push": frames.PREFACE + frame(frames.PUSH_PROMISE, 4, 1, bytes(8)),
    "a short ping": frames.PREFACE + frame(frames.PING, 0, 0, b"1234"),
    "settings of a wrong size": frames.PREFACE + frame(frames.SETTINGS, 0, 0, b"12345"),
    "a window that overflows": frames.PREFACE + frame(frames.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
    "padding longer than the frame": frames.PREFACE + frame(frames.HEADERS, frames.END_HEADERS, 1, b"\x82")
    + frame(frames.DATA, frames.PADDED, 1, b"\x09abc"),
    "a bad header block": frames.PREFACE + frame(frames.HEADERS, frames.END_HEADERS, 1, b"\x80"),
    "data after the end": frames.PREFACE + frame(frames.HEADERS, 5, 1, b"\x82") + frame(frames.DATA, 0, 1, b"x"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_peer_that_breaks_the_protocol_gets_a_goaway(name: str) -> None:
    connection = Connection()
    with pytest.raises(PeerError):
        connection.receive(HOSTILE[name])
    last = parsed(connection.take_output())[-1]
    assert last[0] == frames.GOAWAY
    assert last[3][4:8] == struct.pack(">I", frames.PROTOCOL_ERROR)


# -- gRPC


class Namespaces:
    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    async def Get(self, request: api.GetNamespaceRequest) -> api.GetNamespaceResponse:
        match request.name:
            case "missing":
                raise NotFound("50% of it: é")
            case "bug":
                raise ZeroDivisionError("oops")
            case "slow":
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
        return api.GetNamespaceResponse(namespace=api.Namespace(name=request.name * 3))


class Events:
    async def Subscribe(self, request: Message) -> AsyncIterator[api.Namespace]:
        for number in range(50):
            yield api.Namespace(name=f"{number}" * 10_000)


class Echo:
    async def Version(self, requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
        async for request in requests:
            yield request


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator["tuple[grpc.aio.Channel, Namespaces]"]:
    namespaces = Namespaces()
    echo = type("Bidi", (), {"path": "/test/Echo", "client_streaming": True, "server_streaming": True,
                             "request": api.Namespace, "response": api.Namespace})()  # fmt: skip
    server = GrpcServer(
        {
            "/test/Get": (api.Namespaces.methods["Get"], namespaces.Get),
            "/test/Many": (events.Events.methods["Subscribe"], Events().Subscribe),
            "/test/Echo": (echo, Echo().Version),
        },
        lambda metadata: None,
        message_limit=1 << 20,
    )
    await server.listen(str(tmp_path / "s"))
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s", options=[("grpc.default_authority", "x")]) as channel:
        yield channel, namespaces
    await server.close()
    await server.close()


Served = "tuple[grpc.aio.Channel, Namespaces]"


async def get(served: Served, name: str, timeout: float = 5) -> str:
    call = served[0].unary_unary("/test/Get", Message.encode, api.GetNamespaceResponse.decode)
    response = await call(api.GetNamespaceRequest(name=name), timeout=timeout)
    return str(response.namespace.name)


async def test_a_unary_call_is_answered_also_when_it_is_larger_than_every_window(served: Served) -> None:
    assert await get(served, "a") == "aaa"
    assert await get(served, "b" * 300_000) == "b" * 900_000


@pytest.mark.parametrize(
    ("name", "code", "details"),
    [("missing", grpc.StatusCode.NOT_FOUND, "50% of it: é"),
     ("bug", grpc.StatusCode.INTERNAL, "ZeroDivisionError: oops"),
     ("x" * (1 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED, "message of")],
)  # fmt: skip
async def test_an_error_becomes_its_status(served: Served, name: str, code: grpc.StatusCode, details: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await get(served, name)
    assert caught.value.code() is code
    assert details in (caught.value.details() or "")
    assert await get(served, "after") == "after" * 3


async def test_an_unknown_method_is_unimplemented(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served[0].unary_unary("/test/Nothing")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_ends_the_call_on_both_sides(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await get(served, "slow", timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(served[1].cancelled.wait(), 5)


async def test_a_client_that_gives_up_cancels_the_call(served: Served) -> None:
    task = asyncio.ensure_future(get(served, "slow", timeout=30))
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.wait_for(served[1].cancelled.wait(), 5)


async def test_many_calls_share_one_connection(served: Served) -> None:
    assert await asyncio.gather(*(get(served, f"{n}") for n in range(200))) == [f"{n}" * 3 for n in range(200)]


async def test_a_stream_of_responses_arrives_whole(served: Served) -> None:
    call = served[0].unary_stream("/test/Many", Message.encode, api.Namespace.decode)
    names = [item.name async for item in call(Empty())]
    assert names == [f"{number}" * 10_000 for number in range(50)]


async def test_streams_both_ways_alternate(served: Served) -> None:
    call = served[0].stream_stream("/test/Echo", Message.encode, api.Namespace.decode)()
    for number in range(20):
        await call.write(api.Namespace(name=f"{number}" * 20_000))
        assert (await call.read()).name == f"{number}" * 20_000
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_client_that_breaks_the_protocol_is_dropped_and_others_go_on(served: Served, tmp_path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    writer.write(HOSTILE["data on an idle stream"])
    assert parsed(await asyncio.wait_for(reader.read(), 5))[-1][0] == frames.GOAWAY
    writer.close()
    assert await get(served, "fine") == "fine" * 3
    with socket.socket(socket.AF_UNIX) as rude:
        rude.connect(str(tmp_path / "s"))
    assert await get(served, "fine") == "fine" * 3
