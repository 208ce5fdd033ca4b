"""Attaching a client's hijacked connection to a process's stdio: containers and execs alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from boxship.http.messages import Stream

from .detach import DetachWatcher, key_codes
from .stdio import STDERR, STDOUT, Client, Stdio, frame


@dataclass(frozen=True)
class Wanted:
    """Which streams a client asked for, and how."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool
    close_stdin: bool  # the process's input ends with this client's
    detach_keys: str = ""
    framed: bool | None = None  # whether output is multiplexed; None: when there is no terminal

    @property
    def outputs(self) -> frozenset[int]:
        streams = set()
        if self.stdout:
            streams.add(STDOUT)
        if self.stderr:
            streams.add(STDERR)
        return frozenset(streams)

    @property
    def multiplexed(self) -> bool:
        return not self.tty if self.framed is None else self.framed


async def serve(
    stream: Stream,
    stdio: Stdio,
    client: Client | None,
    wanted: Wanted,
    close_stdin: Callable[[], Awaitable[None]],
) -> bool:
    """Carry bytes both ways until the output ends, the client goes, or it detaches; True when it detached.

    ``client`` was made before the process was started, so that no output is missed; None wants no output.
    """
    tasks: list[asyncio.Task[bool]] = []
    loop = asyncio.get_running_loop()
    output = loop.create_task(_output(stream, client, wanted)) if client is not None else None
    gone = loop.create_task(stream.gone.wait())
    if output is not None:
        tasks.append(output)
    input_task = loop.create_task(_input(stream, stdio, wanted, close_stdin)) if wanted.stdin else None
    if input_task is not None:
        tasks.append(input_task)
    tasks.append(gone)
    try:
        pending: set[asyncio.Task[bool]] = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if gone in done or (output is not None and output in done):
                return False
            if input_task is not None and input_task in done:
                if input_task.result():
                    return True
                # The client's input ended. With its own input the process ends by itself; else it stays.
                if output is None or not wanted.close_stdin:
                    return False
        return False
    except ConnectionError:
        return False
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if client is not None:
            client.close()


async def _output(stream: Stream, client: Client, wanted: Wanted) -> bool:
    try:
        async for number, data in client:
            await stream.write(frame(number, data) if wanted.multiplexed else data)
    except ConnectionError:
        pass  # the client went away: the caller sees `gone`
    return False


async def _input(stream: Stream, stdio: Stdio, wanted: Wanted, close_stdin: Callable[[], Awaitable[None]]) -> bool:
    watcher = DetachWatcher(key_codes(wanted.detach_keys)) if wanted.tty else None
    while data := await stream.read():
        if watcher is not None:
            data = watcher.feed(data)
        if data:
            await stdio.write_input(data)
        if watcher is not None and watcher.detached:
            return True
    if wanted.close_stdin and not wanted.tty:
        await close_stdin()
    return False
