"""HTTP/1.1 from the client's side, over blocking sockets (RFC 9110, RFC 9112).

A `Connection` is one socket: a request goes out, its `Answer` comes in, whose body is read as it is wanted. A
`Client` keeps connections to servers for the next request, and reaches them through TLS and proxies.
Nothing is repeated, redirected or unpacked here: that needs to know what a request means.

Every error is an `OSError`: `Unreached` when there is no connection (with the reason as its cause), `TimeoutError`,
`Broken` for what was cut short or is no HTTP.
Every command line of ours starts here, so TLS and urllib are imported where they are wanted.
"""

from __future__ import annotations

import select
import socket
import struct

from boxship.http.headers import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Body = bytes | Iterable[bytes] | None

CHUNK = 1 << 16
HEAD_LIMIT = 1 << 16
"""Bytes of a head: the status line and all header fields."""
DRAIN = 64 << 10
"""What is read of a body that nobody wants, so that its connection can be used again."""
PORTS = {"http": 80, "https": 443}


class Broken(ConnectionError):
    """The connection ended before the answer did, or what came is no HTTP."""


class Unreached(ConnectionError):
    """There is no connection: refused, no such name, no TLS. Its cause says why."""


class Headers:
    """Header fields by name, in any case; a field that stands twice is one list (RFC 9110, section 5.3)."""

    __slots__ = ("_fields",)

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def add(self, name: str, value: str) -> None:
        key = name.lower()
        known = self._fields.get(key)
        self._fields[key] = value if known is None else f"{known}, {value}"

    def get(self, name: str, default: str = "") -> str:
        return self._fields.get(name.lower(), default)


class Connection:
    """A connected socket, plain or TLS. Used by one thread at a time; a request's answer is read before the next."""

    def __init__(self, connected: socket.socket, *, secure: bool = False) -> None:
        self.socket = connected
        self.buffer = bytearray()
        """What was received beyond what was asked for."""
        self.secure = secure
        self._broken: OSError | None = None

    def request(self, method: str, target: str, headers: Mapping[str, str], body: Body = None) -> None:
        """Send it. A body of several pieces goes in chunks unless ``headers`` give its Content-Length.

        A server that closes its side while a body is sent has answered already: then the answer says why.
        """
        lines = [f"{method} {_clean(target)} HTTP/1.1"]
        lines += [f"{name}: {_clean(value, ' ')}" for name, value in headers.items()]
        chunked = False
        if isinstance(body, bytes) or (body is None and method in ("POST", "PUT", "PATCH")):
            if "Content-Length" not in headers:
                lines.append(f"Content-Length: {len(body or b'')}")
        elif body is not None and "Content-Length" not in headers:
            lines.append("Transfer-Encoding: chunked")
            chunked = True
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        self._broken = None
        try:
            if body is None or isinstance(body, bytes):
                self.send(head + (body or b""))
                return
            self.send(head, more=True)
        except (BrokenPipeError, ConnectionResetError) as error:
            self._broken = error
            return
        for piece in body:
            try:
                self.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked and piece else piece)
            except (BrokenPipeError, ConnectionResetError) as error:
                self._broken = error
                return
        if chunked:
            self.send(b"0\r\n\r\n")

    def send(self, data: bytes, *, more: bool = False) -> None:
        """All of ``data``; ``more`` follows at once, so a small packet is not worth it. Raises OSError."""
        try:
            self.socket.sendall(data, socket.MSG_MORE if more and not self.secure else 0)
        except BlockingIOError:
            raise TimeoutError("timed out") from None

    def receive(self, limit: int, *, whole: bool = False) -> bytes:
        """Up to ``limit`` bytes, b"" at the end; ``whole`` waits until so many are there. Raises OSError."""
        if self.buffer:
            data = bytes(self.buffer[:limit])
            del self.buffer[:limit]
            return data
        try:
            return self.socket.recv(limit, socket.MSG_WAITALL if whole and not self.secure else 0)
        except BlockingIOError:
            raise TimeoutError("timed out") from None

    def line(self) -> bytes:
        """A line without its end, which may be a bare LF (RFC 9112, section 2.2). Raises Broken."""
        start = 0
        while (end := self.buffer.find(b"\n", start)) < 0:
            start = len(self.buffer)
            if start > HEAD_LIMIT:
                raise Broken("a line without an end")
            try:
                data = self.socket.recv(CHUNK)
            except BlockingIOError:
                raise TimeoutError("timed out") from None
            if not data:
                raise Broken("closed in the middle of an answer" if start else "closed without an answer")
            self.buffer += data
        found = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return found.removesuffix(b"\r")

    def answer(self, method: str = "") -> Answer:
        """The answer to the last request, of ``method``; informational ones are passed over. Raises OSError."""
        try:
            while True:
                status, keep, headers = self._head()
                if status >= 200 or status == 101:
                    return Answer(self, status, headers, keep, head_only=method == "HEAD")
        except ConnectionError as error:
            raise self._broken or error from None

    def _head(self) -> tuple[int, bool, Headers]:
        line = self.line()
        version, _, rest = line.partition(b" ")
        code = rest[:3]
        if not version.startswith(b"HTTP/1.") or not code.isdigit() or len(code) < 3 or rest[3:4] not in (b" ", b""):
            raise Broken(f"the answer is not HTTP: {line[:80]!r}")
        headers, size, name = Headers(), len(line), ""
        while line := self.line():
            size += len(line)
            if size > HEAD_LIMIT:
                raise Broken(f"the head of the answer is larger than {HEAD_LIMIT} bytes")
            text = line.decode("latin-1")
            if text[0] in " \t" and name:  # a folded line (RFC 9112, section 5.2)
                headers.add(name, text.strip(" \t"))
                continue
            name, colon, value = text.partition(":")
            if not colon or not name or name != name.strip():
                raise Broken(f"a header field is none: {line[:80]!r}")
            headers.add(name, value.strip(" \t"))
        said = headers.get("Connection").lower()
        keep = "close" not in said if version != b"HTTP/1.0" else "keep-alive" in said
        return int(code), keep, headers

    def idle(self) -> bool:
        """Whether it can take a request: the other side has neither closed it nor said what nobody asked for."""
        if self.buffer:
            return False
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        self.socket.close()


