"""The messages that containerd's services share (containerd, api/types); some are the task API's too."""

from boxship.api.task.types import Envelope, Mount, Process, ProcessInfo, Status
from boxship.protobuf import Any, Message, Timestamp, int64, mapping, message, repeated, string

__all__ = ["Descriptor", "Envelope", "Metric", "Mount", "Platform", "Process", "ProcessInfo", "Status"]


class Descriptor(Message, name="containerd.types.Descriptor"):
    media_type: str = string(1)
    digest: str = string(2)
    size: int = int64(3)
    annotations: dict[str, str] = mapping(5, string)


class Platform(Message, name="containerd.types.Platform"):
    os: str = string(1)
    architecture: str = string(2)
    variant: str = string(3)
    os_version: str = string(4)
    os_features: list[str] = repeated(5, string)


class Metric(Message, name="containerd.types.Metric"):
    timestamp: Timestamp | None = message(1, Timestamp)
    id: str = string(2)
    data: Any | None = message(3, Any)
