"""The HTTP client against servers that answer byte by byte as a test says."""

import base64
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from boxship.http.client import Broken, Client, Unreached, address, speaks_tls, split

Served = Callable[[socket.socket], None]


class Server:
    """Gives each connection to the next of ``served``; keeps what was received of requests' heads."""

    def __init__(self, *served: Served) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        self.heads: list[bytes] = []
        self._served = served
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _run(self) -> None:
        for serve in self._served:
            connected, _ = self.listening.accept()
            with connected:
                serve(connected)

    def head(self, connected: socket.socket) -> bytes:
        """Read a request's head, to its last byte and no further."""
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            byte = connected.recv(1)
            if not byte:
                return data
            data += byte
        self.heads.append(data)
        return data

    def close(self) -> None:
        self._thread.join(10)
        self.listening.close()
        assert not self._thread.is_alive()


def no_tls() -> ssl.SSLContext:
    raise AssertionError("nobody asked for TLS")


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client(no_tls, read=5.0)
    yield client
    client.close()


def answering(*answers: bytes) -> Server:
    """A server that answers the requests of one connection in turn, and then hangs up."""

    def serve(connected: socket.socket) -> None:
        for answer in answers:
            server.head(connected)
            connected.sendall(answer)

    server = Server(serve)
    return server


def test_a_body_by_its_length(client: Client) -> None:
    server = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Thing: a\r\nx-thing: b\r\n\r\nhello")
    answer = client.request("GET", server.url + "/a b?c=d", {"User-Agent": "t"})
    assert (answer.status, answer.headers.get("X-THING"), answer.read()) == (200, "a, b", b"hello")
    assert answer.read() == b""
    answer.close()
    server.close()
    assert server.heads[0].startswith(f"GET /a%20b?c=d HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n".encode())


def test_a_body_in_chunks_with_extensions_and_trailers(client: Client) -> None:
    server = answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;name=value\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    )
    answer = client.request("GET", server.url, {})
    assert [answer.read(2), answer.read(5), answer.read(100), answer.read(1)] == [b"ab", b"c0123", b"456789", b""]
    answer.close()
    again = client.request("GET", server.url, {})  # over the same connection: the server takes no other
    assert (again.status, again.read()) == (204, b"")
    again.close()
    server.close()


def test_a_body_until_the_end_of_the_connection(client: Client) -> None:
    server = answering(b"HTTP/1.0 200\r\n\r\nall of it")
    assert client.request("GET", server.url, {}).read() == b"all of it"
    server.close()


def test_no_body_for_head_whatever_the_length_says(client: Client) -> None:
    server = answering(
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )
    for method in ("HEAD", "GET"):
        answer = client.request(method, server.url, {})
        assert answer.read() == b""
        answer.close()
    server.close()


def test_informational_answers_and_folded_fields(client: Client) -> None:
    server = answering(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nLong: one\r\n  two\r\nContent-Length: 0\r\n\r\n"
    )
    answer = client.request("GET", server.url, {})
    assert (answer.status, answer.headers.get("long"), answer.headers.get("link")) == (200, "one, two", "")
    answer.close()
    server.close()


def test_a_connection_that_the_server_closed_is_not_used_again(client: Client) -> None:
    closed = threading.Event()

    def first(connected: socket.socket) -> None:
        server.head(connected)
        connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")

    def second(connected: socket.socket) -> None:
        closed.set()
        first(connected)

    server = Server(first, second)
    client.request("GET", server.url, {}).close()
    time.sleep(0.1)
    assert client.request("GET", server.url, {}).read() == b"1"
    assert closed.is_set()
    server.close()


@pytest.mark.parametrize(
    "fields",
    [b"Connection: close\r\nContent-Length: 2\r\n\r\nok", b"Content-Length: 70000\r\n\r\n" + b"x" * 70000],
    ids=["the server ends it", "too much is left"],
)
def test_a_connection_is_not_kept_when(client: Client, fields: bytes) -> None:
    server = Server(
        *2 * (lambda connected: (server.head(connected), connected.sendall(b"HTTP/1.1 200 OK\r\n" + fields))[1],)
    )
    for _ in range(2):
        answer = client.request("GET", server.url, {})
        assert answer.read(2)
        answer.close()
    server.close()


