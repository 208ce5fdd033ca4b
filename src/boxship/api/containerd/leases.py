"""The Leases service: what garbage collection must keep (containerd, api/services/leases/v1)."""

from boxship.protobuf import (
    Empty,
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


class Lease(Message, name="containerd.services.leases.v1.Lease"):
    id: str = string(1)
    created_at: Timestamp | None = message(2, Timestamp)
    labels: dict[str, str] = mapping(3, string)


class CreateRequest(Message, name="containerd.services.leases.v1.CreateRequest"):
    id: str = string(1)
    labels: dict[str, str] = mapping(3, string)


class CreateResponse(Message, name="containerd.services.leases.v1.CreateResponse"):
    lease: Lease | None = message(1, Lease)


class DeleteRequest(Message, name="containerd.services.leases.v1.DeleteRequest"):
    id: str = string(1)
    sync: bool = boolean(2)


class ListRequest(Message, name="containerd.services.leases.v1.ListRequest"):
    filters: list[str] = repeated(1, string)


class ListResponse(Message, name="containerd.services.leases.v1.ListResponse"):
    leases: list[Lease] = repeated(1, Lease)


class Resource(Message, name="containerd.services.leases.v1.Resource"):
    id: str = string(1)
    type: str = string(2)


class AddResourceRequest(Message, name="containerd.services.leases.v1.AddResourceRequest"):
    id: str = string(1)
    resource: Resource | None = message(2, Resource)


class DeleteResourceRequest(Message, name="containerd.services.leases.v1.DeleteResourceRequest"):
    id: str = string(1)
    resource: Resource | None = message(2, Resource)


class ListResourcesRequest(Message, name="containerd.services.leases.v1.ListResourcesRequest"):
    id: str = string(1)


class ListResourcesResponse(Message, name="containerd.services.leases.v1.ListResourcesResponse"):
    resources: list[Resource] = repeated(1, Resource)


class Leases(Service, name="containerd.services.leases.v1.Leases"):
    Create = unary(CreateRequest, CreateResponse)
    Delete = unary(DeleteRequest, Empty)
    List = unary(ListRequest, ListResponse)
    AddResource = unary(AddResourceRequest, Empty)
    DeleteResource = unary(DeleteResourceRequest, Empty)
    ListResources = unary(ListResourcesRequest, ListResourcesResponse)
