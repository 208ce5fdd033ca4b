"""ttrpc: one protocol, its three clients and servers, every stream also one byte at a time."""

from __future__ import annotations

import _socket
import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from boxship.errors import DeadlineExceeded, InvalidArgument, NotFound, PeerError, Unavailable, Unimplemented
from boxship.protobuf import (
    Empty,
    Message,
    Service,
    bidi,
    client_stream,
    repeated,
    server_stream,
    string,
    unary,
)
from boxship.ttrpc import aio
from boxship.ttrpc.blocking import BlockingClient
from boxship.ttrpc.frames import (
    DATA,
    HEADER,
    MAX_PAYLOAD,
    NO_DATA,
    REMOTE_CLOSED,
    REQUEST,
    RESPONSE,
    Frame,
    FrameReader,
    Request,
    Response,
    unix_path,
)
from boxship.ttrpc.loop import Loop
from boxship.ttrpc.server import PendingCall, Server
from boxship.ttrpc.session import Answer, Call, ClientSession, Data, ServerSession


class Text(Message, name="test.Text"):
    text: str = string(1)
    all: list[str] = repeated(2, string)


class Echo(Service, name="test.Echo"):
    Say = unary(Text, Text)
    Lose = unary(Text, Text)
    Later = unary(Text, Text)
    Spell = server_stream(Text, Text)
    Join = client_stream(Text, Text)
    Shout = bidi(Text, Text)
    Missing = unary(Empty, Empty)


# -- frames


def test_a_frame_is_length_stream_type_flags_and_payload() -> None:
    assert Frame(3, REQUEST, 1, b"abc").encode() == b"\0\0\0\x03\0\0\0\x03\x01\x01abc"


def frames() -> list[Frame]:
    return [
        Frame(1, REQUEST, 0, b"hello"),
        Frame(1, RESPONSE, 0, b""),
        Frame(5, DATA, REMOTE_CLOSED | NO_DATA, b""),
        Frame(7, DATA, 0, bytes(70000)),
    ]


@pytest.mark.parametrize("step", [1, 7, 10, 1 << 20])
def test_frames_come_out_whole_whatever_the_pieces(step: int) -> None:
    stream = b"".join(frame.encode() for frame in frames())
    reader = FrameReader()
    seen = [f for at in range(0, len(stream), step) for f in reader.feed(stream[at : at + step])]
    reader.end()
    assert [frame.encode() for frame in seen] == [frame.encode() for frame in frames()]


def test_an_oversized_frame_is_read_over_and_the_next_one_is_whole() -> None:
    reader = FrameReader()
    stream = HEADER.pack(MAX_PAYLOAD + 1, 1, REQUEST, 0) + bytes(MAX_PAYLOAD + 1) + frames()[0].encode()
    seen = [f for at in range(0, len(stream), 99991) for f in reader.feed(stream[at : at + 99991])]
    assert [(f.oversized, f.payload) for f in seen] == [(True, b""), (False, b"hello")]


def test_a_stream_that_ends_in_a_frame_is_the_peers_error() -> None:
    reader = FrameReader()
    reader.feed(frames()[0].encode()[:-1])
    with pytest.raises(PeerError):
        reader.end()


def test_our_own_oversized_message_is_our_callers_error() -> None:
    with pytest.raises(InvalidArgument):
        Frame(1, DATA, 0, bytes(MAX_PAYLOAD + 1)).encode()


def test_addresses() -> None:
    assert unix_path("unix:///run/x.sock") == unix_path("/run/x.sock") == "/run/x.sock"
    assert unix_path("unix://@hidden") == "\0hidden"
    for wrong in ("", "tcp://1.2.3.4:5", "/" + "x" * 200):
        with pytest.raises(InvalidArgument):
            unix_path(wrong)


# -- sessions


def request(stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    data = Request(service="test.Echo", method="Say", payload=payload).encode()
    return Frame(stream, REQUEST, flags, data).encode()


def test_a_call_carries_metadata_and_timeout_through_one_byte_pieces() -> None:
    client, server = ClientSession(), ServerSession()
    stream, data = client.call("s", "m", b"body", timeout_ns=5, metadata={"k": "v"})
    events = [event for at in range(len(data)) for event in server.feed(data[at : at + 1])]
    (call,) = events
    assert isinstance(call, Call)
    assert (call.stream, call.service, call.method, call.payload) == (stream, "s", "m", b"body")
    assert (call.timeout_ns, call.metadata, call.open) == (5, {"k": "v"}, False)
    server.reply(stream, b"answer")
    answers = [a for at in range(len(server.outgoing)) for a in client.feed(server.outgoing[at : at + 1])]
    (answer,) = answers
    assert isinstance(answer, Answer)
    assert (answer.payload, answer.error) == (b"answer", None)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (request(2), "must be odd"),
        (request(3) + request(3), "cannot be re-used"),
        (request(3) + request(1), "must increment"),
        (Frame(1, DATA, 0, b"x").encode(), "no longer active"),
        (Frame(1, REQUEST, 0, b"\xff\xff").encode(), "unmarshal"),
        (HEADER.pack(MAX_PAYLOAD + 1, 1, REQUEST, 0) + bytes(MAX_PAYLOAD + 1), "limit"),
    ],
    ids=["even", "reused", "shrinking", "data without call", "not a request", "oversized"],
)
def test_a_clients_mistake_is_answered_on_its_stream(given: bytes, says: str) -> None:
    server = ServerSession()
    server.feed(given)
    (frame,) = FrameReader().feed(bytes(server.outgoing))
    status = Response.decode(frame.payload).status
    assert frame.type == RESPONSE
    assert status is not None
    assert says in status.message


