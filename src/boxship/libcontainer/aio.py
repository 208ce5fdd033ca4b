"""The library for asyncio: ``run`` and ``Container`` whose calls can be awaited.

    async with await aio.Container.create(spec) as container:
        await container.start()
        out, err = await container.communicate()
        code = await container.wait()

What takes the kernel a few milliseconds (create, start, exec, delete) runs in a worker thread; what takes as long as
the program does (wait, communicate, events) waits in the event loop by descriptors, and can be cancelled: the program
goes on then, and leaving the ``async with`` ends it.
An object belongs to the loop that made it.
"""

from __future__ import annotations

import asyncio
import os
import signal as signals
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, TypeVar

from boxship.errors import DeadlineExceeded, InvalidArgument

from . import handles, watch
from .handles import Result, Spec, Status
from .specs import build_spec
from .streams import DEVNULL, INHERIT, PIPE, STDOUT, ErrorStream, Stream, TerminalSize

if TYPE_CHECKING:
    from typing import Self

    from .cgroups import Stats

__all__ = ["DEVNULL", "INHERIT", "PIPE", "STDOUT", "Container", "Process", "Result", "run"]

T = TypeVar("T")


async def _ready(fd: int, *, to_write: bool = False) -> None:
    """Wait until a descriptor can be read, or written."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if to_write else (loop.add_reader, loop.remove_reader)

    def ready() -> None:
        if not future.done():
            future.set_result(None)

    add(fd, ready)
    try:
        await future
    finally:
        remove(fd)


async def _write_all(fd: int, data: bytes) -> None:
    """Raises OSError when nobody reads it any more."""
    os.set_blocking(fd, False)
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest[:65536]) :]
        except BlockingIOError:
            await _ready(fd, to_write=True)


async def _finish(call: Callable[[], T]) -> T:
    """Run a call in a thread to its end, also when we are cancelled meanwhile: it must not be left half done."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class _Handle:
    """What containers and processes have alike."""

    def __init__(self, handle: handles.Process | handles.Container) -> None:
        self.sync: Any = handle

    @property
    def pid(self) -> int:
        return int(self.sync.pid)

    async def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or 128 + signal. Raises DeadlineExceeded, FailedPrecondition as the synchronous one."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return int(self.sync.wait())
        try:
            async with asyncio.timeout(timeout):
                await _ready(pidfd)
        except TimeoutError as error:
            raise DeadlineExceeded(f"wait for process {self.pid}: it has not ended within {timeout:g} s") from error
        finally:
            os.close(pidfd)
        return int(self.sync.wait())

    async def communicate(self, input: bytes = b"", *, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Send ``input`` and read all that it writes: (stdout or terminal, stderr). Raises DeadlineExceeded."""
        out = self.sync.stdout or self.sync.terminal
        try:
            async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
                group.create_task(self._send(self.sync.stdin or (self.sync.terminal if input else None), input))
                reads = [group.create_task(_read_all(stream)) for stream in (out, self.sync.stderr)]
        except TimeoutError as error:
            raise DeadlineExceeded(f"process {self.pid} has not ended within {timeout:g} s") from error
        return reads[0].result(), reads[1].result()

    async def _send(self, stream: IO[bytes] | None, data: bytes) -> None:
        if stream is None:
            return
        with suppress(OSError):  # nobody reads it any more
            await _write_all(stream.fileno(), data)
        if stream is self.sync.stdin:
            stream.close()

    async def write(self, data: bytes) -> None:
        """Write to its standard input, or terminal; raises InvalidArgument when it has neither."""
        stream = self.sync.stdin or self.sync.terminal
        if stream is None:
            raise InvalidArgument("its standard input is no PIPE")
        await _write_all(stream.fileno(), data)

    def close_stdin(self) -> None:
        """End its standard input."""
        if self.sync.stdin is not None:
            self.sync.stdin.close()

    async def lines(self) -> AsyncIterator[bytes]:
        """Its standard output (or terminal), line by line as it comes."""
        stream = self.sync.stdout or self.sync.terminal
        if stream is None:
            raise InvalidArgument("its standard output is no PIPE")
        begun = b""
        while data := await _read_some(stream):
            *whole, begun = (begun + data).split(b"\n")
            for line in whole:
                yield line + b"\n"
        if begun:
            yield begun

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of its terminal. Raises FailedPrecondition without one."""
        self.sync.resize(columns, rows)


async def _read_some(stream: IO[bytes]) -> bytes:
    """What comes next; b"" at the end."""
    fd = stream.fileno()
    os.set_blocking(fd, False)
    while True:
        try:
            return os.read(fd, 65536)
        except BlockingIOError:
            await _ready(fd)
        except OSError:
            return b""  # a terminal whose other side is closed


async def _read_all(stream: IO[bytes] | None) -> bytes:
    parts = []
    while stream is not None and (data := await _read_some(stream)):
        parts.append(data)
    return b"".join(parts)


class Process(_Handle):
    """One more process in a container; ``async with`` kills it, if it still runs, and reaps it."""

    def kill(self, signal: int = signals.SIGTERM) -> None:
        """Send a signal; to one that has ended, nothing happens."""
        self.sync.kill(signal)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sync.kill(signals.SIGKILL)
        self.sync.close()
        await self.wait()


class Container(_Handle):
    """A container; ``sync`` is the synchronous object, for what needs no waiting."""

    @classmethod
    async def create(
        cls,
        spec: Spec,
        *,
        root: str | None = None,
        id: str | None = None,
        bundle: str | os.PathLike[str] | None = None,
        stdin: Stream = DEVNULL,
        stdout: Stream = PIPE,
        stderr: ErrorStream = PIPE,
        terminal: TerminalSize | None = None,
        **options: Any,
    ) -> Self:
        """As ``handles.Container.create``, whose further options it takes too."""
        made: list[handles.Container] = []

        def create() -> handles.Container:
            made.append(
                handles.Container.create(
                    spec, root=root, id=id, bundle=bundle, stdin=stdin, stdout=stdout, stderr=stderr,
                    terminal=terminal, **options,
                )
            )  # fmt: skip
            return made[0]

        try:
            return cls(await _finish(create))
        except asyncio.CancelledError:
            if made:
                await _finish(lambda: made[0].delete(force=True))
            raise

    @classmethod
    async def load(cls, id: str, *, root: str | None = None) -> Self:
        """A container that exists. Raises NotFound."""
        return cls(await _finish(lambda: handles.Container.load(id, root=root)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.delete(force=True)

    def __repr__(self) -> str:
        return repr(self.sync)

    @property
    def id(self) -> str:
        return str(self.sync.id)

    @property
    def status(self) -> Status:
        """As it is now."""
        found: Status = self.sync.status
        return found

    def state(self) -> dict[str, Any]:
        """The state as runtime-spec has it."""
        found: dict[str, Any] = self.sync.state()
        return found

    def pids(self) -> Sequence[int]:
        """The pids of all its processes, as the host sees them."""
        found: Sequence[int] = self.sync.pids()
        return found

    def stats(self) -> Stats:
        """One reading of its counters."""
        found: Stats = self.sync.stats()
        return found

    async def start(self) -> None:
        """Execute the program. Raises as the synchronous one."""
        await _finish(self.sync.start)

    async def exec(
        self,
        args: Sequence[str] | None = None,
        *,
        process: Spec | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: int | tuple[int, int] | None = None,
        stdin: Stream = DEVNULL,
        stdout: Stream = PIPE,
        stderr: ErrorStream = PIPE,
        terminal: TerminalSize = False,
    ) -> Process:
        """Run one more process; as the synchronous one."""

        def call() -> handles.Process:
            started: handles.Process = self.sync.exec(
                args, process=process, env=env, cwd=cwd, user=user, stdin=stdin, stdout=stdout, stderr=stderr,
                terminal=terminal,
            )  # fmt: skip
            return started

        return Process(await _finish(call))

    def kill(self, signal: int = signals.SIGTERM, *, all: bool = False) -> None:
        """Send a signal to its first process, or to all. Raises FailedPrecondition when it has ended."""
        self.sync.kill(signal, all=all)

    async def pause(self) -> None:
        """Freeze all its processes."""
        await _finish(self.sync.pause)

    async def resume(self) -> None:
        """Let them go on."""
        await _finish(self.sync.resume)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Frozen inside the ``async with``."""
        await self.pause()
        try:
            yield
        finally:
            await self.resume()

    async def update(self, resources: dict[str, Any] | None = None, **limits: Any) -> None:
        """Change limits, as the synchronous one: ``resources``, or memory, cpus, cpuset, pids."""
        await _finish(lambda: self.sync.update(resources, **limits))

    async def events(self, interval: float = 5.0) -> AsyncIterator[watch.Event]:
        """A reading every ``interval`` seconds and each want of memory, until it stops."""
        stop = os.eventfd(0, os.EFD_CLOEXEC)
        found = watch.events(self.sync.inner, interval, stop=stop)
        waiting: asyncio.Task[watch.Event | None] | None = None
        try:
            while True:
                waiting = asyncio.ensure_future(asyncio.to_thread(next, found, None))
                event = await asyncio.shield(waiting)
                if event is None:
                    return
                yield event
        finally:
            os.eventfd_write(stop, 1)
            if waiting is not None:
                await asyncio.wait([waiting])
            found.close()
            os.close(stop)

    async def delete(self, *, force: bool = False) -> None:
        """Remove everything; a running container only with ``force``. Deleting twice is fine."""
        await _finish(lambda: self.sync.delete(force=force))


async def run(
    args: Sequence[str],
    rootfs: str | os.PathLike[str] = "",
    *,
    spec: Spec | None = None,
    input: bytes = b"",
    timeout: float | None = None,
    root: str | None = None,
    stdout: Stream = PIPE,
    stderr: ErrorStream = PIPE,
    **options: Any,
) -> Result:
    """Run ``args`` in a container from start to end, as ``handles.run``; cancelling it ends and removes it."""
    if spec is None:
        if not os.fspath(rootfs):
            raise InvalidArgument("run needs a rootfs or a spec", remedy='run(["echo", "hi"], rootfs="/srv/rootfs")')
        spec = build_spec(rootfs, args, **options)
    elif options or os.fspath(rootfs):
        raise InvalidArgument("run takes either a spec or the words that make one, not both")
    else:
        spec = {**spec, "process": {**(spec.get("process") or {}), "args": list(args)}}
    stdin: Stream = PIPE if input else DEVNULL
    created = await Container.create(spec, root=root, stdin=stdin, stdout=stdout, stderr=stderr)
    async with created as container:
        try:
            async with asyncio.timeout(timeout):
                await container.start()
                out, err = await container.communicate(input)
                code = await container.wait()
        except TimeoutError as error:
            raise DeadlineExceeded(f"container {container.id} has not ended within {timeout:g} s") from error
    return Result(code, out, err)
