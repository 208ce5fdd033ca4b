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
from collections.abc import Coroutine
from typing import Any as AnyType

from boxship import tracing
from boxship.api.containerd import Client
from boxship.api.containerd.containers import (
    DeleteContainerRequest,
)
from boxship.api.containerd.snapshots import RemoveSnapshotRequest
from boxship.api.containerd.tasks import (
    DeleteTaskRequest,
    GetRequest,
    KillRequest,
    PauseTaskRequest,
    ResizePtyRequest,
    ResumeTaskRequest,
    StartRequest,
)
from boxship.api.containerd.types import Status
from boxship.api.task.events import TaskExit
from boxship.errors import BoxshipError, FailedPrecondition, InvalidArgument, NotFound

from . import parse, spec
from .clock import ZERO, now, parse_rfc3339, rfc3339
from .config import EngineConfig
from .create import SNAPSHOTTER
from .events import EventBus
from .live import Live
from .models import Record, State
from .network_api import Networks
from .stdio import Stdio
from .store import ContainerStore
from .tasks import KILL_GRACE, Tasks, Undo, exit_code_of, take_back, translate
from .volumes import Volumes

log = logging.getLogger("boxship.engine.lifecycle")

BACKOFF_FIRST, BACKOFF_MAX = 0.1, 60.0  # seconds before a restart by policy; doubles with each
BACKOFF_RESET = 10.0  # a container that ran this long starts over with the first


class NotModified(BoxshipError):
    """The container is in that state already; HTTP 304."""

    kind = "failed_precondition"
    http_status = 304


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
        self._live: dict[str, Live] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._tasks = Tasks(client, store, networks, config, host)

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
            await self._run_task(live, undo)
        except asyncio.CancelledError:
            await take_back(undo)
            raise
        except Exception as error:
            await take_back(undo)
            translated = translate(record, error)
            record.State.Error = str(translated)
            record.State.ExitCode = exit_code_of(translated)
            record.State.Status = "exited" if record.HasBeenStarted else "created"
            self._store.save(record)
            live.exited(record.State.ExitCode)
            raise translated from error

    async def _run_task(self, live: Live, undo: list[Undo]) -> None:
        record = live.record
        pid = await self._tasks.make(live, undo)
        # From here on the exit event may come at any moment: the state must say running before the process runs.
        before = record.State
        record.State = State(Status="running", Running=True, Pid=pid, StartedAt=now(), FinishedAt=before.FinishedAt)
        record.HasBeenStarted = True
        live.oom_killed = False
        self._store.save(record)
        try:
            await self._client.tasks.Start(StartRequest(container_id=record.Id))
        except BaseException:
            record.State = before
            raise
        live.started.set()
        self.publish(record, "start")

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
                    await self._tasks.destroy(record.Id)
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
            await self._tasks.destroy(record.Id)
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
