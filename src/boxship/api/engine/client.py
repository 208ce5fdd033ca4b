"""A small synchronous client of the Engine API.

One connection a request: local connects cost microseconds, and attach and exec keep theirs.
Little is imported at the top, because every command of the CLI starts here.
"""

from __future__ import annotations

import socket
from time import monotonic_ns

from boxship.errors import BoxshipError, PeerError, Unavailable
from boxship.http.client import Connection

from .address import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, Any, ClassVar

    from boxship.http.client import Answer, Body, Headers

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

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers: Headers = answer.headers

    def fileno(self) -> int:
        return self._answer.connection.socket.fileno()

    def parts(self) -> Iterator[bytes]:
        """The body's parts as they arrive; raises PeerError when it is cut short."""
        try:
            yield from self._answer.parts()
        except ConnectionError as error:
            raise PeerError("the engine's answer cannot be read", cause=str(error)) from error

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
        self._answer.connection.close()


class Hijacked:
    """A connection that attach or exec took over: raw bytes both ways."""

    def __init__(self, connection: Connection, media_type: str) -> None:
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


def _connect(address: Address) -> Connection:
    """Raises Unavailable."""
    try:
        if address.kind == "unix":
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connected.connect(address.path)
            return Connection(connected)
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
    return Connection(_secure(connected, address), secure=True) if address.tls else Connection(connected)


def _secure(connected: socket.socket, address: Address) -> socket.socket:
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
        pieces: Body = iter(lambda: stream.read(CHUNK), b"") if stream is not None else None
        answer = self._send(method, path, query, body, pieces, content_type, headers)
        self._observe(f"{method} {path}", began)
        response = Response(answer)
        if answer.status >= 400:
            raise self._error(response)
        return response

    def hijack(self, path: str, query: dict[str, Any] | None = None, body: Any = None) -> Hijacked:
        """Take a connection over (attach, exec start); raises EngineError."""
        began = monotonic_ns()
        answer = self._send("POST", path, query, body, None, "", {"Connection": "Upgrade", "Upgrade": "tcp"})
        self._observe(f"POST {path} (hijacked)", began)
        if answer.status not in (101, 200):
            raise self._error(Response(answer))
        return Hijacked(answer.connection, answer.headers.get("Content-Type"))

    def _observe(self, call: str, began: int) -> None:
        if Client.observer is not None:
            Client.observer(call, began, monotonic_ns())

    def _send(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None,
        body: Any,
        pieces: Body,
        content_type: str,
        headers: dict[str, str],
    ) -> Answer:
        """Ask over a connection of its own. Raises Unavailable, PeerError."""
        target = f"/v{self.version}{path}"
        pairs = {k: v for k, v in (query or {}).items() if v is not None and v is not False and v != ""}
        if pairs:
            target += "?" + "&".join(
                f"{key}={_quote('1' if value is True else str(value))}"
                for key, values in pairs.items()
                for value in (values if isinstance(values, list) else [values])
            )
        fields = {"Host": "boxship", "User-Agent": f"boxship ({self.address.kind})"}
        if body is not None:
            import json

            pieces = json.dumps(body).encode()
            content_type = "application/json"
        if content_type:
            fields["Content-Type"] = content_type
        connection = _connect(self.address)
        try:
            connection.request(method, target, {**fields, **self.headers, **headers}, pieces)
            return connection.answer(method)
        except ConnectionError as error:
            connection.close()
            raise PeerError("the engine's answer cannot be read", cause=str(error)) from error

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