def test_requests_with_bodies(client: Client) -> None:
    bodies: list[bytes] = []

    def serve(connected: socket.socket) -> None:
        for size in (4, 0, 6, 22):
            server.head(connected)
            bodies.append(connected.recv(size, socket.MSG_WAITALL) if size else b"")
            connected.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    server = Server(serve)
    client.request("PUT", server.url, {}, b"body").close()
    client.request("POST", server.url, {}).close()
    client.request("PUT", server.url, {"Content-Length": "6"}, iter([b"abc", b"def"])).close()
    client.request("PATCH", server.url, {}, iter([b"abc", b"", b"defg"])).close()
    server.close()
    assert bodies == [b"body", b"", b"abcdef", b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"]
    assert [b"Content-Length: 4" in server.heads[0], b"Content-Length: 0" in server.heads[1]] == [True, True]
    assert b"Transfer-Encoding: chunked" in server.heads[3]


def test_an_answer_that_comes_before_the_body_has_gone(client: Client) -> None:
    """A server that refuses an upload answers and hangs up; the answer says why, not the broken pipe."""

    def serve(connected: socket.socket) -> None:
        server.head(connected)
        connected.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        connected.shutdown(socket.SHUT_WR)
        connected.recv(1 << 20)

    server = Server(serve)
    answer = client.request(
        "PUT", server.url, {"Content-Length": str(1 << 30)}, (bytes(1 << 20) for _ in range(1 << 10))
    )
    assert (answer.status, answer.read()) == (413, b"big")
    server.close()


def test_what_ends_a_body_ends_the_connection(client: Client) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"some"
        raise ValueError("the source broke")

    seen: list[bytes] = []

    def serve(connected: socket.socket) -> None:
        server.head(connected)
        while data := connected.recv(100):
            seen.append(data)

    server = Server(serve)
    with pytest.raises(ValueError, match="source broke"):
        client.request("PUT", server.url, {"Content-Length": "100"}, pieces())
    server.close()
    assert b"".join(seen) == b"some"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed in the middle"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/2 200\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "header field"),
        (b"HTTP/1.1 200 OK\r\nName : x\r\n\r\n", "header field"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70000 + b"\r\n\r\n", "head"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: x\r\n" * 20000 + b"\r\n", "head"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "5, 6"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "-1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n", "1e3"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "gzip"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "cut short"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell", "cut short"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nhello", "a chunk of"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello", "a chunk of"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 16 + b"\r\nhello", "a chunk of"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n", "longer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "closed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: x\r\n" * 20000, "trailers"),
    ],
)  # fmt: skip
def test_what_is_no_answer(client: Client, answer: bytes, words: str) -> None:
    def serve(connected: socket.socket) -> None:
        server.head(connected)
        try:
            connected.sendall(answer)
            connected.shutdown(socket.SHUT_WR)
            connected.recv(1)
        except OSError:
            return  # the client had enough

    server = Server(serve)
    with pytest.raises(Broken, match=words):
        client.request("GET", server.url, {}).read()
    server.close()


def test_a_server_that_says_nothing() -> None:
    quiet = threading.Event()

    def serve(connected: socket.socket) -> None:
        server.head(connected)
        quiet.wait(5)

    server = Server(serve)
    with pytest.raises(TimeoutError):
        Client(no_tls, read=0.2).request("GET", server.url, {})
    quiet.set()
    server.close()


def test_nobody_there(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(Unreached, match="refused"):
        client.request("GET", f"http://127.0.0.1:{port}/", {})
    with pytest.raises(Unreached, match="no port"):
        client.request("GET", "http://127.0.0.1:99999/", {})


def test_fields_and_targets_cannot_end_a_line(client: Client) -> None:
    server = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    client.request("GET", server.url + "/x\r\nEvil: 1", {"User-Agent": "a b\r\nEvil: 1\r\n\r\nü"}).close()
    server.close()
    assert b"\r\nEvil" not in server.heads[0]
    assert b"/x%0D%0AEvil:%201 HTTP/1.1" in server.heads[0]


# ── Through proxies, and TLS ──


def test_a_proxy_takes_the_whole_address(client: Client) -> None:
    server = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    proxied = Client(no_tls, proxy=f"http://me:p%40ss@127.0.0.1:{server.port}")
    assert proxied.request("GET", "http://registry.example/v2/?n=1", {}).read() == b"ok"
    proxied.close()
    server.close()
    assert server.heads[0].startswith(b"GET http://registry.example/v2/?n=1 HTTP/1.1\r\nHost: registry.example\r\n")
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"me:p@ss") in server.heads[0]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For localhost, with its key beside it."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "server.crt"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def serving_tls(certificate: Path, connected: socket.socket, server: Server) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    try:
        with context.wrap_socket(connected, server_side=True) as secured:
            for _ in range(2):
                server.head(secured)
                secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000)
    except OSError:
        return  # the client does not trust us


