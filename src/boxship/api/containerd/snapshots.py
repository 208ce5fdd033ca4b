"""The Snapshots service (containerd, api/services/snapshots/v1)."""

from boxship.api.containerd.types import Mount
from boxship.protobuf import (
    Empty,
    Enum,
    FieldMask,
    Message,
    Service,
    Timestamp,
    enum,
    int64,
    mapping,
    message,
    repeated,
    server_stream,
    string,
    unary,
)


class Kind(Enum, name="containerd.services.snapshots.v1.Kind"):
    UNKNOWN = 0
    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


class PrepareSnapshotRequest(Message, name="containerd.services.snapshots.v1.PrepareSnapshotRequest"):
    snapshotter: str = string(1)
    key: str = string(2)
    parent: str = string(3)
    labels: dict[str, str] = mapping(4, string)


class PrepareSnapshotResponse(Message, name="containerd.services.snapshots.v1.PrepareSnapshotResponse"):
    mounts: list[Mount] = repeated(1, Mount)


class ViewSnapshotRequest(Message, name="containerd.services.snapshots.v1.ViewSnapshotRequest"):
    snapshotter: str = string(1)
    key: str = string(2)
    parent: str = string(3)
    labels: dict[str, str] = mapping(4, string)


class ViewSnapshotResponse(Message, name="containerd.services.snapshots.v1.ViewSnapshotResponse"):
    mounts: list[Mount] = repeated(1, Mount)


class MountsRequest(Message, name="containerd.services.snapshots.v1.MountsRequest"):
    snapshotter: str = string(1)
    key: str = string(2)


class MountsResponse(Message, name="containerd.services.snapshots.v1.MountsResponse"):
    mounts: list[Mount] = repeated(1, Mount)


class RemoveSnapshotRequest(Message, name="containerd.services.snapshots.v1.RemoveSnapshotRequest"):
    snapshotter: str = string(1)
    key: str = string(2)


class CommitSnapshotRequest(Message, name="containerd.services.snapshots.v1.CommitSnapshotRequest"):
    snapshotter: str = string(1)
    name: str = string(2)
    key: str = string(3)
    labels: dict[str, str] = mapping(4, string)
    parent: str = string(5)


class StatSnapshotRequest(Message, name="containerd.services.snapshots.v1.StatSnapshotRequest"):
    snapshotter: str = string(1)
    key: str = string(2)


class Info(Message, name="containerd.services.snapshots.v1.Info"):
    name: str = string(1)
    parent: str = string(2)
    kind: int = enum(3)  # Kind
    created_at: Timestamp | None = message(4, Timestamp)
    updated_at: Timestamp | None = message(5, Timestamp)
    labels: dict[str, str] = mapping(6, string)


class StatSnapshotResponse(Message, name="containerd.services.snapshots.v1.StatSnapshotResponse"):
    info: Info | None = message(1, Info)


class UpdateSnapshotRequest(Message, name="containerd.services.snapshots.v1.UpdateSnapshotRequest"):
    snapshotter: str = string(1)
    info: Info | None = message(2, Info)
    update_mask: FieldMask | None = message(3, FieldMask)


class UpdateSnapshotResponse(Message, name="containerd.services.snapshots.v1.UpdateSnapshotResponse"):
    info: Info | None = message(1, Info)


class ListSnapshotsRequest(Message, name="containerd.services.snapshots.v1.ListSnapshotsRequest"):
    snapshotter: str = string(1)
    filters: list[str] = repeated(2, string)


class ListSnapshotsResponse(Message, name="containerd.services.snapshots.v1.ListSnapshotsResponse"):
    info: list[Info] = repeated(1, Info)


class UsageRequest(Message, name="containerd.services.snapshots.v1.UsageRequest"):
    snapshotter: str = string(1)
    key: str = string(2)


class UsageResponse(Message, name="containerd.services.snapshots.v1.UsageResponse"):
    size: int = int64(1)
    inodes: int = int64(2)


class CleanupRequest(Message, name="containerd.services.snapshots.v1.CleanupRequest"):
    snapshotter: str = string(1)


class Snapshots(Service, name="containerd.services.snapshots.v1.Snapshots"):
    Prepare = unary(PrepareSnapshotRequest, PrepareSnapshotResponse)
    View = unary(ViewSnapshotRequest, ViewSnapshotResponse)
    Mounts = unary(MountsRequest, MountsResponse)
    Commit = unary(CommitSnapshotRequest, Empty)
    Remove = unary(RemoveSnapshotRequest, Empty)
    Stat = unary(StatSnapshotRequest, StatSnapshotResponse)
    Update = unary(UpdateSnapshotRequest, UpdateSnapshotResponse)
    List = server_stream(ListSnapshotsRequest, ListSnapshotsResponse)
    Usage = unary(UsageRequest, UsageResponse)
    Cleanup = unary(CleanupRequest, Empty)
