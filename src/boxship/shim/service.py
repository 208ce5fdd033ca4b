"""The Task service: one object for every container of this shim, its calls in the order of a container's life.

The order that must stay true: a process's last output is logged, then its exit is written to the bundle, then
it is STOPPED, then TaskExit is published and those who Wait are answered.
Calls run one at a time in the shim's loop, so no state needs a lock.  Everything is answered at once, except
Wait.
"""

import os
from time import time_ns

from ..api.task.events import (
    TaskCreate,
    TaskDelete,
    TaskExecAdded,
    TaskExecStarted,
    TaskExit,
    TaskIO,
    TaskOOM,
    TaskPaused,
    TaskResumed,
    TaskStart,
)
from ..api.task.options import ProcessDetails
from ..api.task.task import (
    CheckpointTaskRequest,
    CloseIORequest,
    ConnectRequest,
    ConnectResponse,
    CreateTaskRequest,
    CreateTaskResponse,
    DeleteRequest,
    DeleteResponse,
    ExecProcessRequest,
    KillRequest,
    PauseRequest,
    PidsRequest,
    PidsResponse,
    ResizePtyRequest,
    ResumeRequest,
    ShutdownRequest,
    StartRequest,
    StartResponse,
    StateRequest,
    StateResponse,
    StatsRequest,
    StatsResponse,
    UpdateTaskRequest,
    WaitRequest,
    WaitResponse,
)
from ..api.task.types import ProcessInfo, Status
from ..errors import (
    AlreadyExists,
    BoxshipError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    Unimplemented,
)
from ..protobuf import Any, Empty
from ..ttrpc.loop import Loop
from ..ttrpc.server import PendingCall
from . import bundle as bundle_files
from .process import Stdio, TaskProcess
from .requests import json_object, open_log, runtime_options
from .runtime import exit_code_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .logs import JsonFile
    from .publisher import Publisher
    from .runtime import RunningContainer, Runtime

SIGKILL = 9


class Task:
    """A container of this shim: its init, its exec'd processes, its bundle and its log."""

    def __init__(self, id: str, bundle: str, init: TaskProcess, log: "JsonFile | None") -> None:
        self.id = id
        self.bundle = bundle
        self.init = init
        self.execs: dict[str, TaskProcess] = {}
        self.log = log
        self.container: RunningContainer | None = None

    def processes(self) -> "list[TaskProcess]":
        """Exec'd ones first: their exits are told before init's."""
        return [*self.execs.values(), self.init]


