"""The Task service that a shim serves over ttrpc, in its two versions, which differ by name only.

The life of a task: Create (init exists, its program does not run yet), Start, then Kill, Pause, Resume, Exec
at will; Wait answers when it ends; Delete after that; Shutdown ends a shim that has no task left.
``exec_id`` empty means the init process.
Field numbers: containerd api/runtime/task/v3/shim.proto.
"""

from boxship.protobuf import (
    Any,
    Empty,
    Message,
    Service,
    Timestamp,
    boolean,
    enum,
    mapping,
    message,
    repeated,
    string,
    uint32,
    unary,
)

from .types import Mount, ProcessInfo


class CreateTaskRequest(Message, name="containerd.task.v2.CreateTaskRequest"):
    """``stdin``, ``stdout`` and ``stderr`` are FIFO paths, ``file://`` or ``binary://`` URIs, or empty."""

    id: str = string(1)
    bundle: str = string(2)
    rootfs: list[Mount] = repeated(3, Mount)
    terminal: bool = boolean(4)
    stdin: str = string(5)
    stdout: str = string(6)
    stderr: str = string(7)
    checkpoint: str = string(8)
    parent_checkpoint: str = string(9)
    options: Any | None = message(10, Any)


class CreateTaskResponse(Message, name="containerd.task.v2.CreateTaskResponse"):
    pid: int = uint32(1)


class DeleteRequest(Message, name="containerd.task.v2.DeleteRequest"):
    id: str = string(1)
    exec_id: str = string(2)


class DeleteResponse(Message, name="containerd.task.v2.DeleteResponse"):
    """How a process ended: ``exit_status`` is its code, or 128 + the signal."""

    pid: int = uint32(1)
    exit_status: int = uint32(2)
    exited_at: Timestamp | None = message(3, Timestamp)


class ExecProcessRequest(Message, name="containerd.task.v2.ExecProcessRequest"):
    """``spec`` is an OCI process as JSON."""

    id: str = string(1)
    exec_id: str = string(2)
    terminal: bool = boolean(3)
    stdin: str = string(4)
    stdout: str = string(5)
    stderr: str = string(6)
    spec: Any | None = message(7, Any)


class ResizePtyRequest(Message, name="containerd.task.v2.ResizePtyRequest"):
    id: str = string(1)
    exec_id: str = string(2)
    width: int = uint32(3)
    height: int = uint32(4)


class StateRequest(Message, name="containerd.task.v2.StateRequest"):
    id: str = string(1)
    exec_id: str = string(2)


class StateResponse(Message, name="containerd.task.v2.StateResponse"):
    """``status`` is one of types.Status."""

    id: str = string(1)
    bundle: str = string(2)
    pid: int = uint32(3)
    status: int = enum(4)
    stdin: str = string(5)
    stdout: str = string(6)
    stderr: str = string(7)
    terminal: bool = boolean(8)
    exit_status: int = uint32(9)
    exited_at: Timestamp | None = message(10, Timestamp)
    exec_id: str = string(11)


class KillRequest(Message, name="containerd.task.v2.KillRequest"):
    id: str = string(1)
    exec_id: str = string(2)
    signal: int = uint32(3)
    all: bool = boolean(4)


class CloseIORequest(Message, name="containerd.task.v2.CloseIORequest"):
    id: str = string(1)
    exec_id: str = string(2)
    stdin: bool = boolean(3)


class PidsRequest(Message, name="containerd.task.v2.PidsRequest"):
    id: str = string(1)


class PidsResponse(Message, name="containerd.task.v2.PidsResponse"):
    processes: list[ProcessInfo] = repeated(1, ProcessInfo)


class CheckpointTaskRequest(Message, name="containerd.task.v2.CheckpointTaskRequest"):
    id: str = string(1)
    path: str = string(2)
    options: Any | None = message(3, Any)


