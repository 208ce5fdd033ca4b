"""One engine: its services put together, its containerd events followed."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from boxship.api.containerd import Client
from boxship.api.containerd.events import SubscribeRequest
from boxship.api.containerd.namespaces import CreateNamespaceRequest, Namespace
from boxship.api.containerd.tasks import CloseIORequest, ListPidsRequest
from boxship.api.task.events import TaskExit, TaskOOM
from boxship.errors import AlreadyExists, BoxshipError
from boxship.http.messages import Stream

from . import spec
from .attach import Wanted
from .attach import serve as serve_attach
from .config import NAMESPACE, EngineConfig
from .create import Creator
from .events import EventBus
from .execs import Execs
from .filesystem import FileSystems
from .images import Images
from .lifecycle import Lifecycle
from .live import Live
from .network_api import Networks
from .registries import Registries
from .stats import Stats
from .store import ContainerStore
from .volumes import Volumes

log = logging.getLogger("boxship.engine")

RESUBSCRIBE = 0.5  # seconds before events are asked for again after containerd went away


class Engine:
    """Owns every service of an engine. ``start`` before serving, ``close`` after; containers outlive it."""

    def __init__(
        self, config: EngineConfig, client: Client, networks: Networks, built_in_images: Path | None = None
    ) -> None:
        self.config = config
        self.client = client
        self.host = spec.HostFacts.read()
        self.store = ContainerStore(config.containers_root)
        self.events = EventBus()
        self.volumes = Volumes(config.volumes_root, self.events, self._volume_users)
        self.images = Images(client, self.events, self._image_users, built_in_images)
        self.registries = Registries(config, self.images, self.events)
        self.networks = networks
        self.creator = Creator(client, self.store, self.images, self.volumes, config, self.host)
        self.lifecycle = Lifecycle(client, self.store, self.volumes, networks, self.events, config, self.host)
        self.file_systems = FileSystems(client, self.images, self.lifecycle)
        self.execs = Execs(client, self.lifecycle, config, self.host)
        self.stats = Stats(client, self.host.memory)
        self._following: asyncio.Task[None] | None = None

    def _volume_users(self, name: str) -> list[str]:
        return [r.Id for r in self.store.all() if any(m.Type == "volume" and m.Name == name for m in r.Mounts)]

    def _image_users(self, id: str) -> list[tuple[str, bool]]:
        return [(r.Id, r.State.Running) for r in self.store.all() if r.Image == id]

    async def start(self) -> None:
        """Take over what an earlier engine left, then follow events."""
        try:
            await self.client.namespaces.Create(CreateNamespaceRequest(namespace=Namespace(name=NAMESPACE)))
        except AlreadyExists:
            pass  # every start but the first
        self.store.load()
        subscribed = asyncio.Event()
        self._following = asyncio.get_running_loop().create_task(self._follow(subscribed), name="task events")
        await subscribed.wait()
        # Subscribed first: an exit in between comes as an event or is seen as a stopped task, or both.
        await self.lifecycle.adopt(starting=True)

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self.lifecycle.close()
        await self.networks.close(running=any(record.State.Running for record in self.store.all()))

    async def _follow(self, subscribed: asyncio.Event) -> None:
        request = SubscribeRequest(filters=[f'namespace=="{NAMESPACE}",topic~="/tasks/"'])
        while True:
            try:
                stream = self.client.events.Subscribe(request)
                asyncio.get_running_loop().call_later(0.01, subscribed.set)
                async for envelope in stream:
                    subscribed.set()
                    if envelope.event is None:
                        continue
                    if envelope.event.holds(TaskExit):
                        event = envelope.event.unpack(TaskExit)
                        handler = (
                            self.lifecycle.on_exit if event.id in ("", event.container_id) else self.execs.on_exit
                        )
                        self.lifecycle.later(handler(event), f"exit of {event.container_id[:12]}")
                    elif envelope.event.holds(TaskOOM):
                        self._on_oom(envelope.event.unpack(TaskOOM).container_id)
            except BoxshipError as error:
                log.warning("containerd's events: %s", error)
            await asyncio.sleep(RESUBSCRIBE)
            if self._following is not None and subscribed.is_set():
                await self.lifecycle.adopt()  # what happened while nobody told us

    def _on_oom(self, id: str) -> None:
        record = self.store.find(id)
        if record is not None:
            self.lifecycle.live(record).oom_killed = True
            self.lifecycle.publish(record, "oom")

    async def attach(self, live: Live, stream: Stream, wanted: Wanted) -> None:
        """Serve an attached client of a container's own process until either side ends it."""
        live.stdio.create()  # a client may attach before the first start
        if wanted.stdin:
            live.stdio.open_input()
        client = live.stdio.attach(wanted.outputs) if wanted.outputs else None
        detached = await serve_attach(stream, live.stdio, client, wanted, lambda: self._close_stdin(live))
        if detached:
            self.lifecycle.publish(live.record, "detach")

    async def _close_stdin(self, live: Live) -> None:
        # A FIFO that nobody else has open would lose what is in it: the shim must have its end first.
        await live.started.wait()
        live.stdio.close_input()
        try:
            await self.client.tasks.CloseIO(CloseIORequest(container_id=live.record.Id, stdin=True))
        except BoxshipError:
            return  # it ended meanwhile

    async def pids(self, live: Live) -> list[int]:
        response = await self.client.tasks.ListPids(ListPidsRequest(container_id=live.record.Id))
        return sorted(process.pid for process in response.processes)
