"""Garbage collection: what no root reaches is removed (containerd, docs/garbage-collection.md).

Roots: images (their target), containers (their snapshot), leases that have not expired (their resources), and
whatever is labelled ``containerd.io/gc.root``. References: the labels ``containerd.io/gc.ref.content*`` (a
digest) and ``containerd.io/gc.ref.snapshot.<snapshotter>*`` (a name) of whatever was reached, and a snapshot's
parent. Namespaces are apart; a blob's file goes when no namespace knows it any more.

Mark and sweep of the metadata are one transaction, so that nothing can be added to what is being removed; files
go afterwards, in a worker thread.
"""

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from boxship.api.containerd.containers import Container
from boxship.api.containerd.images import Image
from boxship.api.containerd.leases import Lease
from boxship.containerd.records import decode_labels
from boxship.image.content import ContentStore
from boxship.image.database import Database
from boxship.image.snapshots import OverlaySnapshotter

_REF_CONTENT = "containerd.io/gc.ref.content"
_REF_SNAPSHOT = "containerd.io/gc.ref.snapshot."
_ROOT = "containerd.io/gc.root"
_EXPIRE = "containerd.io/gc.expire"
_ORPHAN_AGE = 3600  # seconds
_HELD = 64  # descriptors of deleted blobs
_DELAY = 1.0  # seconds between a removal that does not wait and its collection

Node = tuple[str, str, str]  # namespace, "content" or "snapshot", digest or name


class Collector:
    """Owned by the services; `close` it when they end."""

    def __init__(self, database: Database, content: ContentStore, snapshotter: OverlaySnapshotter) -> None:
        self._database = database
        self._content = content
        self._snapshotter = snapshotter
        self._lock = asyncio.Lock()
        self._timer: "asyncio.TimerHandle | None" = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def collect(self) -> None:
        """Remove everything unreachable; answers when it is gone."""
        async with self._lock:
            await asyncio.to_thread(self._run)

    def schedule(self) -> None:
        """Collect soon; several requests become one."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_DELAY, self._start)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self) -> None:
        self._timer = None
        task = asyncio.get_running_loop().create_task(self.collect(), name="gc")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _run(self) -> None:
        blobs: list[str] = []
        snapshots: list[int] = []
        held: list[int] = []
        with self._database.transaction():
            reached = self._mark()
            for namespace, digest in self._database.rows("SELECT namespace, digest FROM content"):
                if (namespace, "content", digest) not in reached:
                    self._database.run("DELETE FROM content WHERE namespace=? AND digest=?", (namespace, digest))
                    blobs.append(digest)
            # Children have larger numbers than their parents.
            for id, namespace, name in self._database.rows(
                "SELECT id, namespace, name FROM snapshots ORDER BY id DESC"
            ):
                if (namespace, "snapshot", name) not in reached:
                    self._database.run("DELETE FROM snapshots WHERE id=?", (id,))
                    snapshots.append(id)
            known = {row[0] for row in self._database.rows("SELECT DISTINCT digest FROM content")}
            for digest in blobs:
                if digest not in known:
                    self._delete(digest, held)
        for fd in held:
            os.close(fd)
        if snapshots:
            self._snapshotter.cleanup()
        self._sweep_orphans(known)

    def _delete(self, digest: str, held: "list[int]") -> None:
        """Delete a blob; the blocks of a large one are freed with its descriptor in ``held``, which keeps few."""
        fd = self._content.unlink(digest)
        if fd >= 0:
            held.append(fd)
        if len(held) > _HELD:
            os.close(held.pop(0))

    def _sweep_orphans(self, known: "set[str]") -> None:
        """Blobs that no namespace knows: their writer ended between the rename and the record. A young one may be
        just there."""
        before = time.time_ns() - _ORPHAN_AGE * 1_000_000_000
        for blob in self._content.walk():
            if blob.digest not in known and blob.created_ns < before:
                self._content.delete(blob.digest)

    def _mark(self) -> "set[Node]":
        content = {
            (namespace, digest): decode_labels(labels)
            for namespace, digest, labels in self._database.rows("SELECT namespace, digest, labels FROM content")
        }
        snapshots = {
            (namespace, name): (parent, decode_labels(labels))
            for namespace, name, parent, labels in self._database.rows(
                "SELECT s.namespace, s.name, p.name, s.labels FROM snapshots s LEFT JOIN snapshots p"
                " ON p.id = s.parent"
            )
        }
        reached: set[Node] = set()
        pending = list(self._roots())
        pending += [(ns, "content", digest) for (ns, digest), labels in content.items() if _ROOT in labels]
        pending += [(ns, "snapshot", name) for (ns, name), (_, labels) in snapshots.items() if _ROOT in labels]
        while pending:
            node = pending.pop()
            if node in reached:
                continue
            reached.add(node)
            namespace, kind, name = node
            if kind == "content":
                pending += _references(namespace, content.get((namespace, name), {}))
            elif (namespace, name) in snapshots:
                parent, labels = snapshots[namespace, name]
                if parent:
                    pending.append((namespace, "snapshot", parent))
                pending += _references(namespace, labels)
        return reached

    def _roots(self) -> Iterator[Node]:
        rows = self._database.rows("SELECT kind, namespace, name, record FROM records")
        for kind, namespace, name, record in rows:
            match kind:
                case "image":
                    image = Image.decode(record)
                    yield from _references(namespace, image.labels)
                    if image.target is not None:
                        yield namespace, "content", image.target.digest
                case "container":
                    container = Container.decode(record)
                    yield from _references(namespace, container.labels)
                    if container.snapshot_key:
                        yield namespace, "snapshot", container.snapshot_key
                case "lease":
                    if not _expired(Lease.decode(record).labels.get(_EXPIRE, "")):
                        yield from self._leased(namespace, name)

    def _leased(self, namespace: str, lease: str) -> Iterator[Node]:
        for type, id in self._database.rows(
            "SELECT type, id FROM lease_resources WHERE namespace=? AND lease=?", (namespace, lease)
        ):
            if type == "content":
                yield namespace, "content", id
            elif type.startswith("snapshots/"):
                yield namespace, "snapshot", id


def _references(namespace: str, labels: Mapping[str, str]) -> Iterator[Node]:
    for key, value in labels.items():
        if key == _REF_CONTENT or key.startswith((_REF_CONTENT + ".", _REF_CONTENT + "/")):
            yield namespace, "content", value
        elif key.startswith(_REF_SNAPSHOT):
            yield namespace, "snapshot", value


def _expired(text: str) -> bool:
    """An RFC 3339 time that has passed; what cannot be read keeps its lease."""
    if not text:
        return False
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")) < datetime.now(UTC)
    except (ValueError, TypeError):
        return False
