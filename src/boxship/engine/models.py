"""What the Engine API's documents hold, under the API's own names and with dockerd's defaults.

Unknown fields of a request are ignored, as the Engine does; a wrong type is an InvalidArgument that names its path.
Everything in a container's record is kept, also what this engine does not act on, because ``inspect`` shows it.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from boxship.errors import InvalidArgument

T = TypeVar("T")

MASKED_PATHS = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
    "/sys/devices/virtual/powercap", "/sys/firmware",
]  # fmt: skip
READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


class ContainerConfig(Struct):
    """What a container runs: ``Config`` of create and inspect, and of an image."""

    Hostname: str = ""
    Domainname: str = ""
    User: str = ""
    AttachStdin: bool = False
    AttachStdout: bool = False
    AttachStderr: bool = False
    ExposedPorts: dict[str, Any] | None = None
    Tty: bool = False
    OpenStdin: bool = False
    StdinOnce: bool = False
    Env: list[str] | None = None
    Cmd: list[str] | str | None = None
    Healthcheck: dict[str, Any] | None = None
    ArgsEscaped: bool | None = None
    Image: str = ""
    Volumes: dict[str, Any] | None = None
    WorkingDir: str = ""
    Entrypoint: list[str] | str | None = None
    NetworkDisabled: bool | None = None
    MacAddress: str | None = None
    OnBuild: list[str] | None = None
    Labels: dict[str, str] | None = None
    StopSignal: str | None = None
    StopTimeout: int | None = None
    Shell: list[str] | None = None


class LogConfig(Struct):
    Type: str = ""
    Config: dict[str, str] | None = None


class RestartPolicy(Struct):
    Name: str = ""
    MaximumRetryCount: int = 0


class Ulimit(Struct):
    Name: str
    Hard: int = 0
    Soft: int = 0


class DeviceMapping(Struct):
    PathOnHost: str = ""
    PathInContainer: str = ""
    CgroupPermissions: str = ""


class PortBinding(Struct):
    HostIp: str = ""
    HostPort: str = ""


class MountRequest(Struct):
    """One entry of ``HostConfig.Mounts`` (``--mount``)."""

    Target: str = ""
    Source: str = ""
    Type: str = ""
    ReadOnly: bool = False
    Consistency: str = ""
    BindOptions: dict[str, Any] | None = None
    VolumeOptions: dict[str, Any] | None = None
    TmpfsOptions: dict[str, Any] | None = None


class HostConfig(Struct):
    """How a container is placed on its host."""

    Binds: list[str] | None = None
    ContainerIDFile: str = ""
    LogConfig: LogConfig = field(default_factory=LogConfig)
    NetworkMode: str = ""
    PortBindings: dict[str, list[PortBinding] | None] | None = None
    RestartPolicy: RestartPolicy = field(default_factory=RestartPolicy)
    AutoRemove: bool = False
    VolumeDriver: str = ""
    VolumesFrom: list[str] | None = None
    ConsoleSize: list[int] = field(default_factory=lambda: [0, 0])
    Annotations: dict[str, str] | None = None
    CapAdd: list[str] | None = None
    CapDrop: list[str] | None = None
    CgroupnsMode: str = ""
    Dns: list[str] | None = None
    DnsOptions: list[str] | None = None
    DnsSearch: list[str] | None = None
    ExtraHosts: list[str] | None = None
    GroupAdd: list[str] | None = None
    IpcMode: str = ""
    Cgroup: str = ""
    Links: list[str] | None = None
    OomScoreAdj: int = 0
    PidMode: str = ""
    Privileged: bool = False
    PublishAllPorts: bool = False
    ReadonlyRootfs: bool = False
    SecurityOpt: list[str] | None = None
    StorageOpt: dict[str, str] | None = None
    Tmpfs: dict[str, str] | None = None
    UTSMode: str = ""
    UsernsMode: str = ""
    ShmSize: int | None = None
    Sysctls: dict[str, str] | None = None
    Runtime: str = ""
    Isolation: str = ""
    CpuShares: int = 0
    Memory: int = 0
    NanoCpus: int = 0
    CgroupParent: str = ""
    BlkioWeight: int = 0
    BlkioWeightDevice: list[Any] | None = None
    BlkioDeviceReadBps: list[Any] | None = None
    BlkioDeviceWriteBps: list[Any] | None = None
    BlkioDeviceReadIOps: list[Any] | None = None
    BlkioDeviceWriteIOps: list[Any] | None = None
    CpuPeriod: int = 0
    CpuQuota: int = 0
    CpuRealtimePeriod: int = 0
    CpuRealtimeRuntime: int = 0
    CpusetCpus: str = ""
    CpusetMems: str = ""
    Devices: list[DeviceMapping] | None = None
    DeviceCgroupRules: list[str] | None = None
    DeviceRequests: list[Any] | None = None
    MemoryReservation: int = 0
    MemorySwap: int = 0
    MemorySwappiness: int | None = None
    OomKillDisable: bool | None = None
    Init: bool | None = None
    PidsLimit: int | None = None
    Ulimits: list[Ulimit] | None = None
    CpuCount: int = 0
    CpuPercent: int = 0
    IOMaximumIOps: int = 0
    IOMaximumBandwidth: int = 0
    Mounts: list[MountRequest] | None = None
    MaskedPaths: list[str] | None = None
    ReadonlyPaths: list[str] | None = None


class EndpointSettings(Struct):
    """A container's place in one network."""

    IPAMConfig: dict[str, Any] | None = None
    Links: list[str] | None = None
    Aliases: list[str] | None = None
    MacAddress: str = ""
    DriverOpts: dict[str, str] | None = None
    GwPriority: int = 0
    NetworkID: str = ""
    EndpointID: str = ""
    Gateway: str = ""
    IPAddress: str = ""
    IPPrefixLen: int = 0
    IPv6Gateway: str = ""
    GlobalIPv6Address: str = ""
    GlobalIPv6PrefixLen: int = 0
    DNSNames: list[str] | None = None


