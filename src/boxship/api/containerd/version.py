"""The Version service (containerd, api/services/version/v1)."""

from boxship.protobuf import Empty, Message, Service, string, unary


class VersionResponse(Message, name="containerd.services.version.v1.VersionResponse"):
    version: str = string(1)
    revision: str = string(2)


class Version(Service, name="containerd.services.version.v1.Version"):
    Version = unary(Empty, VersionResponse)
