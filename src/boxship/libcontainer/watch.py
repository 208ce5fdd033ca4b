"""What happens in a container over time: readings of its counters, and the want of memory."""

import os
from select import poll
from time import monotonic

from boxship.errors import FailedPrecondition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from .cgroups import Stats
    from .container import Container

STATS, OOM = "stats", "oom"


class Event:
    """``kind`` is ``stats``, with a reading in ``stats``, or ``oom``: a process was killed for want of memory."""

    __slots__ = ("kind", "stats")

    def __init__(self, kind: str, stats: "Stats | None" = None) -> None:
        self.kind = kind
        self.stats = stats


def events(container: "Container", interval: float = 5.0, *, stop: int = -1) -> "Generator[Event, None, None]":
    """Events until the container stops: a reading every ``interval`` seconds, and each ``oom`` when it happens.

    ``stop`` is a descriptor that ends it too, once it can be read.
    Raises FailedPrecondition when the container does not run.
    """
    from .cgroups.oom import OomWatch

    try:
        pidfd = os.pidfd_open(container.pid) if container.pid else -1
    except ProcessLookupError:
        pidfd = -1
    if pidfd < 0:
        raise FailedPrecondition(f"container {container.id!r} is not running")
    try:
        with OomWatch(container.cgroups.oom_directory()) as oom:
            poller = poll()
            poller.register(pidfd, 1)
            poller.register(oom.fileno(), oom.mask)
            if stop >= 0:
                poller.register(stop, 1)
            due = monotonic() + interval
            while True:
                left = due - monotonic()
                ready = [fd for fd, _ in poller.poll(max(0, int(left * 1000)))]
                if oom.fileno() in ready:
                    for _ in range(oom.take()):
                        yield Event(OOM)
                if pidfd in ready or stop in ready:
                    return
                if monotonic() >= due:
                    due = monotonic() + interval
                    yield Event(STATS, container.stats(whole=True))
    finally:
        os.close(pidfd)
