"""The Tasks service: containers that run, each behind its shim."""

import asyncio
import time

from boxship.api.containerd.containers import Container
from boxship.api.containerd.context import required_namespace
from boxship.api.containerd.tasks import (
    CloseIORequest,
    CreateTaskRequest,
    CreateTaskResponse,
    DeleteProcessRequest,
    DeleteResponse,
    DeleteTaskRequest,
    ExecProcessRequest,
    GetRequest,
    GetResponse,
    KillRequest,
    ListPidsRequest,
    ListPidsResponse,
    ListTasksRequest,
    ListTasksResponse,
    MetricsRequest,
    MetricsResponse,
    PauseTaskRequest,
    ResizePtyRequest,
    ResumeTaskRequest,
    StartRequest,
    StartResponse,
    UpdateTaskRequest,
    WaitRequest,
    WaitResponse,
)
from boxship.api.containerd.types import Metric, Process
from boxship.api.task import task as shim_api
from boxship.containerd.filters import Lookup, parse
from boxship.containerd.records import Records
from boxship.containerd.shims import Shim, Shims
from boxship.errors import (
    BoxshipError,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    Unavailable,
    Unimplemented,
)
from boxship.protobuf import Empty, Timestamp

_STATE_TIMEOUT = 2.0  # as containerd's timeouts: a shim that hangs must not hang everyone's list
_PIDS_TIMEOUT = 5.0