def test_tls(certificate: Path) -> None:
    server = Server(lambda connected: serving_tls(certificate, connected, server))
    client = Client(lambda: trusting(certificate))
    for _ in range(2):
        answer = client.request("GET", f"https://localhost:{server.port}/", {})
        assert answer.read() == b"x" * 100000
        answer.close()
    client.close()
    server.close()


def test_tls_that_cannot_be_trusted(certificate: Path) -> None:
    server = Server(lambda connected: serving_tls(certificate, connected, server))
    with pytest.raises(Unreached, match="CERTIFICATE_VERIFY_FAILED"):
        Client(ssl.create_default_context).request("GET", f"https://localhost:{server.port}/", {})
    server.close()


def test_tls_through_a_proxy(certificate: Path) -> None:
    def serve(connected: socket.socket) -> None:
        server.head(connected)
        connected.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        serving_tls(certificate, connected, server)

    server = Server(serve)
    client = Client(lambda: trusting(certificate), proxy=f"http://u:p@127.0.0.1:{server.port}")
    answer = client.request("GET", "https://localhost/v2/", {})
    assert answer.read(3) == b"xxx"
    answer.close()
    client.close()
    server.close()
    assert server.heads[0].startswith(b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n")
    assert b"Proxy-Authorization: Basic dTpw" in server.heads[0]
    assert server.heads[1].startswith(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n")
    assert b"Proxy" not in server.heads[1]


def test_a_proxy_that_refuses() -> None:
    server = answering(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    client = Client(no_tls, proxy=f"http://127.0.0.1:{server.port}")
    with pytest.raises(Unreached, match=r"proxy 127\.0\.0\.1:.* answered 407"):
        client.request("GET", "https://registry.example/", {})
    server.close()


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("http://user:secret@127.0.0.1:1", r"the proxy 127\.0\.0\.1:1: Connection refused"),
        ("http://127.0.0.1:99999", "the proxy 127.0.0.1:99999: '99999' is no port"),
        ("https://127.0.0.1:1", "the proxy https://127.0.0.1:1 is of a kind that is not offered"),
        ("socks5://127.0.0.1:1", "of a kind that is not offered"),
    ],
)
def test_a_proxy_that_cannot_be_reached_is_named(proxy: str, words: str) -> None:
    for url in ("https://registry.example/", "http://registry.example/"):
        with pytest.raises(Unreached, match=words) as caught:
            Client(no_tls, proxy=proxy).request("GET", url, {})
        assert "secret" not in str(caught.value)


def test_whether_a_server_speaks_tls(certificate: Path) -> None:
    secure = Server(lambda connected: serving_tls(certificate, connected, secure))
    plain = answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert speaks_tls("127.0.0.1", secure.port, 5.0)
    assert not speaks_tls("127.0.0.1", plain.port, 5.0)
    secure.close()
    plain.close()


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://a", ("http", "a", "/")),
        ("HTTPS://a:5/b/c?d=/e#f", ("https", "a:5", "/b/c?d=/e")),
        ("http://user:pass@a?x", ("http", "a", "/?x")),
        ("http://[::1]:5000/v2/", ("http", "[::1]:5000", "/v2/")),
    ],
)
def test_addresses_are_split(url: str, parts: "tuple[str, str, str]") -> None:
    assert split(url) == parts


def test_hosts_and_ports() -> None:
    assert address("a") == ("a", 80)
    assert address("a", "https") == ("a", 443)
    assert address("[::1]:5000") == ("::1", 5000)
    assert address("[::1]") == ("::1", 80)
