"""The Namespaces service (containerd, api/services/namespaces/v1)."""

from boxship.protobuf import Empty, FieldMask, Message, Service, mapping, message, repeated, string, unary


class Namespace(Message, name="containerd.services.namespaces.v1.Namespace"):
    name: str = string(1)
    labels: dict[str, str] = mapping(2, string)


class GetNamespaceRequest(Message, name="containerd.services.namespaces.v1.GetNamespaceRequest"):
    name: str = string(1)


class GetNamespaceResponse(Message, name="containerd.services.namespaces.v1.GetNamespaceResponse"):
    namespace: Namespace | None = message(1, Namespace)


class ListNamespacesRequest(Message, name="containerd.services.namespaces.v1.ListNamespacesRequest"):
    filter: str = string(1)


class ListNamespacesResponse(Message, name="containerd.services.namespaces.v1.ListNamespacesResponse"):
    namespaces: list[Namespace] = repeated(1, Namespace)


class CreateNamespaceRequest(Message, name="containerd.services.namespaces.v1.CreateNamespaceRequest"):
    namespace: Namespace | None = message(1, Namespace)


class CreateNamespaceResponse(Message, name="containerd.services.namespaces.v1.CreateNamespaceResponse"):
    namespace: Namespace | None = message(1, Namespace)


class UpdateNamespaceRequest(Message, name="containerd.services.namespaces.v1.UpdateNamespaceRequest"):
    namespace: Namespace | None = message(1, Namespace)
    update_mask: FieldMask | None = message(2, FieldMask)


class UpdateNamespaceResponse(Message, name="containerd.services.namespaces.v1.UpdateNamespaceResponse"):
    namespace: Namespace | None = message(1, Namespace)


class DeleteNamespaceRequest(Message, name="containerd.services.namespaces.v1.DeleteNamespaceRequest"):
    name: str = string(1)


class Namespaces(Service, name="containerd.services.namespaces.v1.Namespaces"):
    Get = unary(GetNamespaceRequest, GetNamespaceResponse)
    List = unary(ListNamespacesRequest, ListNamespacesResponse)
    Create = unary(CreateNamespaceRequest, CreateNamespaceResponse)
    Update = unary(UpdateNamespaceRequest, UpdateNamespaceResponse)
    Delete = unary(DeleteNamespaceRequest, Empty)
