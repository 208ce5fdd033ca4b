"""Garbage collection: what no manifest needs goes.

A registry keeps every blob that was pushed until it is deleted, because a manifest may still come for it.
`collect` removes those for which none came, on a registry that nobody serves (`boxship registry gc`) or that is being
served (``--gc-every``): the rows of one repository at a time, then the content that nobody has any more.

Why a push beside it loses nothing: rows are removed, and content is, under the lock under which a push checks what a
manifest needs and writes its rows (`Registry.owning`). So a manifest comes before, and its blobs are needed, or
after, and is refused. No client need see that: who pushes uploads each blob, mounts it, or asks whether it is there,
and each of these makes it as young as a new one; only what has been left alone for ``age`` goes.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from boxship.oci import digest as digests

from .metadata import Metadata
from .registry import Registry


@dataclass(frozen=True, slots=True)
class Collected:
    """Manifests and blobs that repositories lost, and the bytes of the disk that this freed."""

    manifests: int
    blobs: int
    freed: int


class _Undo(Exception):
    """Ends a transaction that only wanted to know."""


def collect(registry: Registry, *, age: float, untagged: bool = False, dry: bool = False) -> Collected:
    """Remove blobs that no manifest needs and that nobody pushed or asked for (HEAD) in the last ``age`` seconds.

    ``untagged``: before that, manifests without a tag, unless an index needs them, and referrers without a subject.
    ``dry``: change nothing, say what would be.
    """
    before = time.time_ns() - int(age * 1_000_000_000)
    if dry:
        return _rehearse(registry, before, untagged)
    manifests: list[str] = []
    blobs: list[str] = []
    for repository in registry.metadata.repositories():
        with registry.owning(), registry.metadata.transaction():
            _remove_rows(registry.metadata, repository, before, untagged, manifests, blobs)
    registry.metadata.sync()
    freed = sum(registry.release(digest) for digest in {*manifests, *blobs})
    return Collected(len(manifests), len(blobs), freed)


def _rehearse(registry: Registry, before: int, untagged: bool) -> Collected:
    manifests: list[str] = []
    blobs: list[str] = []
    metadata, store = registry.metadata, registry.store
    unowned: list[str] = []
    with registry.owning(), suppress(_Undo), metadata.transaction():
        for repository in metadata.repositories():
            _remove_rows(metadata, repository, before, untagged, manifests, blobs)
        unowned = [digest for digest in {*manifests, *blobs} if not metadata.owned(digest)]
        raise _Undo
    freed = sum(store.info(digests.parse(digest)).size for digest in unowned if store.exists(digest))
    return Collected(len(manifests), len(blobs), freed)


def _remove_rows(
    metadata: Metadata, repository: str, before: int, untagged: bool, manifests: list[str], blobs: list[str]
) -> None:
    """What one repository loses is added to the lists."""
    if untagged:
        manifests += _remove_untagged(metadata, repository, before)
    for digest in metadata.unneeded(repository, before):
        metadata.remove_blob(repository, digest)
        blobs.append(digest)


def _remove_untagged(metadata: Metadata, repository: str, before: int) -> list[str]:
    """Until nothing more is found: what an index named has no name when it is gone, nor have referrers a subject."""
    removed: list[str] = []
    while found := metadata.untagged(repository, before) + metadata.orphaned(repository, before):
        for digest in found:
            metadata.remove_manifest(repository, digest)
        removed += found
    return removed
