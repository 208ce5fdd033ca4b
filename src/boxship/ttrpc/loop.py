"""The small event loop of the shim and its zygote: epoll, timers, nothing else.

Why not asyncio: importing it costs 25 ms and megabytes that every shim would carry.
Callbacks run one after another in the loop's thread and must not block.  A callback that raises ends ``run``,
unless ``on_error`` is set: then it is told, and a descriptor whose callback raised is watched no more.
"""

from _heapq import heappop, heappush
from select import EPOLLIN, epoll
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Ready = Callable[[int], None]


class Timer:
    """A planned call; ``cancel`` it as often as you like."""

    __slots__ = ("cancelled", "function", "when")

    def __init__(self, when: float, function: "Callable[[], None]") -> None:
        self.when = when
        self.function = function
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def __lt__(self, other: "Timer") -> bool:
        return self.when < other.when


class Loop:
    """Calls ``ready(events)`` for descriptors and functions at their time, until ``stop``.

    The owner of a descriptor calls ``forget`` before closing it.
    """

    def __init__(self) -> None:
        self._epoll = epoll()
        self._ready: dict[int, Ready] = {}
        self._timers: list[Timer] = []
        self._running = False
        self.on_error: Callable[[Exception], None] | None = None

    def watch(self, fd: int, ready: "Ready", events: int = EPOLLIN) -> None:
        """Call ``ready`` with the epoll events of ``fd``; EPOLLERR and EPOLLHUP come unasked."""
        if fd in self._ready:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._ready[fd] = ready

    def forget(self, fd: int) -> None:
        if self._ready.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, function: "Callable[[], None]") -> Timer:
        timer = Timer(monotonic() + seconds, function)
        heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        self._running = True
        while self._running:
            self.turn(None)

    def turn(self, timeout: "float | None") -> None:
        """Wait for something to happen, at most ``timeout`` seconds, and handle it."""
        timers = self._timers
        while timers and timers[0].cancelled:
            heappop(timers)
        if timers:
            left = max(0.0, timers[0].when - monotonic())
            timeout = left if timeout is None else min(left, timeout)
        # epoll counts in milliseconds and rounds up, so a timer is never polled for in a busy loop.
        for fd, events in self._epoll.poll(timeout):
            ready = self._ready.get(fd)
            if ready is not None:
                try:
                    ready(events)
                except Exception as error:
                    if self.on_error is None:
                        raise
                    self.forget(fd)
                    self.on_error(error)
        now = monotonic()
        while timers and timers[0].when <= now:
            timer = heappop(timers)
            if timer.cancelled:
                continue
            try:
                timer.function()
            except Exception as error:
                if self.on_error is None:
                    raise
                self.on_error(error)

    def stop(self) -> None:
        """End ``run`` after this turn."""
        self._running = False

    def close(self) -> None:
        self._epoll.close()
