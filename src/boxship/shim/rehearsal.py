"""The zygote plays a container's life a few times before it forks the first shim.

What is done once in the zygote is not done in every shim: CPython 3.11 writes to a function's code when it
specialises it (after some eight calls), fills type caches, and grows the allocator's arenas.  Each page written
to after a fork is copied, so fifty shims would pay for it fifty times, in memory and in page faults.
The play has the real server, service, publisher and files, and a container that is only pretended.
"""

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

from ..api.task.bootstrap import StartShimRequest
from ..api.task.task import (
    ConnectRequest,
    CreateTaskRequest,
    DeleteRequest,
    KillRequest,
    StartRequest,
    StateRequest,
    TaskV2,
    WaitRequest,
)
from ..api.task.types import Mount
from ..protobuf import Message, Method
from ..ttrpc.session import ClientSession
from .main import Shim
from .runtime import Made

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any as Anything

    from ..libcontainer.cgroups import Stats
    from .runtime import RunningProcess, Streams

ROUNDS = 10


class _Pretended:
    """A container that does nothing; its pid is nobody's."""

    pid = 1 << 30
    console = None
    own_pid_namespace = True

    def start(self) -> None:
        """Nothing runs."""

    def exec(self, spec: "dict[str, Anything]", streams: "Streams | None") -> "RunningProcess":
        return Made(self.pid, -1)

    def kill(self, signal: int, *, all: bool = False) -> None:
        """Nothing is there to kill."""

    def pause(self) -> None:
        """Nothing runs."""

    def resume(self) -> None:
        """Nothing runs."""

    def pids(self) -> "list[int]":
        return []

    def stats(self) -> "Stats":
        raise NotImplementedError  # not part of the play

    def update(self, resources: "dict[str, Anything]") -> None:
        """Nothing has limits."""

    def delete(self, *, force: bool = False) -> None:
        """Nothing is left."""


class _Stage:
    """``Runtime`` of pretended containers."""

    def create(
        self, id: str, bundle: str, root: str, streams: "Streams | None",
        rootfs: "Sequence[tuple[str, str, Sequence[str]]]", no_pivot: bool, systemd_cgroup: bool,
    ) -> _Pretended:  # fmt: skip
        return _Pretended()


def rehearse(directory: str) -> None:
    """Play in ``directory``, which is made and removed."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    fifos = [directory + "/stdout", directory + "/stderr"]
    events = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        for fifo in fifos:
            if not os.path.exists(fifo):
                os.mkfifo(fifo, 0o600)
        events.bind(b"")  # an abstract name that the kernel chooses (unix(7), autobind)
        events.listen(1)
        for _ in range(ROUNDS):
            _play(directory, "@" + events.getsockname()[1:].decode(), fifos)
    finally:
        events.close()
        for name in os.listdir(directory):
            os.unlink(directory + "/" + name)
        os.rmdir(directory)


def _play(directory: str, ttrpc_address: str, fifos: "list[str]") -> None:
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    listener.bind(b"")
    listener.listen(1)
    client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    client.connect(listener.getsockname())
    readers = [os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) for fifo in fifos]
    request = StartShimRequest(namespace="play", id="play", bundle=directory, ttrpc_address=ttrpc_address)
    shim = Shim(StartShimRequest.decode(request.encode()), listener, directory + "/none", _Stage())
    session = ClientSession()

    def call(method: Method, message: Message) -> None:
        client.send(session.call(method.service, method.name, message.encode(), metadata={"k": "v"})[1])
        for _ in range(2):
            shim.loop.turn(0)

    mount = Mount(type="overlay", source="overlay", options=["lowerdir=/a:/b", "upperdir=/c", "workdir=/d"])
    create = CreateTaskRequest(id="play", bundle=directory, rootfs=[mount], stdout=fifos[0], stderr=fifos[1])
    try:
        call(TaskV2.Create, create)
        call(TaskV2.Connect, ConnectRequest(id="play"))
        call(TaskV2.Start, StartRequest(id="play"))
        call(TaskV2.State, StateRequest(id="play"))
        call(TaskV2.Wait, WaitRequest(id="play"))
        call(TaskV2.Kill, KillRequest(id="play", signal=15))
        task = shim.service.tasks["play"]
        shim.service._ended(task, task.init, 0)
        for _ in range(3):
            shim.loop.turn(0)
        call(TaskV2.Delete, DeleteRequest(id="play"))
    finally:
        shim.server.close()
        shim.publisher.close()
        shim.loop.close()
        for reader in readers:
            os.close(reader)
        client.close()


_CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE"]
_MOUNTS = (
    ("/proc", "proc", "nosuid,noexec,nodev"),
    ("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
    ("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=65536k"),
    ("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
    ("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
)
SPEC: "dict[str, Anything]" = {
    "ociVersion": "1.0.2",
    "process": {
        "args": ["sh", "-c", "true"],
        "cwd": "/",
        "env": ["PATH=/usr/bin:/bin", "TERM=xterm"],
        "user": {"uid": 0, "gid": 0, "additionalGids": [10]},
        "noNewPrivileges": True,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
    },
    "root": {"path": "rootfs", "readonly": False},
    "hostname": "play",
    "mounts": [
        {"destination": where, "type": type, "source": type, "options": options.split(",")}
        for where, type, options in _MOUNTS
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
        "readonlyPaths": ["/proc/bus", "/proc/sys"],
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}],
            "memory": {"limit": 1 << 30},
            "cpu": {"shares": 1024},
            "pids": {"limit": 100},
        },
        "cgroupsPath": "/play/play",
    },
}
"""What an engine usually asks for."""


def rehearse_compiling() -> None:
    """Compile a usual container's plan, for nobody."""
    from ..libcontainer.compile import Request, compile_spec
    from ..libcontainer.host import host
    from ..libcontainer.plan import codec
    from ..libcontainer.resources import for_cgroups
    from ..oci import cold_json

    mounts = [("overlay", "overlay", ["lowerdir=/a:/b", "upperdir=/c", "workdir=/d"])]
    for _ in range(ROUNDS):
        spec = cold_json.loads(cold_json.dumps(SPEC))
        request = Request(spec, id="play", bundle="/play", rootfs="/play/rootfs", rootfs_mounts=mounts, tasks=8)
        codec.encode(compile_spec(request, host()).ops)
        for_cgroups(spec["linux"])
