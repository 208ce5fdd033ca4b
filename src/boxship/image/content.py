"""The content store: blobs by digest, ingestions by ref, as files.

Terms: a *blob* is finished content, ``blobs/<algorithm>/<hex>``, and never changes. An *ingestion* is content on
its way in, ``ingest/<id>/`` with its ``ref`` and its ``data``; it survives a restart and can be resumed. Commit
checks size and digest, fsyncs, and renames the data to its blob, so a blob is whole or not there.
Labels and namespaces are metadata and live elsewhere: the same blob may belong to several namespaces.

Thread-safe. A ref has one writer at a time; a second one is refused (Unavailable, as containerd answers).
The layout is containerd's (plugins/content/local) and inside ``blobs`` also the OCI image layout's.
"""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from boxship.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    Unavailable,
)
from boxship.image.compression import CHUNK, Reader
from boxship.image.rooted import describe, fsync_directory
from boxship.oci import digest as digests
from boxship.oci.digest import Digest

FREED_AT_ONCE = 16 << 20
"""Bytes of a blob whose blocks are freed in no time."""


@dataclass(frozen=True, slots=True)
class BlobInfo:
    digest: Digest
    size: int
    created_ns: int


@dataclass(frozen=True, slots=True)
class IngestStatus:
    ref: str
    offset: int
    total: int
    expected: str
    started_ns: int
    updated_ns: int


