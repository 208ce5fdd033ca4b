"""The few messages of the Container Runtime Interface that a test needs to run a pod, and a client for them.

Field numbers: k8s.io/cri-api, runtime/v1/api.proto. Only what is set or read is declared.
"""

from typing import Any, TypeVar

import grpc

from boxship.protobuf import Message, binary, enum, int32, int64, message, repeated, string, uint32

NODE = 2
"""NamespaceMode: the host's namespace."""
RUNNING, EXITED = 1, 2
"""ContainerState."""

M = TypeVar("M", bound=Message)


class Empty(Message, name="runtime.v1.Empty"):
    """A request or response whose content does not matter here."""


class NamespaceOption(Message, name="runtime.v1.NamespaceOption"):
    network: int = enum(1)


class SandboxSecurity(Message, name="runtime.v1.LinuxSandboxSecurityContext"):
    namespace_options: "NamespaceOption | None" = message(1, NamespaceOption)


class LinuxSandbox(Message, name="runtime.v1.LinuxPodSandboxConfig"):
    cgroup_parent: str = string(1)
    security_context: "SandboxSecurity | None" = message(2, SandboxSecurity)


class SandboxMetadata(Message, name="runtime.v1.PodSandboxMetadata"):
    name: str = string(1)
    uid: str = string(2)
    namespace: str = string(3)


class SandboxConfig(Message, name="runtime.v1.PodSandboxConfig"):
    metadata: "SandboxMetadata | None" = message(1, SandboxMetadata)
    log_directory: str = string(3)
    linux: "LinuxSandbox | None" = message(8, LinuxSandbox)


class RunPodSandboxRequest(Message, name="runtime.v1.RunPodSandboxRequest"):
    config: "SandboxConfig | None" = message(1, SandboxConfig)
    runtime_handler: str = string(2)


class SandboxId(Message, name="runtime.v1.PodSandboxId"):
    """RunPodSandboxResponse, and the requests that name a sandbox."""

    pod_sandbox_id: str = string(1)


class Image(Message, name="runtime.v1.ImageSpec"):
    image: str = string(1)


class KeyValue(Message, name="runtime.v1.KeyValue"):
    key: str = string(1)
    value: str = string(2)


class MountPoint(Message, name="runtime.v1.Mount"):
    container_path: str = string(1)
    host_path: str = string(2)


class Resources(Message, name="runtime.v1.LinuxContainerResources"):
    cpu_period: int = int64(1)
    cpu_quota: int = int64(2)
    cpu_shares: int = int64(3)
    memory_limit_in_bytes: int = int64(4)
    oom_score_adj: int = int64(5)


class LinuxContainer(Message, name="runtime.v1.LinuxContainerConfig"):
    resources: "Resources | None" = message(1, Resources)
    security_context: "ContainerSecurity | None" = message(2, lambda *a, **k: ContainerSecurity(*a, **k))


class ContainerSecurity(Message, name="runtime.v1.LinuxContainerSecurityContext"):
    namespace_options: "NamespaceOption | None" = message(3, NamespaceOption)


class ContainerMetadata(Message, name="runtime.v1.ContainerMetadata"):
    name: str = string(1)
    attempt: int = uint32(2)


class ContainerConfig(Message, name="runtime.v1.ContainerConfig"):
    metadata: "ContainerMetadata | None" = message(1, ContainerMetadata)
    image: "Image | None" = message(2, Image)
    command: list[str] = repeated(3, string)
    args: list[str] = repeated(4, string)
    envs: list[KeyValue] = repeated(6, KeyValue)
    mounts: list[MountPoint] = repeated(7, MountPoint)
    log_path: str = string(11)
    linux: "LinuxContainer | None" = message(15, LinuxContainer)


class CreateContainerRequest(Message, name="runtime.v1.CreateContainerRequest"):
    pod_sandbox_id: str = string(1)
    config: "ContainerConfig | None" = message(2, ContainerConfig)
    sandbox_config: "SandboxConfig | None" = message(3, SandboxConfig)


class ContainerId(Message, name="runtime.v1.ContainerId"):
    """CreateContainerResponse, and the requests that name a container (``timeout`` of StopContainer, in seconds)."""

    container_id: str = string(1)
    timeout: int = int64(2)


class ExecSyncRequest(Message, name="runtime.v1.ExecSyncRequest"):
    container_id: str = string(1)
    cmd: list[str] = repeated(2, string)
    timeout: int = int64(3)


class ExecSyncResponse(Message, name="runtime.v1.ExecSyncResponse"):
    stdout: bytes = binary(1)
    stderr: bytes = binary(2)
    exit_code: int = int32(3)


class UpdateResources(Message, name="runtime.v1.UpdateContainerResourcesRequest"):
    container_id: str = string(1)
    linux: "Resources | None" = message(2, Resources)


class ContainerStatus(Message, name="runtime.v1.ContainerStatus"):
    id: str = string(1)
    state: int = enum(3)
    exit_code: int = int32(7)
    reason: str = string(10)


class ContainerStatusResponse(Message, name="runtime.v1.ContainerStatusResponse"):
    status: "ContainerStatus | None" = message(1, ContainerStatus)


class Cri:
    """A CRI endpoint on a unix socket."""

    def __init__(self, socket: str) -> None:
        self._channel = grpc.insecure_channel(f"unix://{socket}", options=[("grpc.default_authority", "localhost")])

    def __call__(self, method: str, request: Message, answer: "type[M]", timeout: float = 30) -> M:
        """One call of RuntimeService; raises grpc.RpcError."""
        call: Any = self._channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=lambda value: value.encode(),
            response_deserializer=answer.decode,
        )
        result: M = call(request, timeout=timeout)
        return result

    def close(self) -> None:
        self._channel.close()
