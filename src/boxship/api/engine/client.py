"""A small synchronous client of the Engine API.

One connection a request: local connects cost microseconds, and attach and exec keep theirs.
Only ``_socket``-level modules are imported at the top, because every command of the CLI starts here.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from time import monotonic_ns

from boxship.errors import BoxshipError, PeerError, Unavailable

from .address import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any, ClassVar

VERSION = "1.47"
CHUNK = 65536


class EngineError(BoxshipError):
    """The engine said no: its HTTP ``status`` and its message."""

    kind = "engine"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Response:
    """An answer whose body is read as it comes."""

    def __init__(self, connection: _Connection, status: int, headers: dict[str, str], head_only: bool) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length")
        self._left = 0 if head_only or status in (204, 304) else int(length) if length else -1
        if head_only or status in (204, 304):
            self._chunked = False

    def fileno(self) -> int:
        return self._connection.socket.fileno()

    def parts(self) -> Iterator[bytes]:
        """The body's parts as they arrive; raises PeerError when it is cut short."""
        connection = self._connection
        if self._chunked:
            while True:
                line = connection.line()
                try:
                    size = int(line.split(b";")[0], 16)
                except ValueError:
                    raise PeerError(f"the engine sent a malformed chunk {line[:40]!r}") from None
                left = size
                while left:
                    part = connection.some(left)
                    if not part:
                        raise PeerError("the engine's answer was cut short")
                    left -= len(part)
                    yield part
                connection.line()
                if not size:
                    return
        while self._left:
            part = connection.some(CHUNK if self._left < 0 else min(CHUNK, self._left))
            if not part:
                if self._left > 0:
                    raise PeerError("the engine's answer was cut short")
                return
            if self._left > 0:
                self._left -= len(part)
            yield part

    def read(self) -> bytes:
        data = b"".join(self.parts())
        self.close()
        return data

    def json(self) -> Any:
        import json

        data = self.read()
        try:
            return json.loads(data) if data.strip() else None
        except ValueError as error:
            raise PeerError(f"the engine's answer is not JSON: {error}") from error

    def lines(self) -> Iterator[Any]:
        """JSON documents, one a line, as they arrive."""
        import json

        rest = b""
        for part in self.parts():
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                if line.strip():
                    yield json.loads(line)
        if rest.strip():
            yield json.loads(rest)

    def close(self) -> None:
        self._connection.close()