def test_unknown_frame_types_are_ignored_by_a_server() -> None:
    server = ServerSession()
    assert server.feed(Frame(1, 9, 0, b"?").encode()) == []
    assert not server.outgoing


@pytest.mark.parametrize(
    "given",
    [
        Frame(1, RESPONSE, 0, b"").encode(),
        Frame(2, RESPONSE, 0, b"").encode(),
        Frame(1, REQUEST, 0, b"").encode(),
        HEADER.pack(MAX_PAYLOAD + 1, 1, RESPONSE, 0) + bytes(MAX_PAYLOAD + 1),
    ],
    ids=["never opened", "even", "a request", "oversized"],
)
def test_a_servers_mistake_is_a_peer_error(given: bytes) -> None:
    client = ClientSession()
    if HEADER.unpack_from(given)[2] == REQUEST or len(given) > MAX_PAYLOAD:
        client.call("s", "m", b"")
    with pytest.raises(PeerError):
        client.feed(given)


def test_streams_carry_data_both_ways_until_each_side_says_last() -> None:
    client, server = ClientSession(), ServerSession()
    stream, data = client.call("s", "m", b"", flags=2)
    (call,) = server.feed(data)
    assert isinstance(call, Call)
    assert call.open
    (first,) = server.feed(client.send(stream, b"1"))
    (last,) = server.feed(client.finish(stream))
    assert isinstance(first, Data)
    assert isinstance(last, Data)
    assert (first.payload, first.last, last.payload, last.last) == (b"1", False, None, True)
    server.send(stream, b"2")
    server.finish(stream)
    seen = client.feed(bytes(server.outgoing))
    assert [(e.payload, e.last) for e in seen if isinstance(e, Data)] == [(b"2", False), (None, True)]


# -- the loop


def test_a_broken_callback_is_told_and_the_others_go_on() -> None:
    import os

    loop, told, seen = Loop(), [], []
    broken, kept = os.pipe(), os.pipe()

    def fail(_events: int) -> None:
        raise OSError("broken")

    loop.watch(broken[0], fail)
    loop.watch(kept[0], lambda _events: seen.append(os.read(kept[0], 1)))
    for _, write in (broken, kept):
        os.write(write, b"x")
    with pytest.raises(OSError, match="broken"):
        loop.turn(0)
    loop.on_error = told.append
    loop.later(0, lambda: fail(0))
    for _ in range(3):
        loop.turn(0)
    assert seen == [b"x"]
    assert [str(error) for error in told] == ["broken", "broken"]
    for pair in (broken, kept):
        for fd in pair:
            loop.forget(fd)
            os.close(fd)
    loop.close()


# -- the epoll server and the blocking client


class EpollEcho:
    def __init__(self) -> None:
        self.waiting: list[PendingCall] = []

    def Say(self, request: Text, call: PendingCall) -> Text:
        return Text(text=request.text + call.metadata.get("suffix", ""))

    def Lose(self, request: Text, call: PendingCall) -> Text:
        raise NotFound(f"no {request.text}")

    def Later(self, request: Text, call: PendingCall) -> None:
        self.waiting.append(call)

    def Shout(self, request: Text, call: PendingCall) -> Text:
        raise ZeroDivisionError("oops")


@pytest.fixture
def epoll_server(tmp_path: Path) -> Iterator[tuple[str, EpollEcho, Loop]]:
    path = str(tmp_path / "s.sock")
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(8)
    loop, echo = Loop(), EpollEcho()
    server = Server(loop, listener, {Echo: echo})
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            loop.turn(0.02)

    thread = threading.Thread(target=run)
    thread.start()
    yield path, echo, loop
    stop.set()
    thread.join()
    server.close()
    loop.close()


def test_blocking_client_and_epoll_server(epoll_server: tuple[str, EpollEcho, Loop]) -> None:
    path, _echo, _loop = epoll_server
    with BlockingClient.connect("unix://" + path, metadata={"suffix": "!"}) as client:
        assert client.call(Echo.Say, Text(text="hi")).text == "hi!"
        large = "x" * 3_000_000
        assert client.call(Echo.Say, Text(text=large)).text == large + "!"
        with pytest.raises(NotFound, match="no luck"):
            client.call(Echo.Lose, Text(text="luck"))
        with pytest.raises(Unimplemented):
            client.call(Echo.Missing, Empty())
        with pytest.raises(DeadlineExceeded):
            client.call(Echo.Later, Text(), timeout=0.05)