class UpdateTaskRequest(Message, name="containerd.task.v2.UpdateTaskRequest"):
    """``resources`` is an OCI LinuxResources as JSON."""

    id: str = string(1)
    resources: Any | None = message(2, Any)
    annotations: dict[str, str] = mapping(3, string)


class StartRequest(Message, name="containerd.task.v2.StartRequest"):
    id: str = string(1)
    exec_id: str = string(2)


class StartResponse(Message, name="containerd.task.v2.StartResponse"):
    pid: int = uint32(1)


class WaitRequest(Message, name="containerd.task.v2.WaitRequest"):
    id: str = string(1)
    exec_id: str = string(2)


class WaitResponse(Message, name="containerd.task.v2.WaitResponse"):
    exit_status: int = uint32(1)
    exited_at: Timestamp | None = message(2, Timestamp)


class StatsRequest(Message, name="containerd.task.v2.StatsRequest"):
    id: str = string(1)


class StatsResponse(Message, name="containerd.task.v2.StatsResponse"):
    """``stats`` holds a metrics message of the host's cgroup version (see ``metrics``)."""

    stats: Any | None = message(1, Any)


class ConnectRequest(Message, name="containerd.task.v2.ConnectRequest"):
    id: str = string(1)


class ConnectResponse(Message, name="containerd.task.v2.ConnectResponse"):
    shim_pid: int = uint32(1)
    task_pid: int = uint32(2)
    version: str = string(3)


class ShutdownRequest(Message, name="containerd.task.v2.ShutdownRequest"):
    id: str = string(1)
    now: bool = boolean(2)


class PauseRequest(Message, name="containerd.task.v2.PauseRequest"):
    id: str = string(1)


class ResumeRequest(Message, name="containerd.task.v2.ResumeRequest"):
    id: str = string(1)


class TaskV2(Service, name="containerd.task.v2.Task"):
    """containerd 1.x speaks this one; a shim that answers ``start`` with a bare address serves it."""

    State = unary(StateRequest, StateResponse)
    Create = unary(CreateTaskRequest, CreateTaskResponse)
    Start = unary(StartRequest, StartResponse)
    Delete = unary(DeleteRequest, DeleteResponse)
    Pids = unary(PidsRequest, PidsResponse)
    Pause = unary(PauseRequest, Empty)
    Resume = unary(ResumeRequest, Empty)
    Checkpoint = unary(CheckpointTaskRequest, Empty)
    Kill = unary(KillRequest, Empty)
    Exec = unary(ExecProcessRequest, Empty)
    ResizePty = unary(ResizePtyRequest, Empty)
    CloseIO = unary(CloseIORequest, Empty)
    Update = unary(UpdateTaskRequest, Empty)
    Wait = unary(WaitRequest, WaitResponse)
    Stats = unary(StatsRequest, StatsResponse)
    Connect = unary(ConnectRequest, ConnectResponse)
    Shutdown = unary(ShutdownRequest, Empty)


class TaskV3(Service, name="containerd.task.v3.Task"):
    """containerd 2.x; the same messages under another service name."""

    State = unary(StateRequest, StateResponse)
    Create = unary(CreateTaskRequest, CreateTaskResponse)
    Start = unary(StartRequest, StartResponse)
    Delete = unary(DeleteRequest, DeleteResponse)
    Pids = unary(PidsRequest, PidsResponse)
    Pause = unary(PauseRequest, Empty)
    Resume = unary(ResumeRequest, Empty)
    Checkpoint = unary(CheckpointTaskRequest, Empty)
    Kill = unary(KillRequest, Empty)
    Exec = unary(ExecProcessRequest, Empty)
    ResizePty = unary(ResizePtyRequest, Empty)
    CloseIO = unary(CloseIORequest, Empty)
    Update = unary(UpdateTaskRequest, Empty)
    Wait = unary(WaitRequest, WaitResponse)
    Stats = unary(StatsRequest, StatsResponse)
    Connect = unary(ConnectRequest, ConnectResponse)
    Shutdown = unary(ShutdownRequest, Empty)
