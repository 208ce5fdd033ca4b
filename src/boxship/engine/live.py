"""What the engine holds in memory of a container beside its record; nothing here is needed after a restart."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from boxship.tracing import Trace

from .models import Record
from .stdio import Stdio


@dataclass
class Exec:
    """A process started in a running container by ``docker exec``."""

    id: str
    container: str
    config: dict[str, object]
    args: list[str]
    tty: bool
    stdio: Stdio
    wants_stdin: bool
    wants_stdout: bool
    wants_stderr: bool
    user: str = ""
    privileged: bool = False
    env: list[str] = field(default_factory=list)
    working_dir: str = ""
    detach_keys: str = ""
    console_size: tuple[int, int] = (0, 0)
    pid: int = 0
    running: bool = False
    started: bool = False
    exit_code: int | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)


class Live:
    """One container's moving parts.

    ``lock`` is held by whoever changes its state; ``exits`` and ``removals`` are those who wait for the next one.
    ``exits`` get the exit code, ``removals`` the last one.
    """

    def __init__(self, record: Record, stdio: Stdio) -> None:
        self.record = record
        self.stdio = stdio
        self.lock = asyncio.Lock()
        self.exits: set[asyncio.Future[int]] = set()
        self.removals: set[asyncio.Future[int]] = set()
        self.execs: dict[str, Exec] = {}
        self.restart: asyncio.Task[None] | None = None  # the pause before a restart by policy
        self.backoff = 0.0
        self.oom_killed = False
        self.started = asyncio.Event()  # set while its process runs: the shim has opened its end of the FIFOs
        self.trace: Trace | None = None  # of the request that started it: its exit belongs to the same run

    def exited(self, code: int) -> None:
        waiters, self.exits = self.exits, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(code)

    def removed(self, code: int) -> None:
        waiters, self.removals = self.removals, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(code)

    async def next_exit(self) -> int:
        return await self._wait(self.exits)

    async def removal(self) -> int:
        return await self._wait(self.removals)

    async def _wait(self, waiters: set[asyncio.Future[int]]) -> int:
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiters.add(waiter)
        try:
            return await waiter
        finally:
            waiters.discard(waiter)