class TasksService:
    def __init__(self, containers: "Records[Container]", shims: Shims) -> None:
        self._containers = containers
        self._shims = shims

    async def Create(self, request: CreateTaskRequest) -> CreateTaskResponse:
        """Start a shim and have it create the container; nothing is left when either fails."""
        namespace = required_namespace()
        container = self._containers.get(namespace, request.container_id)
        if container.spec is None or container.runtime is None:
            raise FailedPrecondition(f"container {container.id!r} has no spec or no runtime")
        if request.checkpoint is not None and request.checkpoint.digest:
            raise Unimplemented("tasks cannot be restored from a checkpoint yet")
        options = request.options or container.runtime.options
        runtime = request.runtime_path or container.runtime.name
        shim = await self._shims.start(namespace, container.id, runtime, container.spec.value, options)
        try:
            created = await shim.task.Create(
                shim_api.CreateTaskRequest(
                    id=container.id,
                    bundle=shim.bundle.path,
                    rootfs=list(request.rootfs),
                    terminal=request.terminal,
                    stdin=request.stdin,
                    stdout=request.stdout,
                    stderr=request.stderr,
                    options=options,
                )
            )
        except BaseException:
            await asyncio.shield(self._shims.abandon(shim))
            raise
        shim.pid = created.pid
        return CreateTaskResponse(container_id=container.id, pid=created.pid)

    async def Start(self, request: StartRequest) -> StartResponse:
        shim = self._get(request.container_id)
        started = await shim.task.Start(shim_api.StartRequest(id=request.container_id, exec_id=request.exec_id))
        return StartResponse(pid=started.pid)

    async def Delete(self, request: DeleteTaskRequest) -> DeleteResponse:
        """Delete a task that has ended; its shim goes with it."""
        shim = self._get(request.container_id)
        deleted = await shim.task.Delete(shim_api.DeleteRequest(id=request.container_id))
        await self._shims.end(shim)
        return DeleteResponse(
            id=request.container_id,
            pid=deleted.pid,
            exit_status=deleted.exit_status,
            exited_at=deleted.exited_at,
        )

    async def DeleteProcess(self, request: DeleteProcessRequest) -> DeleteResponse:
        shim = self._get(request.container_id)
        deleted = await shim.task.Delete(shim_api.DeleteRequest(id=request.container_id, exec_id=request.exec_id))
        return DeleteResponse(
            id=request.exec_id,
            pid=deleted.pid,
            exit_status=deleted.exit_status,
            exited_at=deleted.exited_at,
        )

    async def Get(self, request: GetRequest) -> GetResponse:
        shim = self._get(request.container_id)
        return GetResponse(process=await _state(shim, request.exec_id))

    async def List(self, request: ListTasksRequest) -> ListTasksResponse:
        """Every task of the namespace; one whose shim does not answer is listed as unknown."""
        shims = list(self._shims.list(required_namespace()))
        found = await asyncio.gather(*(_state(shim, "") for shim in shims), return_exceptions=True)
        tasks: list[Process] = []
        for shim, state in zip(shims, found, strict=True):
            if isinstance(state, Process):
                tasks.append(state)
            elif isinstance(state, DeadlineExceeded):
                tasks.append(Process(container_id=shim.bundle.id, id=shim.bundle.id, pid=shim.pid))
            elif not isinstance(state, NotFound | Unavailable):
                raise state  # those two: deleted or died while we asked
        return ListTasksResponse(tasks=tasks)

    async def Kill(self, request: KillRequest) -> Empty:
        return await self._get(request.container_id).task.Kill(
            shim_api.KillRequest(
                id=request.container_id, exec_id=request.exec_id, signal=request.signal, all=request.all
            )
        )

    async def Exec(self, request: ExecProcessRequest) -> Empty:
        return await self._get(request.container_id).task.Exec(
            shim_api.ExecProcessRequest(
                id=request.container_id,
                exec_id=request.exec_id,
                terminal=request.terminal,
                stdin=request.stdin,
                stdout=request.stdout,
                stderr=request.stderr,
                spec=request.spec,
            )
        )

    async def ResizePty(self, request: ResizePtyRequest) -> Empty:
        return await self._get(request.container_id).task.ResizePty(
            shim_api.ResizePtyRequest(
                id=request.container_id,
                exec_id=request.exec_id,
                width=request.width,
                height=request.height,
            )
        )

    async def CloseIO(self, request: CloseIORequest) -> Empty:
        return await self._get(request.container_id).task.CloseIO(
            shim_api.CloseIORequest(id=request.container_id, exec_id=request.exec_id, stdin=request.stdin)
        )

    async def Pause(self, request: PauseTaskRequest) -> Empty:
        return await self._get(request.container_id).task.Pause(shim_api.PauseRequest(id=request.container_id))

    async def Resume(self, request: ResumeTaskRequest) -> Empty:
        return await self._get(request.container_id).task.Resume(shim_api.ResumeRequest(id=request.container_id))

    async def ListPids(self, request: ListPidsRequest) -> ListPidsResponse:
        found = await self._get(request.container_id).task.Pids(
            shim_api.PidsRequest(id=request.container_id), timeout=_PIDS_TIMEOUT
        )
        return ListPidsResponse(processes=list(found.processes))

    async def Update(self, request: UpdateTaskRequest) -> Empty:
        return await self._get(request.container_id).task.Update(
            shim_api.UpdateTaskRequest(
                id=request.container_id,
                resources=request.resources,
                annotations=dict(request.annotations),
            )
        )

    async def Metrics(self, request: MetricsRequest) -> MetricsResponse:
        """One metric for each task that matches ``id==...``; tasks that end meanwhile are left out."""
        matches = parse(list(request.filters))
        metrics = []
        for shim in list(self._shims.list(required_namespace())):
            id = shim.bundle.id
            if not matches(_by_id(shim)):
                continue
            try:
                stats = await shim.task.Stats(shim_api.StatsRequest(id=id), timeout=_PIDS_TIMEOUT)
            except BoxshipError:
                continue
            metrics.append(Metric(timestamp=Timestamp.from_ns(time.time_ns()), id=id, data=stats.stats))
        return MetricsResponse(metrics=metrics)

    async def Wait(self, request: WaitRequest) -> WaitResponse:
        """Answers when the process has ended; when its shim dies first, with what is known then."""
        shim = self._get(request.container_id)
        try:
            exit = await shim.task.Wait(shim_api.WaitRequest(id=request.container_id, exec_id=request.exec_id))
        except Unavailable:
            if shim.ending and not shim.ended.done():
                raise
            end = await asyncio.shield(shim.ended)
            status = 128 + 9 if request.exec_id else end.exit_status
            return WaitResponse(exit_status=status, exited_at=end.exited_at)
        return WaitResponse(exit_status=exit.exit_status, exited_at=exit.exited_at)

    def _get(self, id: str) -> Shim:
        return self._shims.get(required_namespace(), id)


def _by_id(shim: Shim) -> Lookup:
    fields: dict[tuple[str, ...], str] = {("id",): shim.bundle.id, ("namespace",): shim.bundle.namespace}
    return lambda path: fields.get(path)


async def _state(shim: Shim, exec_id: str) -> Process:
    state = await shim.task.State(shim_api.StateRequest(id=shim.bundle.id, exec_id=exec_id), timeout=_STATE_TIMEOUT)
    return Process(
        container_id=shim.bundle.id,
        id=exec_id or shim.bundle.id,
        pid=state.pid,
        status=state.status,
        stdin=state.stdin,
        stdout=state.stdout,
        stderr=state.stderr,
        terminal=state.terminal,
        exit_status=state.exit_status,
        exited_at=state.exited_at,
    )