class Answer:
    """A status, header fields, and a body that has not been read. Close it, or the connection stays taken."""

    def __init__(self, connection: Connection, status: int, headers: Headers, keep: bool, *, head_only: bool) -> None:
        self.connection = connection
        self.status = status
        self.headers = headers
        self.done: "Callable[[Connection], None] | None" = None
        """Who takes the connection back."""
        self._keep = keep
        self._chunked = False
        self._left = 0
        """Bytes of the body, or of its chunk, that are to come; -1 when only the connection's end tells."""
        if head_only or status in (101, 204, 304):
            return
        coding = headers.get("Transfer-Encoding").lower()
        if coding:
            if coding.rpartition(",")[2].strip() != "chunked":
                raise Broken(f"a body in the coding {coding!r}")
            self._chunked = True
            self._first = True
            return
        lengths = {one.strip() for one in headers.get("Content-Length", "-").split(",")}
        text = lengths.pop()
        self._left = -1 if text == "-" else number(text)
        if lengths or (self._left < 0 and text != "-"):
            raise Broken(f"a body of {headers.get('Content-Length')!r} bytes")

    def some(self, limit: int = CHUNK, *, whole: bool = False) -> bytes:
        """The next bytes of the body as they come, b"" at its end; ``whole`` waits for more of them.

        Raises Broken when it is cut short.
        """
        if self._chunked and not self._left:
            self._next_chunk()
        if not self._left:
            return b""
        data = self.connection.receive(limit if self._left < 0 else min(limit, self._left), whole=whole)
        if self._left < 0:
            if not data:
                self._left, self._keep = 0, False
            return data
        if not data:
            raise Broken("the answer was cut short")
        self._left -= len(data)
        return data

    def _next_chunk(self) -> None:
        connection = self.connection
        if self._first:
            self._first = False
        elif connection.line():
            raise Broken("a chunk is longer than it says")
        line = connection.line()
        text = line.partition(b";")[0].strip()
        if not text or len(text) > 15 or text.translate(None, b"0123456789abcdefABCDEF"):
            raise Broken(f"a chunk of {line[:40]!r} bytes")
        self._left = int(text, 16)
        if not self._left:
            size = 0
            while line := connection.line():  # trailers
                size += len(line)
                if size > HEAD_LIMIT:
                    raise Broken(f"the trailers of the answer are larger than {HEAD_LIMIT} bytes")
            self._chunked = False

    def read(self, size: int = -1) -> bytes:
        """``size`` bytes, fewer only at the end; -1 reads all that is left."""
        first = self.some(CHUNK if size < 0 else size, whole=True)
        if not first or len(first) == size:
            return first
        parts, count = [first], len(first)
        while count != size and (data := self.some(CHUNK if size < 0 else size - count, whole=True)):
            parts.append(data)
            count += len(data)
        return b"".join(parts)

    def parts(self) -> Iterator[bytes]:
        """The body as it comes."""
        while data := self.some():
            yield data

    def close(self) -> None:
        """Read the rest when it is little, so that the connection can be used again; else end it."""
        connection, done, self.done = self.connection, self.done, None
        if done is None:
            connection.close()
            return
        try:
            left = DRAIN
            while self._keep and left > 0 and self._left <= left and (data := self.some(left)):
                left -= len(data)
        except OSError:
            self._keep = False
        if self._keep and not self._left and not self._chunked:
            done(connection)
        else:
            connection.close()


