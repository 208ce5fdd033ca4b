"""The Introspection and Version services: what clients ask before anything else."""

import os
import uuid

from boxship.api.containerd.introspection import (
    Plugin,
    PluginInfoRequest,
    PluginInfoResponse,
    PluginsRequest,
    PluginsResponse,
    ServerResponse,
)
from boxship.api.containerd.services import SERVICES
from boxship.api.containerd.types import Platform
from boxship.api.containerd.version import VersionResponse
from boxship.containerd.filters import message_lookup, parse
from boxship.errors import NotFound
from boxship.oci import platform as platforms
from boxship.protobuf import Empty

# Clients compare this with containerd's own versions: the API that we serve is that of 1.7 (ListStream, Server's
# pid and namespace), so that is what is answered; the revision says who really answers.
API_VERSION = "v1.7.0+boxship"


class IntrospectionService:
    """``root`` holds the file ``uuid``, which names this installation for good."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._plugins = _plugins(root)

    async def Plugins(self, request: PluginsRequest) -> PluginsResponse:
        matches = parse(list(request.filters))
        return PluginsResponse(plugins=[one for one in self._plugins if matches(message_lookup(one))])

    async def Server(self, request: Empty) -> ServerResponse:
        return ServerResponse(uuid=self._uuid(), pid=os.getpid(), pidns=os.stat("/proc/self/ns/pid").st_ino)

    async def PluginInfo(self, request: PluginInfoRequest) -> PluginInfoResponse:
        for plugin in self._plugins:
            if (plugin.type, plugin.id) == (request.type, request.id):
                return PluginInfoResponse(plugin=plugin)
        raise NotFound(f"plugin {request.type}.{request.id}: not found")

    def _uuid(self) -> str:
        path = os.path.join(self._root, "uuid")
        try:
            with open(path, encoding="ascii") as file:
                return file.read()
        except FileNotFoundError:
            made = str(uuid.uuid4())
            with open(path + ".new", "w", encoding="ascii") as file:
                file.write(made)
            os.rename(path + ".new", path)
            return made


class VersionService:
    async def Version(self, request: Empty) -> VersionResponse:
        return VersionResponse(version=API_VERSION, revision="boxship")


def _plugins(root: str) -> "list[Plugin]":
    here = platforms.host()
    platform = Platform(os=here.os, architecture=here.architecture, variant=here.variant)
    plugins = [
        Plugin(type="io.containerd.content.v1", id="content", exports={"root": os.path.join(root, "content")}),
        Plugin(
            type="io.containerd.snapshotter.v1",
            id="overlayfs",
            platforms=[platform],
            exports={"root": os.path.join(root, "snapshotter")},
        ),
        Plugin(type="io.containerd.metadata.v1", id="bolt", exports={"policy": "shared"}),
        Plugin(type="io.containerd.differ.v1", id="walking", platforms=[platform]),
        Plugin(type="io.containerd.event.v1", id="exchange"),
        Plugin(type="io.containerd.gc.v1", id="scheduler"),
        Plugin(type="io.containerd.lease.v1", id="manager"),
        Plugin(type="io.containerd.runtime.v2", id="task", platforms=[platform]),
    ]
    plugins += [Plugin(type="io.containerd.grpc.v1", id=name) for name in SERVICES]
    return plugins
