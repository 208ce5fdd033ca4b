"""A process's stdio as the engine sees it: FIFOs whose other end the shim holds, shared by attached clients.

The shim writes the log itself, so nobody has to read here: a FIFO is open only while a client is attached, and an
engine that dies takes nothing from the container.  While clients are attached, every byte reaches each of them in
order; the slowest one slows the container down, as a pipe would.

Output ends when the shim closed its end.  A FIFO that the shim never opened again (a quiet process) does not end by
itself, so ``finish`` is called when the process has exited: it reads what is left and then ends the clients.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

STDOUT, STDERR = 1, 2
CHUNK = 64 * 1024
HIGH_WATER = 512 * 1024  # bytes that wait for one client before the FIFO is not read any more
QUIET = 1.0  # seconds without output after an exit, before a FIFO that is still open is given up on


def frame(stream: int, data: bytes) -> bytes:
    """docker's multiplexed stream: one byte for the stream, three zeros, a big-endian length, the data."""
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


class Client:
    """One attached client: ``async for stream, data in client`` until the output ends or ``close``."""

    def __init__(self, stdio: Stdio, streams: frozenset[int]) -> None:
        self._stdio = stdio
        self.streams = streams
        self._parts: deque[tuple[int, bytes]] = deque()
        self.waiting = 0
        self._ended = False
        self._arrived = asyncio.Event()

    def feed(self, stream: int, data: bytes) -> None:
        self._parts.append((stream, data))
        self.waiting += len(data)
        self._arrived.set()

    def end(self) -> None:
        self._ended = True
        self._arrived.set()

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        while True:
            while self._parts:
                stream, data = self._parts.popleft()
                self.waiting -= len(data)
                if self.waiting < HIGH_WATER:
                    self._stdio.wake()
                yield stream, data
            if self._ended:
                return
            self._arrived.clear()
            await self._arrived.wait()

    def close(self) -> None:
        """Detach; repeated is fine."""
        self._stdio.detach(self)


class _Output:
    """The reading end of one FIFO."""

    def __init__(self, path: Path, stream: int, stdio: Stdio) -> None:
        self.stream = stream
        self._stdio = stdio
        self._path = path
        self._fd = -1
        self._reading = False
        self.ended = asyncio.Event()
        self.activity = 0

    def open(self) -> None:
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self.ended.clear()
        self.resume()

    def resume(self) -> None:
        if self._fd >= 0 and not self._reading:
            self._reading = True
            asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            asyncio.get_running_loop().remove_reader(self._fd)

    def _readable(self) -> None:
        self.activity += 1
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.close()
            self._stdio.output_ended()
            return
        self._stdio.deliver(self.stream, data)
        if self._stdio.is_full():
            self._pause()

    def poll_end(self) -> None:
        """Learn whether a FIFO that says nothing has a writer at all."""
        if self._fd >= 0 and self._reading:
            self._readable()

    def close(self) -> None:
        if self._fd >= 0:
            self._pause()
            os.close(self._fd)
            self._fd = -1
        self.ended.set()

    @property
    def is_open(self) -> bool:
        return self._fd >= 0


class Stdio:
    """The FIFOs of one process, made in ``directory``; ``remove`` when the process is gone."""

    def __init__(self, directory: Path, *, tty: bool, stdin: bool) -> None:
        self.directory = directory
        self.tty = tty
        self.stdin = str(directory / "stdin") if stdin else ""
        self.stdout = str(directory / "stdout")
        self.stderr = "" if tty else str(directory / "stderr")
        self._outputs = [_Output(Path(self.stdout), STDOUT, self)]
        if not tty:
            self._outputs.append(_Output(Path(self.stderr), STDERR, self))
        self._clients: set[Client] = set()
        self._input = -1
        self._room: asyncio.Future[None] | None = None  # when somebody waits for room in the input
        self._finished = False

    def create(self) -> None:
        """Make the FIFOs; those of an earlier run are kept."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in (self.stdin, self.stdout, self.stderr):
            if path:
                try:
                    os.mkfifo(path, 0o600)
                except FileExistsError:
                    continue
        self._finished = False

    def attach(self, streams: frozenset[int]) -> Client:
        """Send output from now on to a new client."""
        client = Client(self, streams)
        self._clients.add(client)
        if self._finished:
            client.end()
            return client
        for output in self._outputs:
            output.open()
        return client

    def detach(self, client: Client) -> None:
        self._clients.discard(client)
        client.end()
        if not self._clients:
            for output in self._outputs:
                output.close()
        else:
            self.wake()

    # -- what outputs call

    def deliver(self, stream: int, data: bytes) -> None:
        for client in self._clients:
            if stream in client.streams:
                client.feed(stream, data)

    def is_full(self) -> bool:
        return any(client.waiting >= HIGH_WATER for client in self._clients)

    def wake(self) -> None:
        if not self.is_full():
            for output in self._outputs:
                output.resume()

    def output_ended(self) -> None:
        if not any(output.is_open for output in self._outputs):
            self._end_clients()

    def _end_clients(self) -> None:
        clients, self._clients = self._clients, set()
        for client in clients:
            client.end()

    # -- input

    def open_input(self) -> None:
        """Hold the writing end, so that input can come and go without an end of file for the process."""
        if self.stdin and self._input < 0:
            # Reading and writing: opening for writing alone fails while the shim has not opened its end.
            self._input = os.open(self.stdin, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    async def write_input(self, data: bytes) -> None:
        """All of ``data`` to the process, at its pace; input after ``close_input`` is dropped."""
        view = memoryview(data)
        while view and self._input >= 0:
            try:
                view = view[os.write(self._input, view) :]
            except BlockingIOError:
                await self._input_writable()
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
                return

    async def _input_writable(self) -> None:
        """Wait for room, or for the end of the input; several may."""
        if self._room is None:
            loop = asyncio.get_running_loop()
            self._room = loop.create_future()
            loop.add_writer(self._input, self._input_ready)
        await asyncio.shield(self._room)

    def _input_ready(self) -> None:
        if self._room is not None:
            asyncio.get_running_loop().remove_writer(self._input)
            room, self._room = self._room, None
            room.set_result(None)

    def close_input(self) -> None:
        if self._input >= 0:
            self._input_ready()  # before the descriptor is closed: the loop must know no other
            os.close(self._input)
            self._input = -1

    # -- the end

    async def finish(self) -> None:
        """The process has exited: pass on what is left of its output, then end all clients."""
        for output in self._outputs:
            output.poll_end()
            while output.is_open:
                before = output.activity
                try:
                    async with asyncio.timeout(QUIET):
                        await output.ended.wait()
                except TimeoutError:
                    # Full clients are the slow ones' right; an open FIFO with nothing in it is somebody else's.
                    if output.activity == before and not self.is_full():
                        output.close()
        self._end_clients()
        self.close_input()

    def remove(self) -> None:
        """Close and delete the FIFOs; repeated is fine."""
        self._finished = True
        for output in self._outputs:
            output.close()
        self._end_clients()
        self.close_input()
        for path in (self.stdin, self.stdout, self.stderr):
            if path:
                Path(path).unlink(missing_ok=True)
        try:
            self.directory.rmdir()
        except FileNotFoundError:
            return
