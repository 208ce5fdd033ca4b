"""Events that a shim publishes, and the ttrpc service of containerd that takes them.

A dockerd relies on TaskExit alone to learn that a container ended.
Field numbers: containerd api/events/task.proto, api/services/ttrpc/events/v1/events.proto;
topics: containerd core/runtime/events.go.
"""

from boxship.protobuf import Empty, Message, Service, Timestamp, boolean, message, repeated, string, uint32, unary

from .types import Envelope, Mount


class TaskIO(Message, name="containerd.events.TaskIO"):
    stdin: str = string(1)
    stdout: str = string(2)
    stderr: str = string(3)
    terminal: bool = boolean(4)


class TaskCreate(Message, name="containerd.events.TaskCreate"):
    container_id: str = string(1)
    bundle: str = string(2)
    rootfs: list[Mount] = repeated(3, Mount)
    io: TaskIO | None = message(4, TaskIO)
    checkpoint: str = string(5)
    pid: int = uint32(6)


class TaskStart(Message, name="containerd.events.TaskStart"):
    container_id: str = string(1)
    pid: int = uint32(2)


class TaskDelete(Message, name="containerd.events.TaskDelete"):
    """``id`` is the exec's id, or the container's for init."""

    container_id: str = string(1)
    pid: int = uint32(2)
    exit_status: int = uint32(3)
    exited_at: Timestamp | None = message(4, Timestamp)
    id: str = string(5)


class TaskExit(Message, name="containerd.events.TaskExit"):
    """``id`` is the exec's id, or the container's for init."""

    container_id: str = string(1)
    id: str = string(2)
    pid: int = uint32(3)
    exit_status: int = uint32(4)
    exited_at: Timestamp | None = message(5, Timestamp)


class TaskOOM(Message, name="containerd.events.TaskOOM"):
    container_id: str = string(1)


class TaskExecAdded(Message, name="containerd.events.TaskExecAdded"):
    container_id: str = string(1)
    exec_id: str = string(2)


class TaskExecStarted(Message, name="containerd.events.TaskExecStarted"):
    container_id: str = string(1)
    exec_id: str = string(2)
    pid: int = uint32(3)


class TaskPaused(Message, name="containerd.events.TaskPaused"):
    container_id: str = string(1)


class TaskResumed(Message, name="containerd.events.TaskResumed"):
    container_id: str = string(1)


class TaskCheckpointed(Message, name="containerd.events.TaskCheckpointed"):
    container_id: str = string(1)
    checkpoint: str = string(2)


TOPICS: "dict[type[Message], str]" = {
    TaskCreate: "/tasks/create",
    TaskStart: "/tasks/start",
    TaskDelete: "/tasks/delete",
    TaskExit: "/tasks/exit",
    TaskOOM: "/tasks/oom",
    TaskExecAdded: "/tasks/exec-added",
    TaskExecStarted: "/tasks/exec-started",
    TaskPaused: "/tasks/paused",
    TaskResumed: "/tasks/resumed",
    TaskCheckpointed: "/tasks/checkpointed",
}


class ForwardRequest(Message, name="containerd.services.events.ttrpc.v1.ForwardRequest"):
    envelope: Envelope | None = message(1, Envelope)


class Events(Service, name="containerd.services.events.ttrpc.v1.Events"):
    """Served by containerd on the socket that a shim is told as TTRPC_ADDRESS."""

    Forward = unary(ForwardRequest, Empty)