class ContentStore:
    """The store at ``root``; several processes must not write to one root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._blobs = os.path.join(root, "blobs")
        self._ingest = os.path.join(root, "ingest")
        os.makedirs(os.path.join(self._blobs, "sha256"), mode=0o700, exist_ok=True)
        os.makedirs(self._ingest, mode=0o700, exist_ok=True)
        self._lock = threading.Lock()
        self._locked: set[str] = set()

    def path(self, digest: Digest) -> str:
        """Where the blob is or would be; ``digest`` must come from `digests.parse`."""
        algorithm, _, encoded = digest.partition(":")
        return os.path.join(self._blobs, algorithm, encoded)

    def info(self, digest: str) -> BlobInfo:
        """Raises NotFound."""
        name = digests.parse(digest)
        try:
            found = os.stat(self.path(name))
        except FileNotFoundError:
            raise NotFound(f"content {digest}: not found") from None
        return BlobInfo(name, found.st_size, found.st_mtime_ns)

    def exists(self, digest: str) -> bool:
        return os.path.exists(self.path(digests.parse(digest)))

    def open(self, digest: str) -> BinaryIO:
        """The blob, to be read and closed by the caller; raises NotFound."""
        try:
            return open(self.path(digests.parse(digest)), "rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"content {digest}: not found") from None

    def read(self, digest: str, limit: int = 4 << 20) -> bytes:
        """A small blob whole; raises InvalidArgument when it is larger than ``limit`` bytes."""
        with self.open(digest) as blob:
            data = blob.read(limit + 1)
        if len(data) > limit:
            raise InvalidArgument(f"content {digest} is larger than {limit} bytes")
        return data

    def walk(self) -> Iterator[BlobInfo]:
        for algorithm in sorted(os.listdir(self._blobs)):
            for name in sorted(os.listdir(os.path.join(self._blobs, algorithm))):
                try:
                    yield self.info(f"{algorithm}:{name}")
                except (NotFound, InvalidArgument):
                    continue  # deleted meanwhile, or not a blob of ours

    def delete(self, digest: str) -> None:
        """Idempotent: a blob that is not there is deleted."""
        held = self.unlink(digest)
        if held >= 0:
            os.close(held)

    def unlink(self, digest: str) -> int:
        """`delete` for callers that hold others up: the blob is gone, and its blocks are freed when the descriptor
        that this gives is closed, which takes a quarter of a second for gigabytes; -1 when nothing is left to do."""
        path = self.path(digests.parse(digest))
        try:
            held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # another was faster
        except BaseException:
            os.close(held)
            raise
        if os.fstat(held).st_size < FREED_AT_ONCE:
            os.close(held)
            return -1
        return held

    def writer(self, ref: str, *, total: int = 0, expected: str = "", algorithm: str = "sha256") -> "Writer":
        """Start or resume the ingestion ``ref``. ``total`` 0 means unknown.

        Its digest will be of the algorithm of ``expected``, else of ``algorithm``.

        Raises Unavailable when another writer holds the ref, AlreadyExists when ``expected`` is already there.
        """
        if not ref or "\n" in ref:
            raise InvalidArgument(f"invalid ref {ref!r}")
        if expected and self.exists(expected):
            raise AlreadyExists(f"content {expected}: already exists")
        with self._lock:
            if ref in self._locked:
                raise Unavailable(f"ref {ref} is locked by another writer")
            self._locked.add(ref)
        try:
            return Writer(self, ref, self._ingest_path(ref), total, expected, algorithm)
        except BaseException as error:
            self._unlock(ref)
            if isinstance(error, OSError):
                raise describe(error, f"cannot start the ingestion {ref}") from error
            raise

    def status(self, ref: str) -> IngestStatus:
        """Raises NotFound."""
        return self._status(self._ingest_path(ref), ref)

    def statuses(self) -> "list[IngestStatus]":
        found = []
        for name in sorted(os.listdir(self._ingest)):
            try:
                found.append(self._status(os.path.join(self._ingest, name), ""))
            except NotFound:
                continue  # finished meanwhile
        return found

    def expire(self, age_s: float) -> int:
        """Drop ingestions that nobody wrote to for ``age_s`` seconds; returns how many."""
        before = time.time_ns() - int(age_s * 1_000_000_000)
        dropped = 0
        for name in os.listdir(self._ingest):
            path = os.path.join(self._ingest, name)
            if os.stat(path).st_mtime_ns < before and all(
                found.stat().st_mtime_ns < before for found in os.scandir(path)
            ):
                shutil.rmtree(path)
                dropped += 1
        return dropped

    def abort(self, ref: str) -> None:
        """Forget the ingestion; raises NotFound when there is none."""
        path = self._ingest_path(ref)
        if not os.path.isdir(path):
            raise NotFound(f"ingestion {ref}: not found")
        shutil.rmtree(path)

    def put(self, source: "Reader | bytes", *, expected: str = "", size: int = -1) -> Digest:
        """`add` without the answer whether it is new."""
        return self.add(source, expected=expected, size=size)[0]

    def add(self, source: "Reader | bytes", *, expected: str = "", size: int = -1) -> "tuple[Digest, bool]":
        """Write a whole blob; says whether it is new. One that is there is read past and verified, not written.

        Raises DataLoss when ``size`` or ``expected`` is not what came; then nothing is left.
        """
        if isinstance(source, bytes):
            expected = expected or digests.of(source)
        if expected and self.exists(expected):
            _read_past(source, expected, size)
            return digests.parse(expected), False
        ref = f"put-{os.urandom(8).hex()}"
        writer = self.writer(ref, expected=expected)
        try:
            if isinstance(source, bytes):
                writer.write(source)
            else:
                while data := source.read(CHUNK):
                    writer.write(data)
                    if 0 <= size < writer.offset:
                        raise DataLoss(f"content {expected or ref} is longer than its size of {size} bytes")
            if 0 <= size != writer.offset:
                raise DataLoss(f"content {expected or ref} has {writer.offset} bytes, expected {size}")
            digest = writer.digest
            try:
                return writer.commit(expected=expected), True
            except AlreadyExists:
                return digest, False
        except BaseException:
            writer.discard()
            raise

    # -- for the writer

    def _ingest_path(self, ref: str) -> str:
        return os.path.join(self._ingest, hashlib.sha256(ref.encode()).hexdigest())

    def _status(self, path: str, ref: str) -> IngestStatus:
        try:
            with open(os.path.join(path, "ref"), encoding="utf-8") as file:
                name, started, total, expected = file.read().split("\n")
            found = os.stat(os.path.join(path, "data"))
        except (FileNotFoundError, ValueError):
            raise NotFound(f"ingestion {ref}: not found") from None
        return IngestStatus(name, found.st_size, int(total), expected, int(started), found.st_mtime_ns)

    def _unlock(self, ref: str) -> None:
        with self._lock:
            self._locked.discard(ref)


class Writer:
    """One ingestion being written. `close` keeps it for later, `discard` drops it, `commit` ends it."""

    def __init__(
        self, store: ContentStore, ref: str, path: str, total: int, expected: str, algorithm: str = "sha256"
    ) -> None:
        self.ref = ref
        self.total = total
        self.expected = expected
        self._store = store
        self._path = path
        self._open = True
        self.started_ns = time.time_ns()
        try:
            before = store._status(path, ref)
        except NotFound:
            os.makedirs(path, mode=0o700, exist_ok=True)
            with open(os.path.join(path, "ref"), "w", encoding="utf-8") as file:
                file.write(f"{ref}\n{self.started_ns}\n{total}\n{expected}")
        else:
            self.started_ns = before.started_ns
            self.total = total or before.total
            self.expected = expected or before.expected
        self.updated_ns = self.started_ns
        self._fd = os.open(os.path.join(path, "data"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._algorithm = digests.algorithm(digests.parse(self.expected)) if self.expected else algorithm
        self._restart()

    def _restart(self) -> None:
        """Hash what is there, so that a resumed ingestion is verified whole."""
        self._hash = digests.new_hash(self._algorithm)
        self.offset = 0
        os.lseek(self._fd, 0, os.SEEK_SET)
        while data := os.read(self._fd, CHUNK):
            self._hash.update(data)
            self.offset += len(data)

    @property
    def digest(self) -> Digest:
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")

    def write(self, data: bytes) -> None:
        """Append; raises ResourceExhausted when the disk is full, and then the written part stays consistent."""
        try:
            done = 0
            while done < len(data):
                written = os.write(self._fd, data[done:] if done else data)
                self._hash.update(data[done : done + written])
                self.offset += written
                done += written
        except OSError as error:
            raise describe(error, f"cannot write the ingestion {self.ref}") from error
        self.updated_ns = time.time_ns()

    def truncate(self, size: int) -> None:
        """Go back to ``size`` bytes; raises OutOfRange when there are fewer."""
        if size > self.offset:
            raise OutOfRange(f"ingestion {self.ref} has {self.offset} bytes, cannot continue at {size}")
        if size != self.offset:
            os.ftruncate(self._fd, size)
            self._restart()

    def sync(self) -> None:
        """Bring what has come to the disk, so that a commit soon after has little left to do."""
        os.fsync(self._fd)

    def commit(self, *, size: int = -1, expected: str = "") -> Digest:
        """Make it a blob. Raises DataLoss or FailedPrecondition (wrong size or digest: the ingestion stays, as
        for containerd), AlreadyExists (the blob is there; the ingestion is gone).

        An ``expected`` digest of another algorithm than the ingestion began with reads it all once more.
        """
        expected = expected or self.expected
        if expected and (algorithm := digests.algorithm(digests.parse(expected))) != self._algorithm:
            self._algorithm = algorithm
            self._restart()
        if size >= 0 and self.offset != size:
            raise FailedPrecondition(f"content {self.ref} has {self.offset} bytes, expected {size}")
        if expected and digests.parse(expected) != self.digest:
            raise DataLoss(f"content {self.ref} has digest {self.digest}, expected {expected}")
        digest = self.digest
        target = self._store.path(digest)
        if os.path.exists(target):
            self.discard()
            raise AlreadyExists(f"content {digest}: already exists")
        try:
            os.fchmod(self._fd, 0o444)
            os.fsync(self._fd)
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            os.rename(os.path.join(self._path, "data"), target)
            fsync_directory(os.path.dirname(target))
        except OSError as error:
            raise describe(error, f"cannot commit the ingestion {self.ref}") from error
        self.discard()
        return digest

    def close(self) -> None:
        """Keep what has come for a later writer. Closing twice is fine."""
        if self._open:
            self._open = False
            os.close(self._fd)
            self._store._unlock(self.ref)

    def discard(self) -> None:
        """Drop it; after a commit or a close there may be nothing left to drop."""
        shutil.rmtree(self._path, ignore_errors=True)
        self.close()


def _read_past(source: "Reader | bytes", expected: str, size: int) -> None:
    verifier = digests.Verifier(digests.parse(expected), size, f"content {expected}")
    if isinstance(source, bytes):
        verifier.update(source)
    else:
        while data := source.read(CHUNK):
            verifier.update(data)
    verifier.finish()
