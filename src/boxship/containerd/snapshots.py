"""The Snapshots service over the overlay snapshotter, the only one there is."""

import asyncio
from collections.abc import AsyncIterator

from boxship.api.containerd.context import required_namespace
from boxship.api.containerd.published import SnapshotCommit, SnapshotPrepare, SnapshotRemove
from boxship.api.containerd.snapshots import (
    CleanupRequest,
    CommitSnapshotRequest,
    Info,
    ListSnapshotsRequest,
    ListSnapshotsResponse,
    MountsRequest,
    MountsResponse,
    PrepareSnapshotRequest,
    PrepareSnapshotResponse,
    RemoveSnapshotRequest,
    StatSnapshotRequest,
    StatSnapshotResponse,
    UpdateSnapshotRequest,
    UpdateSnapshotResponse,
    UsageRequest,
    UsageResponse,
    ViewSnapshotRequest,
    ViewSnapshotResponse,
)
from boxship.api.containerd.types import Mount
from boxship.containerd.events import Exchange
from boxship.containerd.filters import message_lookup, parse
from boxship.containerd.leases import protect
from boxship.containerd.records import check_labels, ensure_namespace, mask_paths, masked_labels
from boxship.errors import InvalidArgument
from boxship.image import snapshots as library
from boxship.image.background import in_background
from boxship.image.database import Database
from boxship.image.snapshots import OverlaySnapshotter, SnapshotInfo
from boxship.protobuf import Empty, Timestamp

_PAGE = 100


class SnapshotsService:
    def __init__(self, snapshotter: OverlaySnapshotter, database: Database, exchange: Exchange) -> None:
        self._snapshotter = snapshotter
        self._database = database
        self._exchange = exchange
        self._removing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        await asyncio.gather(*self._removing, return_exceptions=True)

    async def Prepare(self, request: PrepareSnapshotRequest) -> PrepareSnapshotResponse:
        snapshotter = self._named(request.snapshotter)
        namespace = required_namespace()
        labels = check_labels(request.labels)
        with self._database.transaction():
            ensure_namespace(self._database, namespace)
            mounts = snapshotter.prepare(namespace, request.key, request.parent, labels)
            protect(self._database, f"snapshots/{snapshotter.name}", request.key)
        self._exchange.publish(
            "/snapshot/prepare",
            SnapshotPrepare(key=request.key, parent=request.parent, snapshotter=snapshotter.name),
        )
        return PrepareSnapshotResponse(mounts=to_messages(mounts))

    async def View(self, request: ViewSnapshotRequest) -> ViewSnapshotResponse:
        snapshotter = self._named(request.snapshotter)
        namespace = required_namespace()
        labels = check_labels(request.labels)
        with self._database.transaction():
            ensure_namespace(self._database, namespace)
            mounts = snapshotter.view(namespace, request.key, request.parent, labels)
            protect(self._database, f"snapshots/{snapshotter.name}", request.key)
        return ViewSnapshotResponse(mounts=to_messages(mounts))

    async def Mounts(self, request: MountsRequest) -> MountsResponse:
        mounts = self._named(request.snapshotter).mounts(required_namespace(), request.key)
        return MountsResponse(mounts=to_messages(mounts))

    async def Commit(self, request: CommitSnapshotRequest) -> Empty:
        snapshotter = self._named(request.snapshotter)
        namespace = required_namespace()
        labels = check_labels(request.labels)
        # Measuring its disk usage walks the tree.
        await in_background(snapshotter.commit, namespace, request.name, request.key, labels)
        protect(self._database, f"snapshots/{snapshotter.name}", request.name)
        self._exchange.publish(
            "/snapshot/commit",
            SnapshotCommit(key=request.key, name=request.name, snapshotter=snapshotter.name),
        )
        return Empty()

    async def Remove(self, request: RemoveSnapshotRequest) -> Empty:
        """The snapshot is gone when this answers; its files are deleted in the background."""
        snapshotter = self._named(request.snapshotter)
        aside = snapshotter.remove(required_namespace(), request.key, defer=True)
        if aside is not None:
            task = asyncio.get_running_loop().create_task(
                in_background(snapshotter.discard, aside), name=f"discard {aside}"
            )
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)
        self._exchange.publish("/snapshot/remove", SnapshotRemove(key=request.key, snapshotter=snapshotter.name))
        return Empty()

    async def Stat(self, request: StatSnapshotRequest) -> StatSnapshotResponse:
        info = self._named(request.snapshotter).stat(required_namespace(), request.key)
        return StatSnapshotResponse(info=_info(info))

    async def Update(self, request: UpdateSnapshotRequest) -> UpdateSnapshotResponse:
        snapshotter = self._named(request.snapshotter)
        wanted = request.info or Info()
        namespace = required_namespace()
        paths = mask_paths(request.update_mask) or ["labels"]
        if any(path != "labels" and not path.startswith("labels.") for path in paths):
            raise InvalidArgument(f"cannot update {', '.join(paths)} of snapshot {wanted.name!r}")
        current = snapshotter.stat(namespace, wanted.name)
        labels = masked_labels(current.labels, wanted.labels, paths)
        return UpdateSnapshotResponse(info=_info(snapshotter.update(namespace, wanted.name, labels)))

    async def List(self, request: ListSnapshotsRequest) -> AsyncIterator[ListSnapshotsResponse]:
        snapshotter = self._named(request.snapshotter)
        matches = parse(list(request.filters))
        found = [_info(one) for one in snapshotter.walk(required_namespace())]
        found = [one for one in found if matches(message_lookup(one))]
        for start in range(0, len(found), _PAGE):
            yield ListSnapshotsResponse(info=found[start : start + _PAGE])

    async def Usage(self, request: UsageRequest) -> UsageResponse:
        snapshotter = self._named(request.snapshotter)
        usage = await in_background(snapshotter.usage, required_namespace(), request.key)
        return UsageResponse(size=usage.size, inodes=usage.inodes)

    async def Cleanup(self, request: CleanupRequest) -> Empty:
        await in_background(self._named(request.snapshotter).cleanup)
        return Empty()

    def _named(self, name: str) -> OverlaySnapshotter:
        if not name:
            raise InvalidArgument("snapshotter argument missing")
        if name != self._snapshotter.name:
            raise InvalidArgument(f"snapshotter not loaded: {name}")
        return self._snapshotter


def to_messages(mounts: "list[library.Mount]") -> "list[Mount]":
    return [Mount(type=one.type, source=one.source, options=list(one.options)) for one in mounts]


def _info(info: SnapshotInfo) -> Info:
    return Info(
        name=info.name,
        parent=info.parent,
        kind=info.kind,
        created_at=Timestamp.from_ns(info.created_ns),
        updated_at=Timestamp.from_ns(info.updated_ns),
        labels=info.labels,
    )
