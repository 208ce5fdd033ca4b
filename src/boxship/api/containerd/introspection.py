"""The Introspection service (containerd, api/services/introspection/v1)."""

from boxship.api.containerd.types import Platform
from boxship.protobuf import (
    Any,
    Empty,
    Message,
    Service,
    Status,
    Timestamp,
    mapping,
    repeated,
    string,
    uint64,
    unary,
)
from boxship.protobuf import message as nested  # a field is called message


class Plugin(Message, name="containerd.services.introspection.v1.Plugin"):
    type: str = string(1)
    id: str = string(2)
    requires: list[str] = repeated(3, string)
    platforms: list[Platform] = repeated(4, Platform)
    exports: dict[str, str] = mapping(5, string)
    capabilities: list[str] = repeated(6, string)
    init_err: Status | None = nested(7, Status)


class PluginsRequest(Message, name="containerd.services.introspection.v1.PluginsRequest"):
    filters: list[str] = repeated(1, string)


class PluginsResponse(Message, name="containerd.services.introspection.v1.PluginsResponse"):
    plugins: list[Plugin] = repeated(1, Plugin)


class Deprecation(Message, name="containerd.services.introspection.v1.DeprecationWarning"):
    id: str = string(1)
    message: str = string(2)
    last_occurrence: Timestamp | None = nested(3, Timestamp)


class ServerResponse(Message, name="containerd.services.introspection.v1.ServerResponse"):
    uuid: str = string(1)
    pid: int = uint64(2)
    pidns: int = uint64(3)
    deprecations: list[Deprecation] = repeated(4, Deprecation)


class PluginInfoRequest(Message, name="containerd.services.introspection.v1.PluginInfoRequest"):
    type: str = string(1)
    id: str = string(2)
    options: Any | None = nested(3, Any)


class PluginInfoResponse(Message, name="containerd.services.introspection.v1.PluginInfoResponse"):
    plugin: Plugin | None = nested(1, Plugin)
    extra: Any | None = nested(2, Any)


class Introspection(Service, name="containerd.services.introspection.v1.Introspection"):
    Plugins = unary(PluginsRequest, PluginsResponse)
    Server = unary(Empty, ServerResponse)
    PluginInfo = unary(PluginInfoRequest, PluginInfoResponse)
