"""How containerd starts a shim, and how ``start`` asks the zygote for one.

Field numbers of the first three: containerd api/runtime/bootstrap/v1/bootstrap.proto (2.3 and later write
BootstrapParams to the shim's standard input); the Zygote service is ours.
"""

from boxship.protobuf import Any, Message, Service, enum, int32, mapping, message, repeated, string, unary


class Extension(Message, name="containerd.runtime.bootstrap.v1.Extension"):
    value: Any | None = message(1, Any)


class BootstrapParams(Message, name="containerd.runtime.bootstrap.v1.BootstrapParams"):
    instance_id: str = string(1)
    namespace: str = string(2)
    log_level: int = enum(3)
    containerd_version: str = string(4)
    containerd_ttrpc_address: str = string(5)
    containerd_grpc_address: str = string(6)
    containerd_binary: str = string(7)
    extensions: list[Extension] = repeated(8, Extension)
    socket_dir: str | None = string(9, optional=True)


class BootstrapResult(Message, name="containerd.runtime.bootstrap.v1.BootstrapResult"):
    """``version`` is the Task service's (2 or 3); ``protocol`` is ``ttrpc``."""

    version: int = int32(1)
    address: str = string(2)
    protocol: str = string(3)
    capabilities: list[int] = repeated(4, enum)
    metadata: dict[str, str] = mapping(5, string)


class StartShimRequest(Message, name="boxship.shim.v1.StartShimRequest"):
    """Everything that a shim is told once.

    ``address`` is containerd's gRPC socket (for the process title and to tell two containerds apart),
    ``ttrpc_address`` the socket that events go to; ``socket_dir`` is where the shim's own socket is made,
    ``<exec root>/s`` when empty.
    """

    namespace: str = string(1)
    id: str = string(2)
    bundle: str = string(3)
    address: str = string(4)
    ttrpc_address: str = string(5)
    socket_dir: str = string(6)
    exec_root: str = string(7)


class StartShimResponse(Message, name="boxship.shim.v1.StartShimResponse"):
    """``address`` is ``unix://PATH`` of the shim's Task service."""

    address: str = string(1)
    pid: int = int32(2)


class Zygote(Service, name="boxship.shim.v1.Zygote"):
    """The warm process that forks shims, on ``<exec root>/zygote.sock``.

    Start answers when the shim's socket takes connections.  Unavailable means: this zygote is too old for
    the code on disk, has closed its door, and a new one must be started.
    """

    Start = unary(StartShimRequest, StartShimResponse)
