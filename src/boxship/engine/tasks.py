"""The task of a container: all that a start makes for it, in order, and how each step is taken back.

Making it changes no state: `Lifecycle` does, which starts the task and sees to its end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec

from boxship.api.containerd import Client
from boxship.api.containerd.containers import (
    Container,
    ContainerRuntime,
    CreateContainerRequest,
    DeleteContainerRequest,
)
from boxship.api.containerd.snapshots import MountsRequest
from boxship.api.containerd.tasks import CreateTaskRequest, DeleteTaskRequest, KillRequest
from boxship.api.containerd.types import Mount
from boxship.api.task.options import RuncOptions, ShimOptions
from boxship.errors import AlreadyExists, BoxshipError, FailedPrecondition, InvalidArgument, NotFound
from boxship.protobuf import Any

from . import files, parse, rootview, spec
from .config import BOXSHIP_SHIM, DEFAULT_RUNTIME, RUNC_SHIM, EngineConfig
from .create import SNAPSHOTTER
from .live import Live
from .models import Record
from .network_api import Networks
from .store import ContainerStore

log = logging.getLogger("boxship.engine.tasks")

SPEC_TYPE_URL = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
KILL_GRACE = 10.0  # seconds for a killed container's exit to be reported

Undo = Callable[[], Awaitable[object]]


class StartRefused(InvalidArgument):
    """The command cannot be executed: its exit code would be 126 or 127."""


class Tasks:
    """Makes the tasks of containers, and takes them away."""

    def __init__(
        self, client: Client, store: ContainerStore, networks: Networks, config: EngineConfig, host: spec.HostFacts
    ) -> None:
        self._client = client
        self._store = store
        self._networks = networks
        self._config = config
        self._host = host
        self._identities: dict[tuple[str, ...], spec.Identity] = {}

    async def make(self, live: Live, undo: list[Undo]) -> int:
        """Everything up to the start, in order, and the pid of what waits for it.

        ``undo`` collects how to take each step back.
        """
        record, client = live.record, self._client
        mounts = (await client.snapshots.Mounts(MountsRequest(snapshotter=SNAPSHOTTER, key=record.Id))).mounts
        around = await self._surroundings(record, mounts)
        attachment = await self._networks.reserve(record)
        undo.append(partial(self._networks.release, record))
        record.Networks, record.Ports = attachment.networks, attachment.ports
        gateway = next((e.Gateway for e in record.Networks.values() if e.Gateway), "")
        directory = self._store.directory(record.Id)
        around.files = files.write(directory, record, self._config.dns or self._networks.nameservers(), gateway)
        if record.HostConfig.NetworkMode.startswith("container:"):
            # Who shares a network shares what is known about it.
            directory = self._store.directory(self._store.get(record.HostConfig.NetworkMode.partition(":")[2]).Id)
            around.files = {target: str(directory / Path(target).name) for target in around.files}
        document = spec.build(record, self._host, around)
        live.stdio.create()
        live.stdio.open_input()
        undo.append(partial(_close_stdio, live))
        runtime, options = self._runtime(record)
        await self._create_container(record, document, runtime)
        undo.append(partial(client.containers.Delete, DeleteContainerRequest(id=record.Id)))
        created = await client.tasks.Create(
            CreateTaskRequest(
                container_id=record.Id,
                rootfs=mounts,
                stdin=live.stdio.stdin,
                stdout=live.stdio.stdout,
                stderr=live.stdio.stderr,
                terminal=record.Config.Tty,
                options=options,
            )
        )
        undo.append(partial(self.destroy, record.Id))
        await self._networks.connect(record, attachment, created.pid)
        return created.pid

    async def destroy(self, id: str) -> None:
        """Kill it and delete it; one that is gone is fine."""
        try:
            await self._client.tasks.Kill(KillRequest(container_id=id, signal=9, all=True))
        except (NotFound, FailedPrecondition):
            pass  # it never ran, or is gone; deleting it is what counts
        deadline = time.monotonic() + KILL_GRACE
        while True:
            try:
                await self._client.tasks.Delete(DeleteTaskRequest(container_id=id))
                return
            except NotFound:
                return
            except FailedPrecondition:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.005)

    async def _create_container(self, record: Record, document: spec.Spec, runtime: str) -> None:
        request = CreateContainerRequest(
            container=Container(
                id=record.Id,
                labels={"com.docker/engine.bundle.path": ""},
                image=record.ImageName,
                runtime=ContainerRuntime(name=runtime),
                spec=Any(type_url=SPEC_TYPE_URL, value=msgspec.json.encode(document)),
                snapshotter=SNAPSHOTTER,
                snapshot_key=record.Id,
            )
        )
        try:
            await self._client.containers.Create(request)
        except AlreadyExists:
            # Left by an engine that died between a start and its answer.
            await self.destroy(record.Id)
            await self._client.containers.Delete(DeleteContainerRequest(id=record.Id))
            await self._client.containers.Create(request)

    def _runtime(self, record: Record) -> tuple[str, Any]:
        """The shim's name and its options for ``HostConfig.Runtime``; raises InvalidArgument for an unknown one."""
        name = record.HostConfig.Runtime
        if name in (DEFAULT_RUNTIME, BOXSHIP_SHIM, "runc") and name not in self._config.runtimes:
            options = ShimOptions(runtime_root="", log_driver="")
            if record.HostConfig.LogConfig.Type == "json-file":
                log_options = record.HostConfig.LogConfig.Config or {}
                options.log_driver = "json-file"
                options.log_path = str(self._config.log_path(record.Id))
                options.log_max_size = parse.size(log_options.get("max-size", ""))
                options.log_max_files = int(log_options.get("max-file", "1") or 1)
            return BOXSHIP_SHIM, Any.pack(options)
        if name.startswith("io.containerd."):
            return name, Any()
        path = self._config.runtimes.get(name)
        if path is None:
            raise InvalidArgument(f"unknown or invalid runtime name: {name}")
        return RUNC_SHIM, Any.pack(RuncOptions(binary_name=path))

    async def _surroundings(self, record: Record, mounts: list[Mount]) -> spec.Surroundings:
        around = spec.Surroundings(mounts=record.Mounts)
        around.identity = await self._identity(record, mounts)
        around.namespaces = self._shared_namespaces(record)
        if record.HostConfig.Init:
            if not self._config.init_path:
                raise FailedPrecondition("--init: this installation has no init program", remedy="reinstall boxship")
            around.init_path = self._config.init_path
        for point in record.Mounts:
            if point.Type == "bind" and not Path(point.Source).exists():
                raise InvalidArgument(
                    f'invalid mount config for type "bind": bind source path does not exist: {point.Source}'
                )
        return around

    async def _identity(self, record: Record, mounts: list[Mount]) -> spec.Identity:
        """Who the container's process is. A container that never ran has its image's answer, which is kept."""
        further = record.HostConfig.GroupAdd or []
        key = (record.Image, record.Config.User, *further)
        if not record.HasBeenStarted and key in self._identities:
            return self._identities[key]

        def look() -> spec.Identity:
            with rootview.of_mounts(mounts) as root:
                return rootview.identity(root, record.Config.User, further)

        found = await asyncio.to_thread(look)
        if not record.HasBeenStarted:
            self._identities[key] = found
        return found

    def _shared_namespaces(self, record: Record) -> dict[str, str]:
        """Namespaces that are the host's ("host") or another container's (a path)."""
        found: dict[str, str] = {}
        for kind, option, mode in (
            ("network", "net", record.HostConfig.NetworkMode),
            ("pid", "pid", record.HostConfig.PidMode),
            ("ipc", "ipc", record.HostConfig.IpcMode),
            ("uts", "uts", record.HostConfig.UTSMode),
        ):
            if mode == "host":
                found[kind] = "host"
            elif mode.startswith("container:"):
                other = self._store.get(mode.partition(":")[2])
                if not other.State.Running:
                    raise FailedPrecondition(f"cannot join {kind} of a non running container: {other.Id}")
                found[kind] = f"/proc/{other.State.Pid}/ns/{option}"
        return found


async def _close_stdio(live: Live) -> None:
    live.stdio.remove()


async def take_back(undo: list[Undo]) -> None:
    """Undo what was made, the last first."""
    for step in reversed(undo):
        try:
            await step()
        except BoxshipError as error:
            log.warning("taking back a failed start: %s", error)


def translate(record: Record, error: Exception) -> BoxshipError:
    """A failed start in dockerd's words: clients tell 126 and 127 from the text."""
    if not isinstance(error, BoxshipError):
        log.exception("start of container %s", record.Id, exc_info=error)
        return FailedPrecondition(f"start of container {record.Name}: {error!r}")
    text = str(error)
    if exit_code_of(error) in (126, 127):
        return StartRefused(
            f"failed to create task for container: failed to create shim task: OCI runtime create failed: {text}"
        )
    return error


def exit_code_of(error: BoxshipError) -> int:
    """What ``docker run`` exits with: 127 for no such command, 126 for one that is not executable, else 128."""
    text = str(error).lower()
    if "executable file not found" in text or ("no such file or directory" in text and "exec" in text):
        return 127
    if "permission denied" in text or "is a directory" in text:
        return 126
    return 128
