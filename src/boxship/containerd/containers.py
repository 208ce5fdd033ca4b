"""The Containers service: records of what may run, without anything that runs."""

from collections.abc import AsyncIterator

from boxship.api.containerd.containers import (
    Container,
    CreateContainerRequest,
    CreateContainerResponse,
    DeleteContainerRequest,
    GetContainerRequest,
    GetContainerResponse,
    ListContainerMessage,
    ListContainersRequest,
    ListContainersResponse,
    UpdateContainerRequest,
    UpdateContainerResponse,
)
from boxship.api.containerd.context import required_namespace
from boxship.api.containerd.published import (
    ContainerCreate,
    ContainerCreateRuntime,
    ContainerDelete,
    ContainerUpdate,
)
from boxship.containerd.events import Exchange
from boxship.containerd.filters import message_lookup, parse
from boxship.containerd.records import Records, check_identifier, check_labels, mask_paths, masked_labels, now
from boxship.errors import InvalidArgument
from boxship.protobuf import Empty

_NAMES = {"runtime": "runtime.name"}  # as containerd's adaptor
_REPLACEABLE = ("image", "spec", "snapshot_key", "extensions", "sandbox")


class ContainersService:
    def __init__(self, records: "Records[Container]", exchange: Exchange) -> None:
        self._records = records
        self._exchange = exchange

    async def Get(self, request: GetContainerRequest) -> GetContainerResponse:
        return GetContainerResponse(container=self._records.get(required_namespace(), request.id))

    async def List(self, request: ListContainersRequest) -> ListContainersResponse:
        return ListContainersResponse(containers=self._matching(list(request.filters)))

    async def ListStream(self, request: ListContainersRequest) -> AsyncIterator[ListContainerMessage]:
        for container in self._matching(list(request.filters)):
            yield ListContainerMessage(container=container)

    async def Create(self, request: CreateContainerRequest) -> CreateContainerResponse:
        container = Container.decode(request.container.encode()) if request.container else Container()
        check_identifier(container.id, "container id")
        container.labels = check_labels(container.labels)
        if container.runtime is None or not container.runtime.name:
            raise InvalidArgument(f"container {container.id!r} names no runtime")
        if container.snapshot_key and not container.snapshotter:
            raise InvalidArgument(f"container {container.id!r} has a snapshot key but no snapshotter")
        container.created_at = container.updated_at = now()
        await self._records.create(required_namespace(), container.id, container)
        self._exchange.publish(
            "/containers/create",
            ContainerCreate(
                id=container.id,
                image=container.image,
                runtime=ContainerCreateRuntime(name=container.runtime.name, options=container.runtime.options),
            ),
        )
        return CreateContainerResponse(container=container)

    async def Update(self, request: UpdateContainerRequest) -> UpdateContainerResponse:
        wanted = request.container or Container()
        namespace = required_namespace()
        current = self._records.get(namespace, wanted.id)
        paths = mask_paths(request.update_mask)
        if not paths:
            paths = ["labels", *_REPLACEABLE]
            if wanted.snapshotter and wanted.snapshotter != current.snapshotter:
                raise InvalidArgument("container.Snapshotter field is immutable")
            if wanted.runtime and current.runtime and wanted.runtime.name != current.runtime.name:
                raise InvalidArgument("container.Runtime.Name field is immutable")
        for path in paths:
            if path == "labels" or path.startswith("labels."):
                continue
            if path.startswith("extensions."):
                key = path.removeprefix("extensions.")
                if key in wanted.extensions:
                    current.extensions[key] = wanted.extensions[key]
                else:
                    current.extensions.pop(key, None)
            elif path in _REPLACEABLE:
                setattr(current, path, getattr(wanted, path))
            else:
                raise InvalidArgument(f"cannot update {path!r} of container {wanted.id!r}")
        current.labels = masked_labels(current.labels, wanted.labels, paths)
        current.updated_at = now()
        await self._records.replace(namespace, current.id, current)
        self._exchange.publish(
            "/containers/update",
            ContainerUpdate(
                id=current.id,
                image=current.image,
                labels=current.labels,
                snapshot_key=current.snapshot_key,
            ),
        )
        return UpdateContainerResponse(container=current)

    async def Delete(self, request: DeleteContainerRequest) -> Empty:
        self._records.delete(required_namespace(), request.id)
        self._exchange.publish("/containers/delete", ContainerDelete(id=request.id))
        return Empty()

    def _matching(self, filters: "list[str]") -> "list[Container]":
        matches = parse(filters)
        return [one for one in self._records.list(required_namespace()) if matches(message_lookup(one, _NAMES))]
