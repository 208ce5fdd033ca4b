"""The events that the services publish; a task's are in `boxship.api.task.events` (containerd, api/events)."""

from boxship.protobuf import Any, Message, int64, mapping, message, string


class ContainerCreateRuntime(Message, name="containerd.events.ContainerCreate.Runtime"):
    name: str = string(1)
    options: Any | None = message(2, Any)


class ContainerCreate(Message, name="containerd.events.ContainerCreate"):
    id: str = string(1)
    image: str = string(2)
    runtime: ContainerCreateRuntime | None = message(3, ContainerCreateRuntime)


class ContainerUpdate(Message, name="containerd.events.ContainerUpdate"):
    id: str = string(1)
    image: str = string(2)
    labels: dict[str, str] = mapping(3, string)
    snapshot_key: str = string(4)


class ContainerDelete(Message, name="containerd.events.ContainerDelete"):
    id: str = string(1)


class ContentCreate(Message, name="containerd.events.ContentCreate"):
    digest: str = string(1)
    size: int = int64(2)
    mediaType: str = string(3)


class ContentDelete(Message, name="containerd.events.ContentDelete"):
    digest: str = string(1)


class ImageCreate(Message, name="containerd.services.images.v1.ImageCreate"):
    name: str = string(1)
    labels: dict[str, str] = mapping(2, string)


class ImageUpdate(Message, name="containerd.services.images.v1.ImageUpdate"):
    name: str = string(1)
    labels: dict[str, str] = mapping(2, string)


class ImageDelete(Message, name="containerd.services.images.v1.ImageDelete"):
    name: str = string(1)


class NamespaceCreate(Message, name="containerd.events.NamespaceCreate"):
    name: str = string(1)
    labels: dict[str, str] = mapping(2, string)


class NamespaceUpdate(Message, name="containerd.events.NamespaceUpdate"):
    name: str = string(1)
    labels: dict[str, str] = mapping(2, string)


class NamespaceDelete(Message, name="containerd.events.NamespaceDelete"):
    name: str = string(1)


class SnapshotPrepare(Message, name="containerd.events.SnapshotPrepare"):
    key: str = string(1)
    parent: str = string(2)
    snapshotter: str = string(5)


class SnapshotCommit(Message, name="containerd.events.SnapshotCommit"):
    key: str = string(1)
    name: str = string(2)
    snapshotter: str = string(5)


class SnapshotRemove(Message, name="containerd.events.SnapshotRemove"):
    key: str = string(1)
    snapshotter: str = string(5)