class NetworkingConfig(Struct):
    EndpointsConfig: dict[str, EndpointSettings | None] | None = None


class CreateRequest(ContainerConfig):
    """The body of ``POST /containers/create``."""

    HostConfig: HostConfig | None = None
    NetworkingConfig: NetworkingConfig | None = None


class MountPoint(Struct, omit_defaults=True):
    """An entry of a container's ``Mounts``: what was resolved, not what was asked for."""

    Type: str
    Source: str
    Destination: str
    Name: str = ""
    Driver: str = ""
    Mode: str = msgspec.UNSET  # type: ignore[assignment]  # always encoded, also when ""
    RW: bool = msgspec.UNSET  # type: ignore[assignment]
    Propagation: str = msgspec.UNSET  # type: ignore[assignment]


class State(Struct):
    """A container's state, persisted with it. Times are RFC 3339 with nanoseconds, as dockerd writes them."""

    Status: str = "created"
    Running: bool = False
    Paused: bool = False
    Restarting: bool = False
    OOMKilled: bool = False
    Dead: bool = False
    Pid: int = 0
    ExitCode: int = 0
    Error: str = ""
    StartedAt: str = "0001-01-01T00:00:00Z"
    FinishedAt: str = "0001-01-01T00:00:00Z"


class Record(Struct):
    """All that the engine keeps of a container, one JSON file each."""

    Id: str
    Name: str
    Created: str
    Config: ContainerConfig
    HostConfig: HostConfig
    Path: str
    Args: list[str]
    Image: str  # digest of the image's config, "sha256:..."
    ImageName: str = ""
    Platform: str = "linux"
    State: State = field(default_factory=State)
    RestartCount: int = 0
    HasBeenStarted: bool = False
    StoppedByUser: bool = False
    Mounts: list[MountPoint] = field(default_factory=list)
    Networks: dict[str, EndpointSettings] = field(default_factory=dict)
    Ports: dict[str, list[PortBinding] | None] = field(default_factory=dict)
    AnonymousVolumes: list[str] = field(default_factory=list)


def decode(data: bytes, kind: type[T], what: str) -> T:
    """``data`` as JSON of ``kind``; raises InvalidArgument that says what is wrong where."""
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"{what}: {error}") from error
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"{what} is not valid JSON: {error}") from error


def words(value: list[str] | str | None) -> list[str] | None:
    """``Cmd`` and ``Entrypoint`` may be one string; inside they are lists."""
    return [value] if isinstance(value, str) else value
