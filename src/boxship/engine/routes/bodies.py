"""Bodies of requests and answers as the synchronous files that worker threads read and write archives through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from boxship.http.messages import StreamResponse

AT_ONCE = 1 << 18
"""Bytes that are handed to the event loop together: each time costs a wait for it."""


class BodyReader:
    """A request's body as the synchronous file that a worker thread reads an archive from."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._ended = False

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, b"" at the end; called from a worker thread."""
        if size < 0:
            parts = []
            while part := self.read(1 << 20):
                parts.append(part)
            return b"".join(parts)
        if not self._rest and not self._ended:
            self._rest = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    async def _next(self) -> bytes:
        async for part in self._body:
            if part:
                return part
        self._ended = True
        return b""


class ChunkWriter:
    """A chunked response as the synchronous file that a worker thread writes an archive to; then `end` it."""

    def __init__(self, out: StreamResponse) -> None:
        self._out = out
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._size = 0

    def write(self, data: bytes, /) -> int:
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= AT_ONCE:
            asyncio.run_coroutine_threadsafe(self.end(), self._loop).result()
        return len(data)

    async def end(self) -> None:
        """Send what waits; on the loop."""
        data = b"".join(self._waiting)
        self._waiting, self._size = [], 0
        if data:
            await self._out.write(data)
