"""containerd's content service as the synchronous store that `boxship.image` reads and writes.

Archives are read in a worker thread (inflating, hashing and parsing must not hold the event loop up); each call here
is carried over to the loop and waited for there.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Coroutine
from typing import Any, BinaryIO, TypeVar, cast

from boxship.api.containerd import Client
from boxship.api.containerd.content import (
    AbortRequest,
    DeleteContentRequest,
    InfoRequest,
    ReadContentRequest,
    WriteAction,
    WriteContentRequest,
)
from boxship.errors import AlreadyExists, NotFound, PeerError
from boxship.image.compression import Reader
from boxship.oci import digest as digests
from boxship.oci.digest import Digest

from .names import new_id

T = TypeVar("T")

CHUNK = 1 << 20
ENOUGH = 1 << 18


class ClientStore:
    """A `boxship.image.store.Store` over a containerd client; call it from worker threads only."""

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def exists(self, digest: str) -> bool:
        try:
            self._run(self._info(digest))
        except NotFound:
            return False
        return True

    async def _info(self, digest: str) -> int:
        info = (await self._client.content.Info(InfoRequest(digest=digest))).info
        return info.size if info else 0

    def read(self, digest: str) -> bytes:
        return self._run(self.read_async(digest))

    async def read_async(self, digest: str, offset: int = 0, size: int = 0) -> bytes:
        """A blob's bytes; usable on the loop itself. Raises NotFound."""
        parts = [
            part.data
            async for part in self._client.content.Read(ReadContentRequest(digest=digest, offset=offset, size=size))
        ]
        return b"".join(parts)

    def open(self, digest: str) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_Blob(self, digest, self._run(self._info(digest))), CHUNK))

    def read_range(self, digest: str, offset: int, size: int) -> bytes:
        return self._run(self.read_async(digest, offset, size))

    def add(self, source: Reader | bytes, *, expected: str = "", size: int = -1) -> tuple[Digest, bool]:
        """Write one blob; gives its digest, and whether it is new."""
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=4)
        ref = f"engine-{new_id()[:24]}"
        writing = asyncio.run_coroutine_threadsafe(self._write(chunks, ref, expected), self._loop)

        def send(chunk: bytes | None) -> None:
            putting = asyncio.run_coroutine_threadsafe(chunks.put(chunk), self._loop)
            while not writing.done():
                try:
                    putting.result(timeout=0.5)
                    return
                except TimeoutError:
                    continue
            putting.cancel()  # the writer failed; its error is told below

        try:
            if isinstance(source, bytes):
                send(source)
            else:
                while not writing.done() and (data := _read(source)):
                    send(data)
            send(None)
            return writing.result()
        except BaseException:
            writing.cancel()
            self._run(self._abort(ref))  # or the bytes so far would wait for somebody to go on with them
            raise

    async def _abort(self, ref: str) -> None:
        try:
            await self._client.content.Abort(AbortRequest(ref=ref))
        except NotFound:
            return  # nothing had been written

    async def _write(self, chunks: asyncio.Queue[bytes | None], ref: str, expected: str) -> tuple[Digest, bool]:
        digest = ""

        async def requests() -> AsyncIterator[WriteContentRequest]:
            offset = 0
            while (data := await chunks.get()) is not None:
                yield WriteContentRequest(action=WriteAction.WRITE, ref=ref, offset=offset, data=data)
                offset += len(data)
            yield WriteContentRequest(
                action=WriteAction.COMMIT, ref=ref, offset=offset, total=offset, expected=expected
            )

        try:
            async for response in self._client.content.Write(requests()):
                digest = response.digest or digest
        except AlreadyExists as error:
            # containerd's answer for content that it has; the digest is in the request or in the message
            known = expected or next(
                (w.strip(":,\"'") for w in str(error).split() if w.strip("\"'").startswith("sha256:")), ""
            )
            if not known:
                raise
            return digests.parse(known), False
        if not digest:
            raise PeerError(f"content write {ref}: containerd committed it without telling its digest")
        return digests.parse(digest), True

    def delete(self, digest: str) -> None:
        async def gone() -> None:
            try:
                await self._client.content.Delete(DeleteContentRequest(digest=digest))
            except NotFound:
                return

        self._run(gone())


def _read(source: Reader) -> bytes:
    """Some of it at once: the docker CLI sends 32 KiB at a time, and each piece costs a turn of the loop and of a
    thread."""
    parts: list[bytes] = []
    size = 0
    while size < ENOUGH and (data := source.read(CHUNK)):
        parts.append(data)
        size += len(data)
    return b"".join(parts)


class _Blob(io.RawIOBase):
    """A blob as a seekable file."""

    def __init__(self, store: ClientStore, digest: str, size: int) -> None:
        super().__init__()
        self._store = store
        self._digest = digest
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        data = self._store.read_range(self._digest, self._position, wanted)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
