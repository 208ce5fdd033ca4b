"""The Content service: a namespace's view of the content store.

Blobs are shared between namespaces as files; who may see one, and its labels, is metadata. Refs of ingestions
are kept apart by prefixing them with the namespace. Hashing and large reads run in worker threads.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any as Anything

from boxship.api.containerd.content import (
    AbortRequest,
    DeleteContentRequest,
    InfoRequest,
    InfoResponse,
    ListContentRequest,
    ListContentResponse,
    ListStatusesRequest,
    ListStatusesResponse,
    ReadContentRequest,
    ReadContentResponse,
    StatusRequest,
    StatusResponse,
    UpdateRequest,
    UpdateResponse,
    WriteAction,
    WriteContentRequest,
    WriteContentResponse,
)
from boxship.api.containerd.content import Info as ContentInfo
from boxship.api.containerd.content import Status as IngestionStatus
from boxship.api.containerd.context import required_namespace
from boxship.api.containerd.published import ContentCreate, ContentDelete
from boxship.containerd.events import Exchange
from boxship.containerd.filters import message_lookup, parse
from boxship.containerd.leases import protect
from boxship.containerd.records import (
    check_labels,
    decode_labels,
    encode_labels,
    ensure_namespace,
    mask_paths,
    masked_labels,
)
from boxship.errors import AlreadyExists, InvalidArgument, NotFound, OutOfRange, ResourceExhausted
from boxship.image.background import settled
from boxship.image.content import ContentStore, IngestStatus, Writer
from boxship.image.database import Database
from boxship.oci import digest as digests
from boxship.protobuf import Empty, Timestamp

_CHUNK = 1 << 20  # of a read; containerd's own clients expect no more than 16 MiB in a message
_INLINE = 1 << 16  # up to this many bytes, a thread costs more than reading from memory
_PAGE = 100


class ContentService:
    def __init__(self, store: ContentStore, database: Database, exchange: Exchange) -> None:
        self._store = store
        self._database = database
        self._exchange = exchange

    async def Info(self, request: InfoRequest) -> InfoResponse:
        return InfoResponse(info=self._info(request.digest))

    async def Update(self, request: UpdateRequest) -> UpdateResponse:
        wanted = request.info or ContentInfo()
        current = self._info(wanted.digest)
        paths = mask_paths(request.update_mask) or ["labels"]
        if any(path != "labels" and not path.startswith("labels.") for path in paths):
            raise InvalidArgument(f"cannot update {', '.join(paths)} of content {wanted.digest}")
        labels = masked_labels(current.labels, wanted.labels, paths)
        updated = time.time_ns()
        self._database.run(
            "UPDATE content SET labels=?, updated=? WHERE namespace=? AND digest=?",
            (encode_labels(labels), updated, required_namespace(), wanted.digest),
        )
        current.labels = labels
        current.updated_at = Timestamp.from_ns(updated)
        return UpdateResponse(info=current)

    async def List(self, request: ListContentRequest) -> AsyncIterator[ListContentResponse]:
        matches = parse(list(request.filters))
        rows = self._database.rows(
            "SELECT digest, size, created, updated, labels FROM content WHERE namespace=? ORDER BY digest",
            (required_namespace(),),
        )
        found = [info for info in map(_info, rows) if matches(message_lookup(info))]
        for start in range(0, len(found), _PAGE):
            yield ListContentResponse(info=found[start : start + _PAGE])

    async def Delete(self, request: DeleteContentRequest) -> Empty:
        namespace = required_namespace()
        digest = digests.parse(request.digest)
        held = -1
        with self._database.transaction():
            if not self._database.run("DELETE FROM content WHERE namespace=? AND digest=?", (namespace, digest)):
                raise NotFound(f"content {digest}: not found")
            if not self._database.row("SELECT 1 FROM content WHERE digest=?", (digest,)):
                held = self._store.unlink(digest)
        if held >= 0:
            await asyncio.to_thread(os.close, held)
        self._exchange.publish("/content/delete", ContentDelete(digest=digest))
        return Empty()

    async def Read(self, request: ReadContentRequest) -> AsyncIterator[ReadContentResponse]:
        info = self._info(request.digest)
        offset = max(request.offset, 0)
        if offset > info.size:
            raise OutOfRange(f"read past object length {info.size} bytes")
        left = info.size - offset
        if 0 < request.size < left:
            left = request.size
        with self._store.open(info.digest) as blob:
            while left:
                size = min(left, _CHUNK)
                data = _cached(blob.fileno(), size, offset) if size <= _INLINE else b""
                data = data or await asyncio.to_thread(os.pread, blob.fileno(), size, offset)
                if not data:
                    return
                yield ReadContentResponse(offset=offset, data=data)
                offset += len(data)
                left -= len(data)

    async def Status(self, request: StatusRequest) -> StatusResponse:
        prefix = _prefix(required_namespace())
        return StatusResponse(status=_status(self._store.status(prefix + request.ref), prefix))

    async def ListStatuses(self, request: ListStatusesRequest) -> ListStatusesResponse:
        prefix = _prefix(required_namespace())
        matches = parse(list(request.filters))
        found = [_status(one, prefix) for one in self._store.statuses() if one.ref.startswith(prefix)]
        return ListStatusesResponse(statuses=[one for one in found if matches(message_lookup(one))])

    async def Abort(self, request: AbortRequest) -> Empty:
        await asyncio.to_thread(self._store.abort, _prefix(required_namespace()) + request.ref)
        return Empty()

    async def Write(self, requests: AsyncIterator[WriteContentRequest]) -> AsyncIterator[WriteContentResponse]:
        """One writer for the life of the call: each request is answered, a commit ends it. The ingestion stays
        when the call is cut off, and the next call with its ref goes on."""
        first = await anext(requests, None)
        if first is None or not first.ref:
            raise InvalidArgument("first message must have a reference")
        namespace = required_namespace()
        self._refuse_known(namespace, first.expected)
        total, expected = first.total, first.expected
        writer = await self.open_writer(namespace, first.ref, total, expected)
        try:
            request: "WriteContentRequest | None" = first
            while request is not None:
                if request.expected and request.expected != expected:
                    expected = request.expected
                    try:
                        self._refuse_known(namespace, expected)
                    except AlreadyExists:
                        await asyncio.to_thread(writer.discard)
                        raise
                total = request.total or total
                response = WriteContentResponse(action=request.action, offset=writer.offset, total=total)
                if request.action != WriteAction.STAT:
                    await self._write(writer, request)
                    response.offset = writer.offset
                response.digest = writer.digest
                response.started_at = Timestamp.from_ns(writer.started_ns)
                response.updated_at = Timestamp.from_ns(writer.updated_ns)
                if request.action == WriteAction.COMMIT:
                    await self.commit(namespace, writer, total, expected, dict(request.labels))
                    yield response
                    return
                yield response
                request = await anext(requests, None)
        except ResourceExhausted:
            # On a full disk there is nothing to go on with, and the space is wanted.
            await asyncio.to_thread(writer.discard)
            raise
        finally:
            writer.close()

    def known(self, digest: digests.Digest) -> None:
        """Raises NotFound unless the current namespace has the content."""
        self._info(digest)

    async def open_writer(self, namespace: str, ref: str, total: int = 0, expected: str = "") -> Writer:
        """A writer, for another service of this process too; see `commit`. Raises as `ContentStore.writer`."""
        # In a thread, because what an earlier call left is hashed again.
        opening = asyncio.ensure_future(
            asyncio.to_thread(self._store.writer, _prefix(namespace) + ref, total=total, expected=expected)
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            await asyncio.wait([opening])
            if opening.exception() is None:
                opening.result().close()
            raise

    async def _write(self, writer: Writer, request: WriteContentRequest) -> None:
        if request.offset > 0 and request.offset != writer.offset:
            raise OutOfRange(f"write @{request.offset} must occur at current offset {writer.offset}")
        if request.offset == 0 and writer.offset > 0:
            await settled(asyncio.to_thread(writer.truncate, 0))
        if request.data:
            # However few: a write waits while the disk is behind with what others wrote.
            await settled(asyncio.to_thread(writer.write, request.data))

    async def commit(
        self, namespace: str, writer: Writer, total: int, expected: str, labels: "dict[str, str]"
    ) -> None:
        """End an ingestion: the blob is there and this namespace knows it. ``total`` 0 is any size."""
        checked = check_labels(labels)
        size = writer.offset
        digest = writer.digest
        try:
            await settled(asyncio.to_thread(writer.commit, size=total or -1, expected=expected))
        except AlreadyExists:
            if self._row(namespace, digest) is not None:
                raise
            # Another namespace has it: the bytes that came are the proof of having it too.
        self._register(namespace, digest, size, checked)
        await asyncio.to_thread(self._database.sync)
        self._exchange.publish("/content/create", ContentCreate(digest=digest, size=size))

    def _refuse_known(self, namespace: str, expected: str) -> None:
        if expected and self._row(namespace, digests.parse(expected)) is not None:
            raise AlreadyExists(f"content {expected}: already exists")
        if expected and self._store.exists(expected):
            # Known to another namespace: this one sees it from now on (containerd's "shared" policy).
            self._register(namespace, expected, self._store.info(expected).size, {})
            raise AlreadyExists(f"content {expected}: already exists")

    def _register(self, namespace: str, digest: str, size: int, labels: "dict[str, str]") -> None:
        created = time.time_ns()
        with self._database.transaction():
            ensure_namespace(self._database, namespace)
            self._database.run(
                "INSERT OR IGNORE INTO content (namespace, digest, size, created, updated, labels)"
                " VALUES (?,?,?,?,?,?)",
                (namespace, digest, size, created, created, encode_labels(labels)),
            )
            protect(self._database, "content", digest)

    def _row(self, namespace: str, digest: str) -> "tuple[Anything, ...] | None":
        return self._database.row(
            "SELECT digest, size, created, updated, labels FROM content WHERE namespace=? AND digest=?",
            (namespace, digest),
        )

    def _info(self, digest: str) -> ContentInfo:
        row = self._row(required_namespace(), digests.parse(digest))
        if row is None:
            raise NotFound(f"content {digest}: not found")
        return _info(row)


def _cached(fd: int, size: int, offset: int) -> bytes:
    """What can be read without waiting for the disk (preadv2(2), RWF_NOWAIT); b"" when that is nothing."""
    data = bytearray(size)
    try:
        return bytes(data[: os.preadv(fd, [data], offset, os.RWF_NOWAIT)])
    except OSError:  # EAGAIN: not in memory; EOPNOTSUPP: a file system that cannot say
        return b""


def _info(row: "tuple[Anything, ...]") -> ContentInfo:
    digest, size, created, updated, labels = row
    return ContentInfo(
        digest=digest,
        size=size,
        created_at=Timestamp.from_ns(created),
        updated_at=Timestamp.from_ns(updated),
        labels=decode_labels(labels),
    )


def _prefix(namespace: str) -> str:
    return f"{namespace}/"


def _status(found: IngestStatus, prefix: str) -> IngestionStatus:
    return IngestionStatus(
        started_at=Timestamp.from_ns(found.started_ns),
        updated_at=Timestamp.from_ns(found.updated_ns),
        ref=found.ref.removeprefix(prefix),
        offset=found.offset,
        total=found.total,
        expected=found.expected,
    )
