"""A ttrpc client that blocks: one connection, one call at a time.  For ``start``, ``delete`` and tests."""

from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

from ..errors import DeadlineExceeded, PeerError, Unavailable
from ..protobuf import Message, Method
from .frames import unix_path
from .session import Answer, ClientSession

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self, TypeVar

    from ..protobuf import Unary

    Q = TypeVar("Q", bound=Message)
    R = TypeVar("R", bound=Message)


class BlockingClient:
    """A connection to a ttrpc server; use as a context manager.  Closing twice is fine."""

    def __init__(self, sock: socket, *, metadata: "dict[str, str] | None" = None) -> None:
        self._socket = sock
        self._session = ClientSession()
        self.metadata = metadata or {}

    @classmethod
    def connect(cls, address: str, *, timeout: float = 5.0, metadata: "dict[str, str] | None" = None) -> "Self":
        """Connect within ``timeout`` seconds; nobody there is Unavailable."""
        sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        sock.settimeout(timeout)
        try:
            sock.connect(unix_path(address))
        except OSError as error:
            sock.close()
            raise Unavailable(f"cannot connect to {address}", cause=error.strerror or str(error)) from error
        return cls(sock, metadata=metadata)

    def call(self, method: "Unary[Q, R]", request: "Q", *, timeout: "float | None" = None) -> "R":
        """One unary call.  Errors are the server's, DeadlineExceeded, or Unavailable when it went away."""
        payload = self._exchange(method, request.encode(), timeout)
        return method.response.decode(payload)  # type: ignore[return-value]  # the declaration pairs them

    def _exchange(self, method: Method, payload: bytes, timeout: "float | None") -> bytes:
        stream, data = self._session.call(
            method.service, method.name, payload, metadata=self.metadata,
            timeout_ns=int(timeout * 1e9) if timeout else 0,
        )  # fmt: skip
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(data)
            while True:
                data = self._socket.recv(65536)
                if not data:
                    self._session.end()
                    raise Unavailable(f"{method.service}/{method.name}: the server closed the connection")
                for event in self._session.feed(data):
                    if not isinstance(event, Answer):
                        raise PeerError(f"ttrpc: {method.name} is unary, but the server streams")
                    if event.stream == stream:
                        if event.error is not None:
                            raise event.error
                        return event.payload
        except TimeoutError as error:
            self._session.forget(stream)
            raise DeadlineExceeded(f"{method.service}/{method.name}: no answer in {timeout} s") from error
        except OSError as error:
            raise Unavailable(f"{method.service}/{method.name}", cause=error.strerror or str(error)) from error

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