class Client:
    """Requests to any server, over connections that are kept; from any thread.

    ``tls`` makes the context for https, once. ``proxy`` is a URL, or "" for none. ``connect`` and ``read`` are
    seconds: for a connection, and between two pieces of an answer or a request.
    """

    def __init__(
        self, tls: Callable[[], ssl.SSLContext], *, proxy: str = "", connect: float = 15.0, read: float = 60.0
    ) -> None:
        self._make_context = tls
        self._context: ssl.SSLContext | None = None
        self._proxy = proxy
        self._connect_timeout, self._read_timeout = connect, read
        self._idle: dict[str, list[Connection]] = {}

    def request(self, method: str, url: str, headers: Mapping[str, str], body: Body = None) -> Answer:
        """Raises Unreached, TimeoutError, Broken, and any other OSError of a socket."""
        scheme, authority, target = split(url)
        origin = f"{scheme}://{authority}"
        fields = {"Host": authority, "Accept-Encoding": "identity", **headers}
        if self._proxy and scheme == "http":
            target = origin + target
            if authorization := _basic(split(self._proxy, userinfo=True)[1]):
                fields["Proxy-Authorization"] = authorization
        connection = self._take(origin) or self._open(scheme, authority)
        try:
            connection.request(method, target, fields, body)
            answer = connection.answer(method)
        except BaseException:
            connection.close()
            raise
        answer.done = lambda connection: self._idle.setdefault(origin, []).append(connection)
        return answer

    def close(self) -> None:
        """Close what is kept; connections in use are closed by who has them."""
        for connections in self._idle.values():
            while connections:
                connections.pop().close()

    def _take(self, origin: str) -> Connection | None:
        kept = self._idle.get(origin)
        while kept:
            try:
                connection = kept.pop()
            except IndexError:  # another thread was faster
                return None
            if connection.idle():
                return connection
            connection.close()
        return None

    def _open(self, scheme: str, authority: str) -> Connection:
        host, port = address(authority, scheme)
        if not self._proxy:
            plain = dial(host, port, self._connect_timeout)
        else:
            plain = self._through_proxy(host, port, tunnel=scheme == "https")
        try:
            if scheme != "https":
                return Connection(_patient(plain, self._read_timeout))
            plain.settimeout(self._read_timeout)
            if self._context is None:
                self._context = self._make_context()
            return Connection(self._context.wrap_socket(plain, server_hostname=host), secure=True)
        except TimeoutError:
            plain.close()
            raise
        except OSError as error:  # ssl.SSLError is one
            plain.close()
            raise Unreached(*error.args) from error

    def _through_proxy(self, host: str, port: int, *, tunnel: bool) -> socket.socket:
        scheme, authority, _ = split(self._proxy, userinfo=True)
        name = authority.rpartition("@")[2]
        if scheme != "http":
            raise Unreached(f"the proxy {scheme}://{name} is of a kind that is not offered: name one by http://")
        try:
            plain = dial(*address(name, scheme), self._connect_timeout)
        except Unreached as error:
            raise Unreached(f"the proxy {name}: {error.args[-1] if error.args else error}") from error
        if not tunnel:
            return plain
        try:
            plain.settimeout(self._read_timeout)
            connection = Connection(plain)
            there = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            fields = {"Host": there}
            if authorization := _basic(authority):
                fields["Proxy-Authorization"] = authorization
            connection.request("CONNECT", there, fields)
            status = connection._head()[0]
            if status // 100 != 2:
                raise Unreached(f"the proxy {name} answered {status}")
        except BaseException:
            plain.close()
            raise
        return plain