def test_a_call_is_answered_later_and_a_client_that_left_hurts_nobody(
    epoll_server: tuple[str, EpollEcho, Loop],
) -> None:
    path, echo, loop = epoll_server
    client = BlockingClient.connect(path)
    with pytest.raises(DeadlineExceeded):
        client.call(Echo.Later, Text(), timeout=0.05)
    client.close()
    answered = threading.Event()

    def answer() -> None:
        for call in echo.waiting:
            call.reply(Text(text="late"))
        answered.set()

    loop.later(0.05, answer)
    assert answered.wait(2)
    with BlockingClient.connect(path) as again:
        loop.later(0.05, lambda: echo.waiting[-1].reply(Text(text="now")))
        assert again.call(Echo.Later, Text(), timeout=2).text == "now"


def test_the_peer_is_known_by_the_kernel(epoll_server: tuple[str, EpollEcho, Loop]) -> None:
    import os

    path, echo, _loop = epoll_server
    with BlockingClient.connect(path) as client, pytest.raises(DeadlineExceeded):
        client.call(Echo.Later, Text(), timeout=0.05)
    assert echo.waiting[0].peer == (os.getpid(), os.getuid(), os.getgid())


def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        BlockingClient.connect(str(tmp_path / "none"))


# -- asyncio


class AsyncEcho:
    async def Say(self, request: Text) -> Text:
        return Text(text=request.text + aio.metadata.get().get("suffix", ""))

    async def Lose(self, request: Text) -> Text:
        raise NotFound(f"no {request.text}")

    async def Later(self, request: Text) -> Text:
        await asyncio.sleep(30)
        return Text()

    async def Spell(self, request: Text) -> AsyncIterator[Text]:
        for letter in request.text:
            if letter == "!":
                raise InvalidArgument("no shouting")
            yield Text(text=letter)

    async def Join(self, requests: AsyncIterator[Text]) -> Text:
        return Text(all=[request.text async for request in requests])

    async def Shout(self, requests: AsyncIterator[Text]) -> AsyncIterator[Text]:
        async for request in requests:
            yield Text(text=request.text.upper())


async def words(*texts: str) -> AsyncIterator[Text]:
    for text in texts:
        yield Text(text=text)


async def test_asyncio_client_and_server_do_all_four_kinds(tmp_path: Path) -> None:
    server = await aio.serve(str(tmp_path / "s"), {Echo: AsyncEcho()})
    client = await aio.Client.connect(str(tmp_path / "s"), metadata=lambda: {"suffix": "?"})
    echo = Echo(client)
    assert (await echo.Say(Text(text="hi"))).text == "hi?"
    assert [t.text async for t in echo.Spell(Text(text="abc"))] == ["a", "b", "c"]
    assert (await echo.Join(words("x", "y"))).all == ["x", "y"]
    assert [t.text async for t in echo.Shout(words("x", "y"))] == ["X", "Y"]
    with pytest.raises(NotFound):
        await echo.Lose(Text(text="luck"))
    with pytest.raises(InvalidArgument, match="no shouting"):
        [t async for t in echo.Spell(Text(text="a!"))]
    with pytest.raises(Unimplemented):
        await echo.Missing(Empty())
    with pytest.raises(DeadlineExceeded):
        await echo.Later(Text(), timeout=0.05)
    client.close()
    with pytest.raises(Unavailable):
        await echo.Say(Text())
    await server.close()


async def test_calls_that_wait_fail_when_the_server_goes(tmp_path: Path) -> None:
    server = await aio.serve(str(tmp_path / "s"), {Echo: AsyncEcho()})
    client = await aio.Client.connect(str(tmp_path / "s"))
    waiting = asyncio.ensure_future(Echo(client).Later(Text()))
    await asyncio.sleep(0.05)
    await server.close()
    with pytest.raises(Unavailable):
        await waiting
    await asyncio.wait_for(client.closed.wait(), 2)


async def test_a_server_that_breaks_the_protocol_is_a_peer_error(tmp_path: Path) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(Frame(99, RESPONSE, 0, b"").encode())

    server = await asyncio.start_unix_server(babble, str(tmp_path / "s"))
    client = await aio.Client.connect(str(tmp_path / "s"))
    with pytest.raises(PeerError):
        await Echo(client).Say(Text(), timeout=2)
    server.close()


async def test_the_asyncio_client_speaks_with_the_epoll_server(
    epoll_server: tuple[str, EpollEcho, Loop],
) -> None:
    path, _echo, _loop = epoll_server
    client = await aio.Client.connect(path)
    answers = await asyncio.gather(*[Echo(client).Say(Text(text=str(n))) for n in range(50)])
    assert [answer.text for answer in answers] == [str(n) for n in range(50)]
    client.close()
