"""Starting, stopping, ending, removing: a container's states and what moves it between them.

::

    created ──start──► running ──exit──► exited ──start──► running ...
       │                 │  ▲               │
       │              pause unpause         ├─ restart policy: restarting ──► running
       └──remove──► (gone) ◄──remove────────┘

Whoever changes a state holds the container's lock.  An exit comes as an event of the shim, through containerd; the
engine does not wait on processes.  A start that fails takes back all that it made and leaves the container created
(or exited), with the error in its state.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any as AnyType

import msgspec

from boxship import tracing
from boxship.api.containerd import Client
from boxship.api.containerd.containers import (
    Container,
    ContainerRuntime,
    CreateContainerRequest,
    DeleteContainerRequest,
)
from boxship.api.containerd.snapshots import MountsRequest, RemoveSnapshotRequest
from boxship.api.containerd.tasks import (
    CreateTaskRequest,
    DeleteTaskRequest,
    GetRequest,
    KillRequest,
    PauseTaskRequest,
    ResizePtyRequest,
    ResumeTaskRequest,
    StartRequest,
)
from boxship.api.containerd.types import Mount, Status
from boxship.api.task.events import TaskExit
from boxship.api.task.options import RuncOptions, ShimOptions
from boxship.errors import AlreadyExists, BoxshipError, FailedPrecondition, InvalidArgument, NotFound
from boxship.protobuf import Any

from . import files, parse, rootview, spec
from .clock import ZERO, now, parse_rfc3339, rfc3339
from .config import BOXSHIP_SHIM, DEFAULT_RUNTIME, RUNC_SHIM, EngineConfig
from .create import SNAPSHOTTER
from .events import EventBus
from .live import Live
from .models import Record, State
from .network_api import Networks
from .stdio import Stdio
from .store import ContainerStore
from .volumes import Volumes

log = logging.getLogger("boxship.engine.lifecycle")

SPEC_TYPE_URL = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
BACKOFF_FIRST, BACKOFF_MAX = 0.1, 60.0  # seconds before a restart by policy; doubles with each
BACKOFF_RESET = 10.0  # a container that ran this long starts over with the first
KILL_GRACE = 10.0  # seconds for a killed container's exit to be reported


Undo = Callable[[], Awaitable[object]]


class NotModified(BoxshipError):
    """The container is in that state already; HTTP 304."""

    kind = "failed_precondition"
    http_status = 304


class StartRefused(InvalidArgument):
    """The command cannot be executed: its exit code would be 126 or 127."""


class Lifecycle:
    """Owns every container's state; the routes and the restart policy call it."""

    def __init__(
        self,
        client: Client,
        store: ContainerStore,
        volumes: Volumes,
        networks: Networks,
        events: EventBus,
        config: EngineConfig,
        host: spec.HostFacts,
    ) -> None:
        self._client = client
        self._store = store
        self._volumes = volumes
        self._networks = networks
        self._events = events
        self._config = config
        self._host = host
        self._live: dict[str, Live] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._identities: dict[tuple[str, ...], spec.Identity] = {}

    # -- looking up

    def live(self, record: Record) -> Live:
        found = self._live.get(record.Id)
        if found is None:
            stdio = Stdio(
                self._config.fifo_directory(record.Id), tty=record.Config.Tty, stdin=record.Config.OpenStdin
            )
            found = self._live[record.Id] = Live(record, stdio)
        return found

    def get(self, reference: str) -> Live:
        """Raises NotFound."""
        return self.live(self._store.get(reference))

    def publish(self, record: Record, action: str, **attributes: str) -> None:
        labels = record.Config.Labels or {}
        self._events.publish(
            "container",
            action,
            record.Id,
            {**labels, **attributes, "image": record.ImageName, "name": record.Name},
        )

    def later(self, work: Coroutine[AnyType, AnyType, None], name: str) -> asyncio.Task[None]:
        """Run in the background, owned by the engine; a failure is logged, not lost."""

        async def guarded() -> None:
            try:
                await work
            except BoxshipError as error:
                log.error("%s: %s", name, error)
            except Exception:
                log.exception("%s", name)

        task = asyncio.get_running_loop().create_task(guarded(), name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def close(self) -> None:
        """Stop following; containers go on."""
        for live in self._live.values():
            if live.restart:
                live.restart.cancel()
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    # -- start

    async def start(self, live: Live) -> None:
        """Raises NotModified when it runs, StartRefused when its command cannot be executed, and what broke."""
        async with live.lock:
            record = live.record
            if record.State.Paused:
                raise FailedPrecondition("cannot start a paused container, try unpause instead")
            if record.State.Running:
                raise NotModified(f"container {record.Name} is already started")
            if record.State.Dead or record.State.Status == "removing":
                raise FailedPrecondition("container is marked for removal and cannot be started")
            if live.restart is not None:
                live.restart.cancel()
                live.restart = None
            record.StoppedByUser = False
            record.RestartCount = 0
            live.backoff = 0.0
            try:
                await self._start(live)
            except BoxshipError:
                if record.HostConfig.AutoRemove:
                    await self._remove(live, volumes=True)
                raise

    async def _start(self, live: Live) -> None:
        record = live.record
        live.trace = tracing.current.get()
        undo: list[Undo] = []
        try:
            await self._make_task(live, undo)
        except asyncio.CancelledError:
            await self._undo(undo)
            raise
        except Exception as error:
            await self._undo(undo)
            translated = self._translate(record, error)
            record.State.Error = str(translated)
            record.State.ExitCode = exit_code_of(translated)
            record.State.Status = "exited" if record.HasBeenStarted else "created"
            self._store.save(record)
            live.exited(record.State.ExitCode)
            raise translated from error

    async def _make_task(self, live: Live, undo: list[Undo]) -> None:
        """The whole start, in order; ``undo`` collects how to take each step back."""
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
        undo.append(partial(self._close_stdio, live))
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
        undo.append(partial(self._destroy_task, record.Id))
        await self._networks.connect(record, attachment, created.pid)
        # From here on the exit event may come at any moment: the state must say running before the process runs.
        before = record.State
        record.State = State(
            Status="running", Running=True, Pid=created.pid, StartedAt=now(), FinishedAt=before.FinishedAt
        )
        record.HasBeenStarted = True
        live.oom_killed = False
        self._store.save(record)
        try:
            await client.tasks.Start(StartRequest(container_id=record.Id))
        except BaseException:
            record.State = before
            raise
        live.started.set()
        self.publish(record, "start")

    async def _undo(self, undo: list[Undo]) -> None:
        for step in reversed(undo):
            try:
                await step()
            except BoxshipError as error:
                log.warning("taking back a failed start: %s", error)

    async def _destroy_task(self, id: str) -> None:
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

    async def _close_stdio(self, live: Live) -> None:
        live.stdio.remove()

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
            await self._destroy_task(record.Id)
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
        around.identity = await self.identity(record, mounts)
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

    async def identity(self, record: Record, mounts: list[Mount]) -> spec.Identity:
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

    def _translate(self, record: Record, error: Exception) -> BoxshipError:
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

    # -- exit

    async def on_exit(self, event: TaskExit) -> None:
        """The shim says that a container's process ended."""
        record = self._store.find(event.container_id)
        if record is None:
            return
        live = self.live(record)
        exited_at = event.exited_at.to_ns() if event.exited_at else time.time_ns()
        async with live.lock:
            if not record.State.Running or (event.pid and record.State.Pid and event.pid != record.State.Pid):
                return
            tracing.current.set(live.trace)  # this task's own context: the exit is part of the run that is watched
            with tracing.span("engine", f"exit of {record.Name}", status=event.exit_status):
                await self._exited(live, event.exit_status, exited_at)

    async def _exited(self, live: Live, status: int, exited_at: int) -> None:
        record = live.record
        live.started.clear()
        record.State.Running = record.State.Paused = False
        record.State.Pid = 0
        record.State.ExitCode = status
        record.State.FinishedAt = rfc3339(exited_at)
        record.State.OOMKilled = live.oom_killed
        record.State.Status = "exited"
        self._store.save(record)
        await live.stdio.finish()
        try:
            await self._client.tasks.Delete(DeleteTaskRequest(container_id=record.Id))
        except NotFound:
            pass  # containerd cleaned up after a dead shim by itself
        try:
            await self._client.containers.Delete(DeleteContainerRequest(id=record.Id))
        except NotFound:
            pass  # a repeated exit after a restart of the engine
        await self._networks.release(record)
        live.stdio.remove()
        for process in live.execs.values():
            if process.running:
                process.running, process.exit_code = False, 137
                process.finished.set()
        ran = (exited_at - parse_rfc3339(record.State.StartedAt)) / 1e9
        self.publish(record, "die", exitCode=str(status), execDuration=str(int(max(ran, 0))))
        restarts = self._wants_restart(record, status)
        if restarts:
            live.backoff = BACKOFF_FIRST if ran > BACKOFF_RESET or not live.backoff else live.backoff * 2
            live.backoff = min(live.backoff, BACKOFF_MAX)
            record.State.Status, record.State.Restarting = "restarting", True
            self._store.save(record)
            live.restart = self.later(self._restart_later(live), f"restart of {record.Name}")
        live.exited(status)
        if record.HostConfig.AutoRemove and not restarts:
            await self._remove(live, volumes=True)

    def _wants_restart(self, record: Record, status: int) -> bool:
        policy = record.HostConfig.RestartPolicy
        if record.StoppedByUser:
            return False
        if policy.Name in ("always", "unless-stopped"):
            return True
        return (
            policy.Name == "on-failure"
            and status != 0
            and (not policy.MaximumRetryCount or record.RestartCount < policy.MaximumRetryCount)
        )

    async def _restart_later(self, live: Live) -> None:
        await asyncio.sleep(live.backoff)
        async with live.lock:
            record = live.record
            if record.State.Running or record.StoppedByUser or record.State.Status == "removing":
                return
            record.RestartCount += 1
            record.State.Restarting = False
            live.restart = None
            await self._start(live)

    async def _start_again(self, live: Live) -> None:
        """Start what ran under an earlier engine, unless somebody was faster."""
        async with live.lock:
            state = live.record.State
            if not (state.Running or state.Dead or state.Status == "removing"):
                await self._start(live)

    # -- stop, kill, pause

    async def kill(self, live: Live, signal: int) -> None:
        """Send a signal; raises FailedPrecondition when nothing runs (409, as dockerd)."""
        record = live.record
        if not record.State.Running:
            if record.State.Restarting and signal == 9:
                await self._cancel_restart(live)
                return
            raise FailedPrecondition(f"cannot kill container: {record.Name}: container {record.Id} is not running")
        if signal in (9, parse.signal_number(record.Config.StopSignal or "SIGTERM")):
            record.StoppedByUser = True
        try:
            await self._client.tasks.Kill(KillRequest(container_id=record.Id, signal=signal))
        except NotFound as error:
            raise FailedPrecondition(
                f"cannot kill container: {record.Name}: container {record.Id} is not running"
            ) from error
        if signal == 9 and record.State.Paused:
            await self._client.tasks.Resume(ResumeTaskRequest(container_id=record.Id))
        self.publish(record, "kill", signal=str(signal))

    async def _cancel_restart(self, live: Live) -> None:
        if live.restart is not None:
            live.restart.cancel()
            live.restart = None
        live.record.StoppedByUser = True
        live.record.State.Restarting = False
        live.record.State.Status = "exited"
        self._store.save(live.record)

    async def stop(self, live: Live, seconds: int | None, signal: str = "") -> None:
        """Ask it to end, then make it; raises NotModified when it does not run. ``seconds`` < 0 waits for ever."""
        record = live.record
        if record.State.Restarting:
            await self._cancel_restart(live)
            return
        if not record.State.Running:
            raise NotModified(f"container {record.Name} is already stopped")
        if seconds is None:
            seconds = record.Config.StopTimeout if record.Config.StopTimeout is not None else 10
        number = parse.signal_number(signal or record.Config.StopSignal or "SIGTERM")
        record.StoppedByUser = True
        self._store.save(record)
        exited = asyncio.ensure_future(live.next_exit())
        await asyncio.sleep(0)  # let it register before the signal is out
        try:
            try:
                await self.kill(live, number)
            except FailedPrecondition:
                return  # it ended by itself meanwhile
            if await _finishes(exited, None if seconds < 0 else seconds):
                self.publish(record, "stop")
                return
            try:
                await self.kill(live, 9)
            except FailedPrecondition:
                return
            if not await _finishes(exited, KILL_GRACE):
                raise FailedPrecondition(
                    f"cannot stop container: {record.Name}: its process did not end after SIGKILL",
                    remedy="it may wait for a device or a network file system (state D in ps)",
                )
            self.publish(record, "stop")
        finally:
            exited.cancel()

    async def restart(self, live: Live, seconds: int | None, signal: str = "") -> None:
        """Stop (if it runs) and start; an AutoRemove container survives it, as in dockerd."""
        record = live.record
        auto_remove, record.HostConfig.AutoRemove = record.HostConfig.AutoRemove, False
        try:
            try:
                await self.stop(live, seconds, signal)
            except NotModified:
                pass  # it did not run: only the start is left
            try:
                await self.start(live)
            except NotModified:
                pass  # somebody else was faster
        finally:
            record.HostConfig.AutoRemove = auto_remove
            if not record.State.Running:
                self._store.save(record)
        self.publish(record, "restart")

    async def pause(self, live: Live) -> None:
        async with live.lock:
            record = self._running(live)
            if record.State.Paused:
                raise FailedPrecondition(f"Container {record.Id} is already paused")
            await self._client.tasks.Pause(PauseTaskRequest(container_id=record.Id))
            record.State.Paused, record.State.Status = True, "paused"
            self._store.save(record)
            self.publish(record, "pause")

    async def unpause(self, live: Live) -> None:
        async with live.lock:
            record = live.record
            if not record.State.Paused:
                raise FailedPrecondition(f"Container {record.Id} is not paused")
            await self._client.tasks.Resume(ResumeTaskRequest(container_id=record.Id))
            record.State.Paused, record.State.Status = False, "running"
            self._store.save(record)
            self.publish(record, "unpause")

    async def resize(self, live: Live, height: int, width: int) -> None:
        record = self._running(live)
        await self._client.tasks.ResizePty(ResizePtyRequest(container_id=record.Id, height=height, width=width))
        self.publish(record, "resize", height=str(height), width=str(width))

    def _running(self, live: Live) -> Record:
        if not live.record.State.Running:
            raise FailedPrecondition(f"Container {live.record.Id} is not running")
        return live.record

    # -- rename, remove

    def rename(self, live: Live, name: str) -> None:
        record = live.record
        name = name.removeprefix("/")
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        if name == record.Name:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        self._store.reserve(name, record.Id)
        old, record.Name = record.Name, name
        try:
            self._store.save(record, sync=True)
        except BaseException:
            record.Name = old
            self._store.release(name, record.Id)
            raise
        self._store.release(old, record.Id)
        self.publish(record, "rename", oldName=f"/{old}")

    async def remove(self, live: Live, *, force: bool, volumes: bool) -> None:
        """Delete a container and all that is its own; raises FailedPrecondition when it runs and not forced."""
        record = live.record
        if record.State.Status == "removing":
            raise FailedPrecondition(f"removal of container {record.Name} is already in progress")
        if record.State.Running or record.State.Restarting:
            if not force:
                state = "paused" if record.State.Paused else "running"
                raise FailedPrecondition(
                    f'cannot remove container "{record.Name}": container is {state}: '
                    "stop the container before removing or force remove"
                )
            await self._end(live)
        async with live.lock:
            if self._store.find(record.Id) is None:
                return  # AutoRemove was faster
            await self._remove(live, volumes=volumes)

    async def _end(self, live: Live) -> None:
        """Kill, and wait until the exit has been dealt with; a shim that says nothing is cleaned up after."""
        record = live.record
        record.StoppedByUser = True
        await self._cancel_restart(live) if record.State.Restarting else None
        exited = asyncio.ensure_future(live.next_exit())
        await asyncio.sleep(0)
        try:
            try:
                await self.kill(live, 9)
            except FailedPrecondition:
                pass  # it ended meanwhile; its exit is on the way or was dealt with
            if record.State.Running and not await _finishes(exited, KILL_GRACE):
                async with live.lock:
                    await self._destroy_task(record.Id)
                    await self._exited(live, 137, time.time_ns())
        finally:
            exited.cancel()

    async def _remove(self, live: Live, *, volumes: bool) -> None:
        record = live.record
        code = record.State.ExitCode
        record.State.Status = "removing"
        try:
            self._store.save(record)
        except OSError as error:
            log.warning("container %s: the removal is not noted: %s", record.Name, error)  # a full disk is no reason
        try:
            await self._networks.release(record)
            try:
                await self._client.snapshots.Remove(RemoveSnapshotRequest(snapshotter=SNAPSHOTTER, key=record.Id))
            except NotFound:
                pass  # a removal that was cut short goes on where it stopped
            live.stdio.remove()
            self._store.remove(record)
        except BaseException:
            record.State.Status, record.State.Dead = "dead", True  # it can be removed again, not started
            raise
        self._live.pop(record.Id, None)
        if volumes:
            for name in record.AnonymousVolumes:
                self._volumes.remove(name, force=True)
        self.publish(record, "destroy")
        live.exited(code)
        live.removed(code)

    # -- after a restart of the engine

    async def adopt(self, *, starting: bool = False) -> None:
        """Reconcile the records of an earlier engine with the tasks that containerd has.

        ``starting``: the engine itself starts. Then restart policy ``always`` brings back also what was stopped on
        purpose, as in dockerd; that is its difference from ``unless-stopped``.
        """
        for record in self._store.all():
            live = self.live(record)
            async with live.lock:
                try:
                    await self._adopt(live)
                except BoxshipError as error:
                    log.error("container %s: %s", record.Name, error)
            state = record.State
            always = record.HostConfig.RestartPolicy.Name == "always" and record.HasBeenStarted
            if starting and always and not (state.Running or state.Restarting or state.Dead):
                record.StoppedByUser = False
                self.later(self._start_again(live), f"start of {record.Name}")

    async def _adopt(self, live: Live) -> None:
        record = live.record
        if record.State.Status == "removing":
            await self._remove(live, volumes=False)
            return
        if not record.State.Running:
            if record.State.Restarting:
                record.State.Restarting = False
                live.restart = self.later(self._restart_later(live), f"restart of {record.Name}")
            return
        try:
            process = (await self._client.tasks.Get(GetRequest(container_id=record.Id))).process
        except NotFound:
            process = None
        if process is not None and process.status in (Status.RUNNING, Status.PAUSED, Status.PAUSING):
            record.State.Pid = process.pid
            live.stdio.create()
            live.stdio.open_input()
            live.started.set()
            await self._networks.adopt(record)
            return
        if process is not None and process.status == Status.CREATED:
            # The engine died between Create and Start: nothing ran, nothing is lost by taking it back.
            await self._destroy_task(record.Id)
            record.HasBeenStarted = False
            record.State = State(Status="created", StartedAt=ZERO)
            await self._networks.release(record)
            self._store.save(record)
            return
        if process is not None and process.status == Status.STOPPED:
            at = process.exited_at.to_ns() if process.exited_at else time.time_ns()
            await self._exited(live, process.exit_status, at)
        else:
            await self._exited(live, 137, time.time_ns())


async def _finishes(future: asyncio.Future[int], seconds: float | None) -> bool:
    done, _ = await asyncio.wait({future}, timeout=seconds)
    return bool(done)


def exit_code_of(error: BoxshipError) -> int:
    """What ``docker run`` exits with: 127 for no such command, 126 for one that is not executable, else 128."""
    text = str(error).lower()
    if "executable file not found" in text or ("no such file or directory" in text and "exec" in text):
        return 127
    if "permission denied" in text or "is a directory" in text:
        return 126
    return 128
