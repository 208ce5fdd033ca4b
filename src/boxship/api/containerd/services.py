"""Which services there are: one table that the client, the gRPC server and the in-process binding share."""

from typing import Protocol

from boxship.api.containerd.containers import Containers
from boxship.api.containerd.content import Content
from boxship.api.containerd.diff import Diff
from boxship.api.containerd.events import Events
from boxship.api.containerd.images import Images
from boxship.api.containerd.introspection import Introspection
from boxship.api.containerd.leases import Leases
from boxship.api.containerd.namespaces import Namespaces
from boxship.api.containerd.snapshots import Snapshots
from boxship.api.containerd.tasks import Tasks
from boxship.api.containerd.version import Version
from boxship.protobuf import Service

# attribute of the client and of the services -> declaration
SERVICES: "dict[str, type[Service]]" = {
    "namespaces": Namespaces,
    "containers": Containers,
    "content": Content,
    "images": Images,
    "snapshots": Snapshots,
    "diff": Diff,
    "leases": Leases,
    "tasks": Tasks,
    "events": Events,
    "version": Version,
    "introspection": Introspection,
}


class Services(Protocol):
    """The service objects of one containerd: one attribute for each entry of SERVICES."""

    @property
    def namespaces(self) -> object: ...
    @property
    def containers(self) -> object: ...
    @property
    def content(self) -> object: ...
    @property
    def images(self) -> object: ...
    @property
    def snapshots(self) -> object: ...
    @property
    def diff(self) -> object: ...
    @property
    def leases(self) -> object: ...
    @property
    def tasks(self) -> object: ...
    @property
    def events(self) -> object: ...
    @property
    def version(self) -> object: ...
    @property
    def introspection(self) -> object: ...
