"""A ttrpc server on ``Loop``: unary methods, answered at once or later.

An implementation is an object with one method per declared method, ``Create(request, call)``, which returns
the response, or None and calls ``call.reply`` or ``call.fail`` when it is ready.
What it raises becomes the call's error.
"""

from _socket import MSG_DONTWAIT, socket
from _socket import SO_PEERCRED as _SO_PEERCRED
from _socket import SOL_SOCKET as _SOL_SOCKET
from os import close as _close
from select import EPOLLIN, EPOLLOUT
from struct import Struct as _Struct

from ..errors import BoxshipError, Unimplemented
from ..protobuf import Message, Method, Service
from .loop import Loop
from .session import Call, ServerSession

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any as Anything

_UCRED = _Struct("3i")


class PendingCall:
    """A call that waits for its answer.  After the client left, answering does nothing."""

    __slots__ = ("_connection", "_stream", "metadata", "name", "timeout_ns")

    def __init__(self, connection: "Connection", call: Call) -> None:
        self._connection: Connection | None = connection
        self._stream = call.stream
        self.name = call.method
        self.metadata = call.metadata
        self.timeout_ns = call.timeout_ns

    @property
    def peer(self) -> "tuple[int, int, int]":
        """The client's pid, uid and gid, as the kernel knows them (SO_PEERCRED, unix(7))."""
        if self._connection is None:
            return (0, -1, -1)
        return self._connection.peer

    def reply(self, response: Message) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.closed:
            connection.session.reply(self._stream, response.encode())
            connection.flush()

    def fail(self, error: BaseException) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.closed:
            connection.session.fail(self._stream, error)
            connection.flush()


class Connection:
    """One client.  Its socket is closed when the client leaves or breaks the protocol."""

    def __init__(self, server: "Server", sock: socket) -> None:
        self.server = server
        self.socket = sock
        self.session = ServerSession()
        self.closed = False
        self._writing = False
        self.peer: tuple[int, int, int] = _UCRED.unpack(sock.getsockopt(_SOL_SOCKET, _SO_PEERCRED, _UCRED.size))
        server.loop.watch(sock.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        if events & EPOLLOUT:
            self.flush()
        if events & ~EPOLLOUT and not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            data = self.socket.recv(65536, MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        for event in self.session.feed(data):
            if isinstance(event, Call):
                self.server.dispatch(self, event)
        self.flush()

    def flush(self) -> None:
        """Send what is waiting; what the client does not take yet is sent when it does."""
        outgoing = self.session.outgoing
        while outgoing and not self.closed:
            try:
                sent = self.socket.send(outgoing, MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            del outgoing[:sent]
        if not self.closed and bool(outgoing) != self._writing:
            self._writing = bool(outgoing)
            self.server.loop.watch(
                self.socket.fileno(), self._ready, EPOLLIN | EPOLLOUT if self._writing else EPOLLIN
            )

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.server.loop.forget(self.socket.fileno())
            self.server.connections.discard(self)
            self.socket.close()


class Server:
    """Serves ``services`` on a listening socket, which it owns.

    ``around`` wraps every call of a method (tracing, for instance): it is given the pending call and a
    function that makes the call, and returns what that returns.
    """

    def __init__(
        self,
        loop: Loop,
        listener: socket,
        services: "dict[type[Service], object]",
        around: "Callable[[PendingCall, Callable[[], Message | None]], Message | None] | None" = None,
    ) -> None:
        self.loop = loop
        self.listener = listener
        self.connections: set[Connection] = set()
        self._around = around
        self._methods: dict[tuple[str, str], tuple[Method, Anything]] = {}
        for service, implementation in services.items():
            for name, method in service.methods.items():
                function = getattr(implementation, name, None)
                if function is not None:
                    self._methods[service.full_name, name] = (method, function)
        listener.setblocking(False)
        loop.watch(listener.fileno(), self._accept)

    def _accept(self, _events: int) -> None:
        try:
            fd, _address = self.listener._accept()  # type: ignore[attr-defined]  # the C socket's accept
        except OSError:
            return  # the client gave up before we came
        try:
            self.connections.add(Connection(self, socket(fileno=fd)))
        except OSError:
            _close(fd)

    def dispatch(self, connection: Connection, call: Call) -> None:
        """Make one call; its failure is the client's to know, never ours to die of."""
        pending = PendingCall(connection, call)
        try:
            found = self._methods.get((call.service, call.method))
            if found is None:
                raise Unimplemented(f"service {call.service} has no method {call.method}")
            method, function = found
            request = method.request.decode(call.payload)

            def make() -> "Message | None":
                return function(request, pending)  # type: ignore[no-any-return]  # an implementation's promise

            response = self._around(pending, make) if self._around is not None else make()
        except BoxshipError as error:
            pending.fail(error)
        except Exception as error:
            pending.fail(error)
            self.unexpected(call, error)
        else:
            if response is not None:
                pending.reply(response)

    def unexpected(self, call: Call, error: Exception) -> None:
        """Told of errors that were not raised on purpose; the owner may replace it to log them."""

    def stop_listening(self) -> None:
        """Take no more connections; those that are there go on. Repeated is fine."""
        if self.listener.fileno() >= 0:
            self.loop.forget(self.listener.fileno())
            self.listener.close()

    def close(self) -> None:
        """Stop listening and drop every client."""
        self.stop_listening()
        for connection in list(self.connections):
            connection.close()