class Hijacked:
    """A connection that attach or exec took over: raw bytes both ways."""

    def __init__(self, connection: _Connection, media_type: str) -> None:
        self.socket = connection.socket
        self.early = bytes(connection.buffer)
        self.multiplexed = "multiplexed" in media_type

    def close_input(self) -> None:
        """Tell the other side that no more comes; its output goes on."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it closed already

    def close(self) -> None:
        self.socket.close()


class _Connection:
    def __init__(self, address: Address) -> None:
        self.buffer = bytearray()
        self.socket = self._connect(address)

    def _connect(self, address: Address) -> socket.socket:
        try:
            if address.kind == "unix":
                connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connected.connect(address.path)
                return connected
            connected = socket.create_connection((address.host, address.port))
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except PermissionError as error:
            raise Unavailable(
                f"permission denied while trying to connect to the engine at {address.text}",
                remedy="run as root, or be in the group that the engine's -G names",
            ) from error
        except OSError as error:
            raise Unavailable(
                f"Cannot connect to the engine at {address.text}. Is it running?", cause=error.strerror or str(error)
            ) from error
        return self._secure(connected, address) if address.tls else connected

    def _secure(self, connected: socket.socket, address: Address) -> socket.socket:
        import ssl

        assert address.tls is not None
        ca, certificate, key, verify = address.tls
        context = ssl.create_default_context(cafile=ca if verify else None)
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            context.load_cert_chain(certificate, key)
        except OSError:
            pass  # an engine that asks for none takes none
        try:
            return context.wrap_socket(connected, server_hostname=address.host)
        except (OSError, ssl.SSLError) as error:
            raise Unavailable(f"TLS to the engine at {address.text}", cause=str(error)) from error

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the engine answered before it read everything; the answer says why

    def some(self, limit: int) -> bytes:
        if self.buffer:
            data = bytes(self.buffer[:limit])
            del self.buffer[:limit]
            return data
        try:
            return self.socket.recv(min(limit, CHUNK))
        except ConnectionResetError:
            return b""

    def line(self) -> bytes:
        while (end := self.buffer.find(b"\n")) < 0:
            data = self.socket.recv(CHUNK)
            if not data:
                raise PeerError("the engine closed the connection in the middle of its answer")
            self.buffer += data
        found = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return found.rstrip(b"\r")

    def head(self) -> tuple[int, dict[str, str]]:
        while True:
            status_line = self.line().split(b" ", 2)
            if len(status_line) < 2 or not status_line[1].isdigit():
                raise PeerError(f"the engine's answer is not HTTP: {b' '.join(status_line)[:80]!r}")
            headers: dict[str, str] = {}
            while line := self.line():
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
            if status_line[1] != b"100":
                return int(status_line[1]), headers

    def close(self) -> None:
        self.socket.close()


class Client:
    """Calls one engine. ``headers`` go with every request (``boxship trace`` sends its traceparent so)."""

    # told of each request when its answer's head is here: "METHOD path", start and end (monotonic ns)
    observer: "ClassVar[Callable[[str, int, int], None] | None]" = None

    def __init__(self, address: Address, headers: dict[str, str] | None = None) -> None:
        self.address = address
        self.headers = headers or {}
        self.version = VERSION

    def _older(self, error: EngineError) -> bool:
        """Whether the engine is older than us; then its version is spoken from now on."""
        _, found, rest = error.message.partition("Maximum supported API version is ")
        version = rest.split()[0].strip(".,") if found and rest.split() else ""
        if error.status != 400 or not version or version == self.version:
            return False
        self.version = version
        return True

    def request(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: Any = None,
        stream: IO[bytes] | None = None,
        content_type: str = "",
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send a request; raises EngineError for a status of 400 and more, Unavailable when nobody answers.

        ``body`` is sent as JSON, ``stream`` as it is read, chunked; ``headers`` are for this request only.
        """
        try:
            return self._request(method, path, query, body, stream, content_type, headers or {})
        except EngineError as error:
            if stream is not None or not self._older(error):
                raise
        return self._request(method, path, query, body, stream, content_type, headers or {})

    def _request(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None,
        body: Any,
        stream: IO[bytes] | None,
        content_type: str,
        headers: dict[str, str],
    ) -> Response:
        began = monotonic_ns()
        connection = _Connection(self.address)
        data = self._head(connection, method, path, query, body, stream is not None, content_type, False, headers)
        connection.send(data)
        if stream is not None:
            while part := stream.read(1 << 16):
                connection.send(b"%x\r\n%b\r\n" % (len(part), part))
            connection.send(b"0\r\n\r\n")
        status, answered = connection.head()
        self._observe(f"{method} {path}", began)
        response = Response(connection, status, answered, method == "HEAD")
        if status >= 400:
            raise self._error(response)
        return response

    def hijack(self, path: str, query: dict[str, Any] | None = None, body: Any = None) -> Hijacked:
        """Take a connection over (attach, exec start); raises EngineError."""
        began = monotonic_ns()
        connection = _Connection(self.address)
        connection.send(self._head(connection, "POST", path, query, body, False, "", True))
        status, headers = connection.head()
        self._observe(f"POST {path} (hijacked)", began)
        if status not in (101, 200):
            raise self._error(Response(connection, status, headers, False))
        return Hijacked(connection, headers.get("content-type", ""))

    def _observe(self, call: str, began: int) -> None:
        if Client.observer is not None:
            Client.observer(call, began, monotonic_ns())

    def _head(
        self,
        connection: _Connection,
        method: str,
        path: str,
        query: dict[str, Any] | None,
        body: Any,
        chunked: bool,
        content_type: str,
        upgrade: bool,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        target = f"/v{self.version}{path}"
        pairs = {k: v for k, v in (query or {}).items() if v is not None and v is not False and v != ""}
        if pairs:
            target += "?" + "&".join(
                f"{key}={_quote('1' if value is True else str(value))}"
                for key, values in pairs.items()
                for value in (values if isinstance(values, list) else [values])
            )
        lines = [f"{method} {target} HTTP/1.1", "Host: boxship", f"User-Agent: boxship ({self.address.kind})"]
        data = b""
        if body is not None:
            import json

            data = json.dumps(body).encode()
            content_type = "application/json"
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        else:
            lines.append(f"Content-Length: {len(data)}")
        if content_type:
            lines.append(f"Content-Type: {content_type}")
        if upgrade:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        lines += [f"{name}: {value}" for name, value in {**self.headers, **(headers or {})}.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + data

    def _error(self, response: Response) -> EngineError:
        import json

        data = response.read()
        try:
            message = json.loads(data)["message"]
        except (ValueError, KeyError, TypeError):
            message = data.decode("utf-8", "replace").strip() or f"HTTP status {response.status}"
        return EngineError(response.status, message)


SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:@,")


def _quote(text: str) -> str:
    """Percent-encoding of a query value; urllib's takes longer to import than most commands to run."""
    return "".join(chr(byte) if byte in SAFE else f"%{byte:02X}" for byte in text.encode())


def quote_path(text: str) -> str:
    """A name as part of a path."""
    return _quote(text)
