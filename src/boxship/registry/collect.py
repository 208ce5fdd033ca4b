"""Garbage collection: what no manifest needs goes.

A registry keeps every blob that was pushed until it is deleted, because a manifest may still come for it.
`collect` removes those for which none came. It works on a registry that nobody serves (its lock sees to that): all
rows go in one transaction, then the content that nobody has any more.
"""

from __future__ import annotations

import time
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
    """Remove blobs that no manifest needs and that came more than ``age`` seconds ago.

    ``untagged``: before that, manifests without a tag, unless an index needs them, and referrers without a subject.
    ``dry``: change nothing, say what would be.
    """
    before = time.time_ns() - int(age * 1_000_000_000)
    metadata, store = registry.metadata, registry.store
    manifests: list[str] = []
    blobs: list[str] = []
    try:
        with metadata.transaction():
            for repository in metadata.repositories():
                if untagged:
                    manifests += _remove_untagged(metadata, repository, before)
                for digest in metadata.unneeded(repository, before):
                    metadata.remove_blob(repository, digest)
                    blobs.append(digest)
            unowned = [digest for digest in {*manifests, *blobs} if not metadata.owned(digest)]
            if dry:
                raise _Undo
    except _Undo:
        pass
    freed = 0
    for digest in unowned:
        if store.exists(digest):
            freed += store.info(digests.parse(digest)).size
            if not dry:
                store.delete(digest)
    return Collected(len(manifests), len(blobs), freed)


def _remove_untagged(metadata: Metadata, repository: str, before: int) -> list[str]:
    """Until nothing more is found: what an index named has no name when it is gone, nor have referrers a subject."""
    removed: list[str] = []
    while found := metadata.untagged(repository, before) + metadata.orphaned(repository, before):
        for digest in found:
            metadata.remove_manifest(repository, digest)
        removed += found
    return removed
