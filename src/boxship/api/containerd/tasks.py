"""The Tasks service: the running processes of containers (containerd, api/services/tasks/v1)."""

from boxship.api.containerd.types import Descriptor, Metric, Mount, Process, ProcessInfo
from boxship.protobuf import (
    Any,
    Empty,
    Message,
    Service,
    Timestamp,
    boolean,
    mapping,
    message,
    repeated,
    string,
    uint32,
    unary,
)


class CreateTaskRequest(Message, name="containerd.services.tasks.v1.CreateTaskRequest"):
    container_id: str = string(1)
    rootfs: list[Mount] = repeated(3, Mount)
    stdin: str = string(4)
    stdout: str = string(5)
    stderr: str = string(6)
    terminal: bool = boolean(7)
    checkpoint: Descriptor | None = message(8, Descriptor)
    options: Any | None = message(9, Any)
    runtime_path: str = string(10)
    task_api_address: str = string(11)
    task_api_version: int = uint32(12)


class CreateTaskResponse(Message, name="containerd.services.tasks.v1.CreateTaskResponse"):
    container_id: str = string(1)
    pid: int = uint32(2)


class StartRequest(Message, name="containerd.services.tasks.v1.StartRequest"):
    container_id: str = string(1)
    exec_id: str = string(2)


class StartResponse(Message, name="containerd.services.tasks.v1.StartResponse"):
    pid: int = uint32(1)


class DeleteTaskRequest(Message, name="containerd.services.tasks.v1.DeleteTaskRequest"):
    container_id: str = string(1)


class DeleteResponse(Message, name="containerd.services.tasks.v1.DeleteResponse"):
    id: str = string(1)
    pid: int = uint32(2)
    exit_status: int = uint32(3)
    exited_at: Timestamp | None = message(4, Timestamp)


class DeleteProcessRequest(Message, name="containerd.services.tasks.v1.DeleteProcessRequest"):
    container_id: str = string(1)
    exec_id: str = string(2)


class GetRequest(Message, name="containerd.services.tasks.v1.GetRequest"):
    container_id: str = string(1)
    exec_id: str = string(2)


class GetResponse(Message, name="containerd.services.tasks.v1.GetResponse"):
    process: Process | None = message(1, Process)


class ListTasksRequest(Message, name="containerd.services.tasks.v1.ListTasksRequest"):
    filter: str = string(1)


class ListTasksResponse(Message, name="containerd.services.tasks.v1.ListTasksResponse"):
    tasks: list[Process] = repeated(1, Process)


class KillRequest(Message, name="containerd.services.tasks.v1.KillRequest"):
    container_id: str = string(1)
    exec_id: str = string(2)
    signal: int = uint32(3)
    all: bool = boolean(4)


class ExecProcessRequest(Message, name="containerd.services.tasks.v1.ExecProcessRequest"):
    container_id: str = string(1)
    stdin: str = string(2)
    stdout: str = string(3)
    stderr: str = string(4)
    terminal: bool = boolean(5)
    spec: Any | None = message(6, Any)
    exec_id: str = string(7)


class ExecProcessResponse(Message, name="containerd.services.tasks.v1.ExecProcessResponse"):
    """Empty."""


class ResizePtyRequest(Message, name="containerd.services.tasks.v1.ResizePtyRequest"):
    container_id: str = string(1)
    exec_id: str = string(2)
    width: int = uint32(3)
    height: int = uint32(4)


class CloseIORequest(Message, name="containerd.services.tasks.v1.CloseIORequest"):
    container_id: str = string(1)
    exec_id: str = string(2)
    stdin: bool = boolean(3)


class PauseTaskRequest(Message, name="containerd.services.tasks.v1.PauseTaskRequest"):
    container_id: str = string(1)


class ResumeTaskRequest(Message, name="containerd.services.tasks.v1.ResumeTaskRequest"):
    container_id: str = string(1)


class ListPidsRequest(Message, name="containerd.services.tasks.v1.ListPidsRequest"):
    container_id: str = string(1)


class ListPidsResponse(Message, name="containerd.services.tasks.v1.ListPidsResponse"):
    processes: list[ProcessInfo] = repeated(1, ProcessInfo)


class CheckpointTaskRequest(Message, name="containerd.services.tasks.v1.CheckpointTaskRequest"):
    container_id: str = string(1)
    parent_checkpoint: str = string(2)
    options: Any | None = message(3, Any)


class CheckpointTaskResponse(Message, name="containerd.services.tasks.v1.CheckpointTaskResponse"):
    descriptors: list[Descriptor] = repeated(1, Descriptor)


class UpdateTaskRequest(Message, name="containerd.services.tasks.v1.UpdateTaskRequest"):
    container_id: str = string(1)
    resources: Any | None = message(2, Any)
    annotations: dict[str, str] = mapping(3, string)


class MetricsRequest(Message, name="containerd.services.tasks.v1.MetricsRequest"):
    filters: list[str] = repeated(1, string)


class MetricsResponse(Message, name="containerd.services.tasks.v1.MetricsResponse"):
    metrics: list[Metric] = repeated(1, Metric)


class WaitRequest(Message, name="containerd.services.tasks.v1.WaitRequest"):
    container_id: str = string(1)
    exec_id: str = string(2)


class WaitResponse(Message, name="containerd.services.tasks.v1.WaitResponse"):
    exit_status: int = uint32(1)
    exited_at: Timestamp | None = message(2, Timestamp)


class Tasks(Service, name="containerd.services.tasks.v1.Tasks"):
    Create = unary(CreateTaskRequest, CreateTaskResponse)
    Start = unary(StartRequest, StartResponse)
    Delete = unary(DeleteTaskRequest, DeleteResponse)
    DeleteProcess = unary(DeleteProcessRequest, DeleteResponse)
    Get = unary(GetRequest, GetResponse)
    List = unary(ListTasksRequest, ListTasksResponse)
    Kill = unary(KillRequest, Empty)
    Exec = unary(ExecProcessRequest, Empty)
    ResizePty = unary(ResizePtyRequest, Empty)
    CloseIO = unary(CloseIORequest, Empty)
    Pause = unary(PauseTaskRequest, Empty)
    Resume = unary(ResumeTaskRequest, Empty)
    ListPids = unary(ListPidsRequest, ListPidsResponse)
    Checkpoint = unary(CheckpointTaskRequest, CheckpointTaskResponse)
    Update = unary(UpdateTaskRequest, Empty)
    Metrics = unary(MetricsRequest, MetricsResponse)
    Wait = unary(WaitRequest, WaitResponse)