def split(url: str, *, userinfo: bool = False) -> tuple[str, str, str]:
    """Scheme, host with port, and the target of a request, of an http or https URL (RFC 9110, section 4.2)."""
    scheme, _, rest = url.partition("://")
    rest = rest.partition("#")[0]
    end = min((place for one in "/?" if (place := rest.find(one)) >= 0), default=len(rest))
    authority, target = rest[:end], rest[end:]
    if not target.startswith("/"):
        target = "/" + target
    return scheme.lower(), authority if userinfo else authority.rpartition("@")[2], target


def address(authority: str, scheme: str = "http") -> tuple[str, int]:
    """Host (an IPv6 address without its brackets) and port. Raises Unreached for a port that is none."""
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = authority, ""
    if port and not 0 <= number(port) < 65536:
        raise Unreached(f"{port!r} is no port")
    return host.strip("[]"), int(port) if port else PORTS.get(scheme, 80)


def dial(host: str, port: int, timeout: float) -> socket.socket:
    """A TCP connection. Raises Unreached, TimeoutError."""
    try:
        connected = socket.create_connection((host, port), timeout)
    except TimeoutError:
        raise
    except (OSError, UnicodeError) as error:  # the latter for a name that is none
        raise Unreached(*error.args) from error
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


_PROBE = (
    bytes.fromhex("1603010034" + "01000030" + "0303")
    + b"Does the server take TLS?   \r\n\r\n"
    + bytes.fromhex("00" + "0002c02f" + "0100" + "0005ff01000100")
)
"""A TLS ClientHello (RFC 5246, section 7.4.1.2) that offers one suite of ciphers: enough to be answered in TLS.

Its 32 bytes of randomness end a line, so that a server of plain HTTP answers at once, too.
"""


def speaks_tls(host: str, port: int, timeout: float) -> bool:
    """Whether a server takes TLS, found without a TLS library: it answers a greeting with a record of TLS.

    Raises Unreached, TimeoutError.
    """
    with dial(host, port, timeout) as probe:
        try:
            probe.sendall(_PROBE)
            first = probe.recv(1)
        except TimeoutError:
            raise
        except OSError:
            return True  # it hung up; a TLS library will say what is wrong
        return first in (b"", b"\x15", b"\x16")  # an alert, or its side of the handshake


def _patient(connected: socket.socket, seconds: float) -> socket.socket:
    """The kernel's time limits in the place of Python's, which poll before each call."""
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    connected.settimeout(None)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    return connected


def _basic(authority: str) -> str:
    """The header for the name and the password that stand in a proxy's URL."""
    userinfo, at, _ = authority.rpartition("@")
    if not at:
        return ""
    from base64 import b64encode
    from urllib.parse import unquote_to_bytes

    return "Basic " + b64encode(unquote_to_bytes(userinfo)).decode()


def _clean(text: str, spare: str = "") -> str:
    """``text`` in a head, where control characters and what is not ASCII are percent-encoded; so are spaces unless
    they are spared."""
    if text.isascii() and text.isprintable() and (spare or " " not in text):
        return text
    return "".join(
        one if "!" <= one <= "~" or one in spare else "".join(f"%{byte:02X}" for byte in one.encode()) for one in text
    )
