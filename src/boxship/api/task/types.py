"""Messages that the task API shares with the rest of containerd's.

Field numbers: containerd api/types/{mount,event,introspection}.proto, api/types/task/task.proto.
"""

from boxship.protobuf import (
    Any,
    Enum,
    Message,
    Timestamp,
    boolean,
    enum,
    mapping,
    message,
    repeated,
    string,
    uint32,
)


class Mount(Message, name="containerd.types.Mount"):
    """One mount as mount(8) would be told it; ``target`` is relative to the root file system."""

    type: str = string(1)
    source: str = string(2)
    target: str = string(3)
    options: list[str] = repeated(4, string)


class Envelope(Message, name="containerd.types.Envelope"):
    """An event on its way: when, in which namespace, under which topic."""

    timestamp: Timestamp | None = message(1, Timestamp)
    namespace: str = string(2)
    topic: str = string(3)
    event: Any | None = message(4, Any)


class Status(Enum, name="containerd.v1.types.Status"):
    """Where a process is in its life."""

    UNKNOWN = 0
    CREATED = 1
    RUNNING = 2
    STOPPED = 3
    PAUSED = 4
    PAUSING = 5


class Process(Message, name="containerd.v1.types.Process"):
    container_id: str = string(1)
    id: str = string(2)
    pid: int = uint32(3)
    status: int = enum(4)
    stdin: str = string(5)
    stdout: str = string(6)
    stderr: str = string(7)
    terminal: bool = boolean(8)
    exit_status: int = uint32(9)
    exited_at: Timestamp | None = message(10, Timestamp)


class ProcessInfo(Message, name="containerd.v1.types.ProcessInfo"):
    """A process of a container; ``info`` holds a ProcessDetails for exec'd ones."""

    pid: int = uint32(1)
    info: Any | None = message(2, Any)


class RuntimeVersion(Message, name="containerd.types.RuntimeVersion"):
    version: str = string(1)
    revision: str = string(2)


class RuntimeInfo(Message, name="containerd.types.RuntimeInfo"):
    """What a shim answers to ``-info``."""

    name: str = string(1)
    version: RuntimeVersion | None = message(2, RuntimeVersion)
    options: Any | None = message(3, Any)
    features: Any | None = message(4, Any)
    annotations: dict[str, str] = mapping(5, string)
