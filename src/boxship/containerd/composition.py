"""All services of one containerd, put together: the one place that knows every module of this package."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from boxship.api.containerd.containers import Container
from boxship.api.containerd.images import Image
from boxship.api.containerd.leases import Lease
from boxship.api.task.events import Events
from boxship.containerd.bundles import Bundles
from boxship.containerd.containers import ContainersService
from boxship.containerd.content import ContentService
from boxship.containerd.diff import DiffService
from boxship.containerd.events import EventsService, Exchange, ShimEvents
from boxship.containerd.gc import Collector
from boxship.containerd.grpc_server import serve
from boxship.containerd.images import ImagesService
from boxship.containerd.introspection import IntrospectionService, VersionService
from boxship.containerd.leases import LeasesService
from boxship.containerd.namespaces import NamespacesService
from boxship.containerd.records import SCHEMA, Records
from boxship.containerd.runtimes import Addresses, Runtimes
from boxship.containerd.shims import Shims
from boxship.containerd.snapshots import SnapshotsService
from boxship.containerd.sockets import remove_stale_socket
from boxship.containerd.tasks import TasksService
from boxship.errors import NotFound
from boxship.image.content import ContentStore
from boxship.image.database import Database
from boxship.image.snapshots import OverlaySnapshotter
from boxship.ttrpc import aio

_INGEST_AGE = 24 * 3600.0  # seconds until an ingestion that nobody goes on with is dropped, as for containerd


@dataclass(frozen=True, slots=True)
class ContainerdServices:
    """The service objects; `boxship.api.containerd.Client.in_process` binds to them."""

    namespaces: NamespacesService
    containers: ContainersService
    content: ContentService
    images: ImagesService
    snapshots: SnapshotsService
    diff: DiffService
    leases: LeasesService
    tasks: TasksService
    events: EventsService
    version: VersionService
    introspection: IntrospectionService


@asynccontextmanager
async def open_services(
    root: str, state: str, address: "str | None" = None, *, exec_root: str = "", group: int = -1
) -> AsyncIterator[ContainerdServices]:
    """Open the services on their directories, adopt the shims that live, and serve gRPC when there is an
    ``address`` (a socket's path).

    ``root`` keeps what must survive a reboot, ``state`` what must not. ``exec_root`` is where the zygote and shims
    have their sockets (default: ``state``). Leaving the block closes everything; tasks go on.
    Raises FailedPrecondition when another process serves these sockets.
    """
    os.makedirs(root, mode=0o711, exist_ok=True)
    os.makedirs(state, mode=0o711, exist_ok=True)
    grpc_path = address.removeprefix("unix://") if address else os.path.join(state, "containerd.sock")
    ttrpc_path = grpc_path + ".ttrpc"
    async with AsyncExitStack() as stack:
        remove_stale_socket(ttrpc_path)
        database = Database(os.path.join(root, "meta.db"))
        stack.callback(database.close)
        database.script(SCHEMA)
        snapshotter = OverlaySnapshotter(os.path.join(root, "snapshotter"), database)
        snapshotter.cleanup()
        store = ContentStore(os.path.join(root, "content"))
        store.expire(_INGEST_AGE)
        exchange = Exchange()
        collector = Collector(database, store, snapshotter)
        stack.push_async_callback(collector.close)
        containers = Records(database, "container", "container", Container)
        runtimes = Runtimes(Addresses(grpc_path, ttrpc_path), exec_root or state)
        shims = Shims(Bundles(root, state), runtimes, exchange)
        stack.push_async_callback(shims.close)
        content = ContentService(store, database, exchange)
        snapshots = SnapshotsService(snapshotter, database, exchange)
        stack.push_async_callback(snapshots.close)
        services = ContainerdServices(
            namespaces=NamespacesService(database, exchange),
            containers=ContainersService(containers, exchange),
            content=content,
            images=ImagesService(Records(database, "image", "image", Image), exchange, collector),
            snapshots=snapshots,
            diff=DiffService(store, content),
            leases=LeasesService(database, Records(database, "lease", "lease", Lease), collector),
            tasks=TasksService(containers, shims),
            events=EventsService(exchange),
            version=VersionService(),
            introspection=IntrospectionService(root),
        )
        # Shims report to this socket from their first event on, so it is there before any is adopted.
        shim_events = aio.Server({Events: ShimEvents(exchange)})
        await shim_events.listen(ttrpc_path)
        stack.push_async_callback(shim_events.close)
        os.chmod(ttrpc_path, 0o600)

        def known(namespace: str, id: str) -> bool:
            try:
                containers.get(namespace, id)
            except NotFound:
                return False
            return True

        await shims.adopt(known)
        if address is not None:
            await stack.enter_async_context(serve(services, grpc_path, group=group))
        yield services
