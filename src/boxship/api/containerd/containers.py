"""The Containers service: the records; a running process is a task (containerd, api/services/containers/v1)."""

from boxship.protobuf import (
    Any,
    Empty,
    FieldMask,
    Message,
    Service,
    Timestamp,
    mapping,
    message,
    repeated,
    server_stream,
    string,
    unary,
)


class ContainerRuntime(Message, name="containerd.services.containers.v1.Container.Runtime"):
    name: str = string(1)
    options: Any | None = message(2, Any)


class Container(Message, name="containerd.services.containers.v1.Container"):
    id: str = string(1)
    labels: dict[str, str] = mapping(2, string)
    image: str = string(3)
    runtime: ContainerRuntime | None = message(4, ContainerRuntime)
    spec: Any | None = message(5, Any)
    snapshotter: str = string(6)
    snapshot_key: str = string(7)
    created_at: Timestamp | None = message(8, Timestamp)
    updated_at: Timestamp | None = message(9, Timestamp)
    extensions: dict[str, Any] = mapping(10, Any)
    sandbox: str = string(11)


class GetContainerRequest(Message, name="containerd.services.containers.v1.GetContainerRequest"):
    id: str = string(1)


class GetContainerResponse(Message, name="containerd.services.containers.v1.GetContainerResponse"):
    container: Container | None = message(1, Container)


class ListContainersRequest(Message, name="containerd.services.containers.v1.ListContainersRequest"):
    filters: list[str] = repeated(1, string)


class ListContainersResponse(Message, name="containerd.services.containers.v1.ListContainersResponse"):
    containers: list[Container] = repeated(1, Container)


class CreateContainerRequest(Message, name="containerd.services.containers.v1.CreateContainerRequest"):
    container: Container | None = message(1, Container)


class CreateContainerResponse(Message, name="containerd.services.containers.v1.CreateContainerResponse"):
    container: Container | None = message(1, Container)


class UpdateContainerRequest(Message, name="containerd.services.containers.v1.UpdateContainerRequest"):
    container: Container | None = message(1, Container)
    update_mask: FieldMask | None = message(2, FieldMask)


class UpdateContainerResponse(Message, name="containerd.services.containers.v1.UpdateContainerResponse"):
    container: Container | None = message(1, Container)


class DeleteContainerRequest(Message, name="containerd.services.containers.v1.DeleteContainerRequest"):
    id: str = string(1)


class ListContainerMessage(Message, name="containerd.services.containers.v1.ListContainerMessage"):
    container: Container | None = message(1, Container)


class Containers(Service, name="containerd.services.containers.v1.Containers"):
    Get = unary(GetContainerRequest, GetContainerResponse)
    List = unary(ListContainersRequest, ListContainersResponse)
    ListStream = server_stream(ListContainersRequest, ListContainerMessage)
    Create = unary(CreateContainerRequest, CreateContainerResponse)
    Update = unary(UpdateContainerRequest, UpdateContainerResponse)
    Delete = unary(DeleteContainerRequest, Empty)
