"""Events from the shim to containerd, in order, without ever holding up the shim.

One event is on its way at a time; the next is sent when containerd has answered, whatever it answered.
When containerd is down, the publisher connects again with growing pauses; an event that could not be told for
GIVE_UP seconds is dropped, and so is the oldest when the queue is full: a containerd that comes back asks
every shim for its state, so an old event has no reader.
"""

from _socket import AF_UNIX, MSG_DONTWAIT, SOCK_CLOEXEC, SOCK_STREAM, socket
from select import EPOLLIN, EPOLLOUT
from time import monotonic, time_ns

from ..api.task.events import TOPICS, Events, ForwardRequest
from ..api.task.types import Envelope
from ..errors import PeerError
from ..protobuf import Any, Message, Timestamp
from ..ttrpc.frames import unix_path
from ..ttrpc.loop import Loop, Timer
from ..ttrpc.session import ClientSession

GIVE_UP = 120.0
ANSWER = 5.0
QUEUE = 2048
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Publisher:
    """Sends events of ``namespace`` to the ttrpc socket at ``address`` (empty: nobody listens)."""

    def __init__(self, loop: Loop, address: str, namespace: str) -> None:
        self.namespace = namespace
        self.dropped = 0
        self._loop = loop
        self._path = unix_path(address) if address else ""
        self._queue: list[tuple[float, Envelope]] = []
        self._socket: socket | None = None
        self._session = ClientSession()
        self._unsent = b""
        self._waiting = False
        self._timer: Timer | None = None
        self._failures = 0

    @property
    def idle(self) -> bool:
        """Everything was told (or given up)."""
        return not self._queue

    def publish(self, event: Message) -> None:
        """Queue ``event`` under its topic."""
        if not self._path:
            return
        envelope = Envelope(
            timestamp=Timestamp.from_ns(time_ns()),
            namespace=self.namespace,
            topic=TOPICS[type(event)],
            event=Any.pack(event),
        )
        if len(self._queue) >= QUEUE:
            self._queue.pop(0)
            self.dropped += 1
        self._queue.append((monotonic(), envelope))
        if not self._waiting and self._timer is None:
            self._send_next()

    def _send_next(self) -> None:
        self._timer = None
        while self._queue and self._queue[0][0] < monotonic() - GIVE_UP:
            self._queue.pop(0)
            self.dropped += 1
        if not self._queue:
            return
        try:
            if self._socket is None:
                self._connect()
            method = Events.Forward
            request = ForwardRequest(envelope=self._queue[0][1]).encode()
            _, self._unsent = self._session.call(method.service, method.name, request)
            self._waiting = True
            self._flush()
        except OSError:
            self._broken()
            return
        if self._waiting:
            self._timer = self._loop.later(ANSWER, self._broken)

    def _connect(self) -> None:
        sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        self._session = ClientSession()
        self._socket = sock
        self._loop.watch(sock.fileno(), self._ready)

    def _flush(self) -> None:
        assert self._socket is not None
        try:
            sent = self._socket.send(self._unsent, MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        self._unsent = self._unsent[sent:]
        self._loop.watch(self._socket.fileno(), self._ready, EPOLLIN | EPOLLOUT if self._unsent else EPOLLIN)

    def _ready(self, events: int) -> None:
        assert self._socket is not None
        try:
            if events & EPOLLOUT:
                self._flush()
            if not events & ~EPOLLOUT:
                return
            data = self._socket.recv(65536, MSG_DONTWAIT)
            answers = self._session.feed(data)
        except BlockingIOError:
            return
        except (OSError, PeerError):
            self._broken()
            return
        if not data:
            self._broken()
        elif answers and self._waiting:
            self._waiting = False
            self._failures = 0
            self._queue.pop(0)
            if self._timer is not None:
                self._timer.cancel()
            self._send_next()

    def _broken(self) -> None:
        """Drop the connection, and when something is left to tell, come back after a pause."""
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self._waiting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue:
            pause = PAUSES[min(self._failures, len(PAUSES) - 1)]
            self._failures += 1
            self._timer = self._loop.later(pause, self._send_next)

    def close(self) -> None:
        self._queue.clear()
        self._broken()
