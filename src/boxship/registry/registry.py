"""What a registry does, without HTTP: content of repositories, in one directory.

``DIR/`` is a content store (``blobs/``, ``ingest/``) with ``registry.db`` (`metadata`) and ``lock`` beside it.

The order is what makes a kill at any moment harmless: content is whole on the disk before a row says that a
repository has it, and the row is gone before the content is removed. What a crash leaves between the two belongs to
nobody; it is removed at the next start.
Adding a row for content that is there already and removing content that nobody has exclude each other (``_owning``).

All methods block: they are for worker threads.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from boxship.errors import (
    AlreadyExists,
    BoxshipError,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from boxship.image.content import ContentStore, Writer
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci.digest import Digest

from . import manifests, names
from .errors import SpecError
from .metadata import Manifest, Metadata

UPLOAD_AGE = 24 * 3600.0
"""Seconds after which an upload that nobody continues is dropped."""


class Registry:
    """The registry in the directory ``root``, which is made when it is not there; one process has it at a time.

    ``sparse`` lets manifests in whose content is not there (the spec leaves it to the registry).
    Close it when done.
    Raises FailedPrecondition (in use), PermissionDenied, InvalidArgument (no directory), DataLoss.
    """

    def __init__(self, root: str, *, sparse: bool = False) -> None:
        self.root = root
        self._sparse = sparse
        self._owning = threading.Lock()
        try:
            os.makedirs(root, mode=0o700, exist_ok=True)
            self._lock = _lock(root)
        except OSError as error:
            raise _unusable(error, root) from error
        try:
            self.store = ContentStore(root)
            self.metadata = Metadata(os.path.join(root, "registry.db"))
            self.store.expire(UPLOAD_AGE)
            self._sweep()
        except OSError as error:
            os.close(self._lock)
            raise _unusable(error, root) from error
        except sqlite3.Error as error:
            os.close(self._lock)
            raise DataLoss(f"cannot use {root}/registry.db", cause=str(error)) from error
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        self.metadata.close()
        os.close(self._lock)

    @contextmanager
    def owning(self) -> Iterator[None]:
        """No row for content that is there already is added meanwhile, and no content removed. Does not nest."""
        with self._owning:
            yield

    # ── Blobs ──

    def blob_size(self, repository: str, digest: Digest) -> int:
        """For whoever may push a manifest next: the blob is as good as new to collection.

        Raises SpecError (BLOB_UNKNOWN).
        """
        if self.metadata.touch_blob(repository, digest, time.time_ns()):
            try:
                return self.store.info(digest).size
            except NotFound:
                pass  # deleted by hand: it is not there
        raise _blob_unknown(repository, digest)

    def open_blob(self, repository: str, digest: Digest) -> tuple[BinaryIO, int]:
        """The blob, to be closed by the caller, and its size. Raises SpecError (BLOB_UNKNOWN)."""
        if self.metadata.has_blob(repository, digest):
            try:
                blob = self.store.open(digest)
                return blob, os.fstat(blob.fileno()).st_size
            except NotFound:
                pass
        raise _blob_unknown(repository, digest)

    def add_blob(self, repository: str, writer: Writer, digest: Digest) -> None:
        """End an upload: its bytes become the repository's blob ``digest``.

        Raises SpecError (DIGEST_INVALID); then the upload is gone.
        """
        try:
            writer.sync()
            with self._owning:
                try:
                    writer.commit(expected=digest)
                except AlreadyExists:
                    pass  # another repository has it, or this one
                self.metadata.add_blob(repository, digest, time.time_ns())
            self.metadata.sync()
        except DataLoss as error:
            raise SpecError("DIGEST_INVALID", error.message) from error
        finally:
            writer.discard()

    def mount(self, repository: str, digest: Digest, source: str) -> bool:
        """Give a blob of ``source`` (any repository when "") to ``repository`` too; whether it has it."""
        with self._owning:
            found = self.metadata.has_blob(source, digest) if source else self.metadata.has_blob_anywhere(digest)
            found = found and self.store.exists(digest)
            if found:
                self.metadata.add_blob(repository, digest, time.time_ns())
        if found:
            self.metadata.sync()
        return found

    def delete_blob(self, repository: str, digest: Digest) -> None:
        """Raises SpecError (BLOB_UNKNOWN)."""
        with self._owning:
            if not self.metadata.remove_blob(repository, digest):
                raise _blob_unknown(repository, digest)
            self._release(digest)
        self.metadata.sync()

    # ── Manifests ──

    def manifest(self, repository: str, reference: str, *, touch: bool = False) -> tuple[Manifest, bytes]:
        """By tag or digest, with its bytes; with ``touch`` it is as good as new to collection.

        Raises SpecError (MANIFEST_UNKNOWN, NAME_UNKNOWN).
        """
        if touch and ":" in reference:
            self.metadata.touch_manifest(repository, reference, time.time_ns())
        found = self.metadata.manifest(repository, reference)
        if found is not None:
            try:
                return found, self.store.read(found.digest)
            except NotFound:
                pass  # deleted by hand, or just now
        raise self._manifest_unknown(repository, reference)

    def put_manifest(
        self,
        repository: str,
        data: bytes,
        media_type: str,
        digest: Digest,
        tags: Iterable[str],
        allowed: Callable[[Manifest | None], None],
    ) -> Manifest:
        """Take a manifest in; ``tags`` mean it from now on.

        ``allowed`` sees what the first tag (or the digest) means, and may raise.

        Raises SpecError (MANIFEST_INVALID, MANIFEST_BLOB_UNKNOWN, DIGEST_INVALID).
        """
        found = digests.of(data, digests.algorithm(digest))
        if found != digest:
            raise SpecError("DIGEST_INVALID", f"the manifest has digest {found}, its name says {digest}")
        pushed = manifests.read(data, media_type)
        tags = list(tags)
        manifest = Manifest(
            digest, pushed.media_type, len(data), pushed.subject, pushed.artifact_type, pushed.annotations
        )
        with self._owning:
            allowed(self.metadata.manifest(repository, tags[0] if tags else digest))
            self._check_needs(repository, pushed.needs)
            self.store.put(data, expected=digest)
            needs = {need.digest for need in pushed.needs}
            self.metadata.add_manifest(repository, manifest, needs, tags, time.time_ns())
        self.metadata.sync()
        return manifest

    def _check_needs(self, repository: str, needs: list[oci.Descriptor]) -> None:
        missing = []
        for need in needs:
            known = self.metadata.manifest(repository, need.digest)
            if known is not None:
                size = known.size
            elif self.metadata.has_blob(repository, need.digest) and self.store.exists(need.digest):
                size = self.store.info(need.digest).size
            else:
                missing.append(need.digest)
                continue
            if size != need.size:
                raise SpecError(
                    "MANIFEST_INVALID", f"{need.digest} has {size} bytes, the manifest says {need.size}"
                )  # fmt: skip
        if missing and not self._sparse:
            raise SpecError(
                "MANIFEST_BLOB_UNKNOWN",
                f"repository {repository} lacks what the manifest needs: {', '.join(missing[:3])}",
                remedy="push it first, or serve with --sparse",
                detail=[{"digest": digest} for digest in missing[:100]],
            )

    def delete(self, repository: str, reference: str) -> None:
        """A tag, or a manifest with all its tags. Raises SpecError (MANIFEST_UNKNOWN, NAME_UNKNOWN)."""
        with self._owning:
            if ":" not in reference:
                removed = self.metadata.remove_tag(repository, reference)
            elif removed := self.metadata.remove_manifest(repository, reference):
                self._release(names.digest(reference))
            if not removed:
                raise self._manifest_unknown(repository, reference)
        self.metadata.sync()

    def _manifest_unknown(self, repository: str, reference: str) -> SpecError:
        if not self.metadata.exists(repository):
            return SpecError("NAME_UNKNOWN", f"there is no repository {repository}")
        separator = "@" if ":" in reference else ":"
        return SpecError("MANIFEST_UNKNOWN", f"there is no manifest {repository}{separator}{reference}")

    # ── Lists ──

    def tags(self, repository: str, last: str, limit: int) -> list[str]:
        """Raises SpecError (NAME_UNKNOWN)."""
        if not self.metadata.exists(repository):
            raise SpecError("NAME_UNKNOWN", f"there is no repository {repository}")
        return self.metadata.tags(repository, last, limit)

    # ── Content that nobody has ──

    def release(self, digest: str) -> int:
        """Remove the content unless somebody has it; the bytes that this freed.

        Whoever had it has lost the row before, and `Metadata.sync` was called since.
        """
        parsed = digests.parse(digest)
        with self._owning:
            if self.metadata.owned(parsed) or not self.store.exists(parsed):
                return 0
            size = self.store.info(parsed).size
            self.store.delete(parsed)
            return size

    def _release(self, digest: Digest) -> None:
        """Remove the content unless somebody has it; under ``_owning``."""
        if not self.metadata.owned(digest):
            self.metadata.sync()  # a row that came back with the power would name nothing
            self.store.delete(digest)

    def _sweep(self) -> None:
        """Remove what a crash left between content and rows."""
        for blob in list(self.store.walk()):
            self._release(blob.digest)


def _lock(root: str) -> int:
    """The directory is this process's until the descriptor is closed."""
    fd = os.open(os.path.join(root, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise FailedPrecondition(
            f"another process serves or collects {root}", remedy="stop it, or use another directory"
        ) from None
    return fd


def _unusable(error: OSError, root: str) -> BoxshipError:
    cause = error.strerror or str(error)
    if isinstance(error, PermissionError):
        return PermissionDenied(f"cannot use {root} as a registry", cause=cause, remedy="its user must own it")
    return InvalidArgument(f"cannot use {root} as a registry", cause=cause)


def _blob_unknown(repository: str, digest: str) -> SpecError:
    return SpecError("BLOB_UNKNOWN", f"repository {repository} has no blob {digest}")
