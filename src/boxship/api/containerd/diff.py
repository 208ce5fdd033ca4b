"""The Diff service: layers to snapshots and back (containerd, api/services/diff/v1)."""

from boxship.api.containerd.types import Descriptor, Mount
from boxship.protobuf import (
    Any,
    Message,
    Service,
    Timestamp,
    boolean,
    mapping,
    message,
    repeated,
    string,
    unary,
)


class ApplyRequest(Message, name="containerd.services.diff.v1.ApplyRequest"):
    diff: Descriptor | None = message(1, Descriptor)
    mounts: list[Mount] = repeated(2, Mount)
    payloads: dict[str, Any] = mapping(3, Any)
    sync_fs: bool = boolean(4)


class ApplyResponse(Message, name="containerd.services.diff.v1.ApplyResponse"):
    applied: Descriptor | None = message(1, Descriptor)


class DiffRequest(Message, name="containerd.services.diff.v1.DiffRequest"):
    left: list[Mount] = repeated(1, Mount)
    right: list[Mount] = repeated(2, Mount)
    media_type: str = string(3)
    ref: str = string(4)
    labels: dict[str, str] = mapping(5, string)
    source_date_epoch: Timestamp | None = message(6, Timestamp)


class DiffResponse(Message, name="containerd.services.diff.v1.DiffResponse"):
    diff: Descriptor | None = message(3, Descriptor)


class Diff(Service, name="containerd.services.diff.v1.Diff"):
    Apply = unary(ApplyRequest, ApplyResponse)
    Diff = unary(DiffRequest, DiffResponse)