class TaskService:
    """Implements TaskV2 and TaskV3.  ``on_shutdown`` is called when no task is left and Shutdown came."""

    def __init__(
        self, loop: Loop, runtime: "Runtime", publisher: "Publisher", namespace: str, runtime_root: str,
        on_shutdown: "Callable[[], None]",
    ) -> None:  # fmt: skip
        self._loop = loop
        self._runtime = runtime
        self._publisher = publisher
        self._namespace = namespace
        self._runtime_root = runtime_root
        self._on_shutdown = on_shutdown
        self.tasks: dict[str, Task] = {}

    # -- the life of a container

    def Create(self, request: CreateTaskRequest, call: PendingCall) -> CreateTaskResponse:
        """Make the container up to its program's start; on failure nothing is left."""
        if request.id in self.tasks:
            raise AlreadyExists(f"container {request.id}")
        if request.checkpoint:
            raise Unimplemented("restoring from a checkpoint is not offered")
        options = runtime_options(request.options)
        root = options.runtime_root or self._runtime_root
        log = open_log(options)
        stdio = Stdio(self._loop, request.stdin, request.stdout, request.stderr, request.terminal, log)
        task = Task(request.id, request.bundle, TaskProcess(request.id, "", stdio), log)
        try:
            if root != self._runtime_root:
                bundle_files.write(task.bundle, "runtime-root", root.encode())
            streams = stdio.open(request.id, self._namespace, options.io_uid, options.io_gid)
            task.container = self._runtime.create(
                request.id,
                request.bundle,
                root,
                streams,
                [(mount.type, mount.source, mount.options) for mount in request.rootfs],
                options.no_pivot_root,
                options.systemd_cgroup,
            )
            task.init.handle = task.container
            task.init.pid = task.container.pid
            stdio.attach(task.container.console)
        except BaseException:
            if task.container is not None:
                task.container.delete(force=True)
            self._close(task)
            raise
        self.tasks[request.id] = task
        self._publisher.publish(
            TaskCreate(
                container_id=request.id, bundle=request.bundle, rootfs=request.rootfs,
                io=TaskIO(
                    stdin=request.stdin, stdout=request.stdout, stderr=request.stderr,
                    terminal=request.terminal,
                ),
                pid=task.init.pid,
            )
        )  # fmt: skip
        return CreateTaskResponse(pid=task.init.pid)

    def Start(self, request: StartRequest, call: PendingCall) -> StartResponse:
        """Let init's program run, or run an exec that was added."""
        task, process = self._find(request.id, request.exec_id)
        process.may("started")
        container = self._container(task)
        if not request.exec_id:
            try:
                container.start()
            except BoxshipError as error:
                self._end_unstarted(task, exit_code_of(error))
                raise
            process.becomes("started")
            self._publisher.publish(TaskStart(container_id=task.id, pid=process.pid))
            return StartResponse(pid=process.pid)
        if task.init.status != Status.RUNNING:
            raise FailedPrecondition(f"container {task.id} is not running")
        streams = process.stdio.open(task.id, self._namespace, 0, 0)
        try:
            process.handle = container.exec(process.spec, streams)
        except BaseException:
            process.stdio.close()
            raise
        process.pid = process.handle.pid
        process.becomes("started")
        process.stdio.attach(process.handle.console)
        self._publisher.publish(TaskExecStarted(container_id=task.id, exec_id=process.exec_id, pid=process.pid))
        return StartResponse(pid=process.pid)

    def Exec(self, request: ExecProcessRequest, call: PendingCall) -> Empty:
        """Remember a further process; Start runs it."""
        task, _ = self._find(request.id, "")
        if request.exec_id in task.execs or request.exec_id == request.id or not request.exec_id:
            raise AlreadyExists(f"process {request.id}/{request.exec_id}")
        if request.spec is None:
            raise InvalidArgument(f"exec {request.exec_id}: no process given")
        stdio = Stdio(self._loop, request.stdin, request.stdout, request.stderr, request.terminal, None)
        process = TaskProcess(request.id, request.exec_id, stdio)
        process.spec = json_object(request.spec, "process")
        process.spec["terminal"] = request.terminal
        task.execs[request.exec_id] = process
        self._publisher.publish(TaskExecAdded(container_id=task.id, exec_id=process.exec_id))
        return Empty()

    def Wait(self, request: WaitRequest, call: PendingCall) -> "WaitResponse | None":
        """Answered when the process has ended."""
        _, process = self._find(request.id, request.exec_id)
        if process.status != Status.STOPPED:
            process.waiters.append(call)
            return None
        return WaitResponse(exit_status=process.exit_status, exited_at=process.exited_timestamp)

    def Delete(self, request: DeleteRequest, call: PendingCall) -> DeleteResponse:
        """Forget an ended process; with init goes the container and all it left in the kernel."""
        task, process = self._find(request.id, request.exec_id)
        if process.status in (Status.RUNNING, Status.PAUSED):
            raise FailedPrecondition(f"process {process.name} is running", remedy="kill it first")
        if request.exec_id:
            process.stdio.close()
            del task.execs[request.exec_id]
            for waiter in process.waiters:
                waiter.fail(NotFound(f"process {process.name} was never started"))
        else:
            if process.status == Status.CREATED:
                self._end_unstarted(task, 128 + SIGKILL)
            self._container(task).delete(force=True)
            self._close(task)
            del self.tasks[task.id]
            self._publisher.publish(
                TaskDelete(
                    container_id=task.id, pid=process.pid, exit_status=process.exit_status,
                    exited_at=process.exited_timestamp, id=task.id,
                )
            )  # fmt: skip
        return DeleteResponse(pid=process.pid, exit_status=process.exit_status, exited_at=process.exited_timestamp)

    def Shutdown(self, request: ShutdownRequest, call: PendingCall) -> Empty:
        """End the shim, unless it still has a container."""
        if not self.tasks:
            self._on_shutdown()
        return Empty()

    # -- what can be done to it on the way

    def Kill(self, request: KillRequest, call: PendingCall) -> Empty:
        task, process = self._find(request.id, request.exec_id)
        if not process.pid:
            # Not NotFound: containerd would wait for the end of what was never started.
            raise FailedPrecondition(f"process {process.name} was not started")
        if process.status == Status.STOPPED:
            raise NotFound(f"process {process.name} has finished")
        if request.exec_id:
            # Not reaped yet, so the pid is still this process.
            os.kill(process.pid, request.signal)
        else:
            try:
                self._container(task).kill(request.signal, all=request.all)
            except FailedPrecondition as error:
                # It ended and was not reaped yet; clients look for NotFound to know that it is over.
                raise NotFound(f"process {process.name} has finished") from error
        return Empty()

    def Pause(self, request: PauseRequest, call: PendingCall) -> Empty:
        task, init = self._find(request.id, "")
        init.may("paused")
        self._container(task).pause()
        init.becomes("paused")
        self._publisher.publish(TaskPaused(container_id=task.id))
        return Empty()

    def Resume(self, request: ResumeRequest, call: PendingCall) -> Empty:
        task, init = self._find(request.id, "")
        init.may("resumed")
        self._container(task).resume()
        init.becomes("resumed")
        self._publisher.publish(TaskResumed(container_id=task.id))
        return Empty()

    def Update(self, request: UpdateTaskRequest, call: PendingCall) -> Empty:
        task, _ = self._find(request.id, "")
        if request.resources is None:
            raise InvalidArgument(f"update of {task.id}: no resources given")
        self._container(task).update(json_object(request.resources, "resources"))
        return Empty()

    def ResizePty(self, request: ResizePtyRequest, call: PendingCall) -> Empty:
        _, process = self._find(request.id, request.exec_id)
        process.stdio.resize(request.width, request.height)
        return Empty()

    def CloseIO(self, request: CloseIORequest, call: PendingCall) -> Empty:
        _, process = self._find(request.id, request.exec_id)
        if request.stdin and process.stdio.input is not None:
            process.stdio.input.release()
        return Empty()

    def Checkpoint(self, request: CheckpointTaskRequest, call: PendingCall) -> Empty:
        raise Unimplemented(
            f"checkpoint of {request.id} is not offered by this shim",
            remedy="use containerd-shim-runc-v2 for containers that must be checkpointed",
        )

    # -- looking at it

    def State(self, request: StateRequest, call: PendingCall) -> StateResponse:
        task, process = self._find(request.id, request.exec_id)
        return StateResponse(
            id=request.id, bundle=task.bundle, pid=process.pid, status=process.status,
            stdin=process.stdio.stdin, stdout=process.stdio.stdout, stderr=process.stdio.stderr,
            terminal=process.stdio.terminal, exit_status=process.exit_status,
            exited_at=process.exited_timestamp, exec_id=process.exec_id,
        )  # fmt: skip

    def Pids(self, request: PidsRequest, call: PendingCall) -> PidsResponse:
        task, _ = self._find(request.id, "")
        execs = {process.pid: process for process in task.execs.values() if process.pid}
        processes = []
        for pid in self._container(task).pids():
            info = ProcessInfo(pid=pid)
            if pid in execs:
                info.info = Any.pack(ProcessDetails(exec_id=execs[pid].exec_id))
            processes.append(info)
        return PidsResponse(processes=processes)

    def Stats(self, request: StatsRequest, call: PendingCall) -> StatsResponse:
        task, _ = self._find(request.id, "")
        from .stats import metrics  # some forty classes that most shims never need

        return StatsResponse(stats=Any.pack(metrics(self._container(task).stats())))

    def Connect(self, request: ConnectRequest, call: PendingCall) -> ConnectResponse:
        task = self.tasks.get(request.id)
        return ConnectResponse(shim_pid=os.getpid(), task_pid=task.init.pid if task else 0)

    # -- the end of processes

    def reap(self) -> None:
        """Collect every child that has ended: our processes, their orphans (we are a subreaper), loggers."""
        ended: dict[int, int] = {}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            ended[pid] = status
        if not ended:
            return
        for task in list(self.tasks.values()):
            for process in task.processes():
                if process.pid in ended and process.status != Status.STOPPED:
                    self._ended(task, process, ended.pop(process.pid))

    def _ended(self, task: Task, process: TaskProcess, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        process.exit_status = code if code >= 0 else 128 - code
        process.exited_at = time_ns()
        container = task.container
        if process is task.init and container is not None and not container.own_pid_namespace:
            # Nothing else ends what init started when they share a pid namespace with others.
            try:
                container.kill(SIGKILL, all=True)
            except BoxshipError:
                pass  # they had ended by themselves
        try:
            process.stdio.drain()
        except OSError:
            process.stdio.close()  # a broken stream must not hide that the process has ended
        if process is task.init:
            if process.exit_status == 128 + SIGKILL and self._was_out_of_memory(task):
                self._publisher.publish(TaskOOM(container_id=task.id))
            record = DeleteResponse(
                pid=process.pid, exit_status=process.exit_status, exited_at=process.exited_timestamp
            )
            try:
                bundle_files.write(task.bundle, "exit", record.encode())
            except OSError:
                pass  # the bundle was removed under us; whoever did it does not want to know
        process.becomes("exited")
        self._publisher.publish(
            TaskExit(
                container_id=task.id, id=process.exec_id or task.id, pid=process.pid,
                exit_status=process.exit_status, exited_at=process.exited_timestamp,
            )
        )  # fmt: skip
        waiters, process.waiters = process.waiters, []
        for call in waiters:
            call.reply(WaitResponse(exit_status=process.exit_status, exited_at=process.exited_timestamp))

    @staticmethod
    def _was_out_of_memory(task: Task) -> bool:
        """Whether the kernel killed something in the container for want of memory.

        Asked only when init died of SIGKILL: a counter read then costs less than a watch on every container.
        """
        if task.container is None:
            return False
        try:
            return task.container.stats().memory.oom_kill > 0
        except (BoxshipError, OSError):
            return False

    def _end_unstarted(self, task: Task, code: int) -> None:
        """Init was made but never ran its program, and never will: it ended with ``code``, and is told so.

        The library ends and reaps the init of a failed start itself; one that is deleted still waits.
        """
        try:
            self._container(task).kill(SIGKILL)
            os.waitpid(task.init.pid, 0)
        except (BoxshipError, ProcessLookupError, ChildProcessError):
            pass  # the library was faster
        self._ended(task, task.init, code << 8)

    # -- helpers

    def _find(self, id: str, exec_id: str) -> "tuple[Task, TaskProcess]":
        task = self.tasks.get(id)
        if task is None:
            raise NotFound(f"container {id}")
        if not exec_id:
            return task, task.init
        process = task.execs.get(exec_id)
        if process is None:
            raise NotFound(f"process {id}/{exec_id}")
        return task, process

    @staticmethod
    def _container(task: Task) -> "RunningContainer":
        if task.container is None:
            raise Internal(f"container {task.id} was never made")
        return task.container

    @staticmethod
    def _close(task: Task) -> None:
        for process in task.processes():
            process.stdio.close()
        if task.log is not None:
            task.log.close()
