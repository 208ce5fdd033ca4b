"""Kubernetes' way to containers: pods by the CRI of the real containerd, each runtime beside runc.

What a pod's containers show must be the same with runc, with `boxship-runc` in its place under runc's shim, and with
our shim. No network plugin is needed: the pods use the host's network.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from . import cri
from .cri import Cri
from .test_runtime_with_its_callers import BUSYBOX, RUNTIME, run
from .test_shim_with_containerd import IMAGE, image_archive

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not BUSYBOX, reason="needs root and a static busybox"),
    pytest.mark.skipif(not RUNTIME.exists(), reason="needs boxship installed beside this Python"),
    pytest.mark.peer("containerd", "ctr", "runc"),
]
HANDLERS = ("runc", "boxship-runc", "boxship-shim")

CONFIG = """
version = 2
root = "{root}/root"
state = "{root}/state"
[grpc]
  address = "{root}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  enable_selinux = false
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.boxship-runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.boxship-runc.options]
  BinaryName = "{runtime}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.boxship-shim]
  runtime_type = "io.containerd.boxship.v2"
"""


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[tuple[Cri, Path]]":
    root = tmp_path_factory.mktemp("cri")
    image_archive(root / "image.tar", ("/bin/sleep", "1000"))  # the sandbox's own container is one of it, too
    (root / "config.toml").write_text(CONFIG.format(root=root, image=IMAGE, runtime=RUNTIME))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BOXSHIP_EXEC_ROOT": str(root / "exec"),
    }
    with open(root / "log", "wb") as log:
        process = subprocess.Popen(
            ["containerd", "-c", str(root / "config.toml")], stdout=log, stderr=log, env=environment
        )
    client = Cri(str(root / "c.sock"))
    try:
        deadline = time.monotonic() + 20
        while run("ctr", "-a", str(root / "c.sock"), "version").returncode:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        imported = run("ctr", "-a", str(root / "c.sock"), "-n", "k8s.io", "images", "import", str(root / "image.tar"))
        assert imported.returncode == 0, imported.stderr
        yield client, root
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        for zygote in _processes_of(root):
            os.kill(zygote, signal.SIGKILL)
        for group in Path("/sys/fs/cgroup").glob(f"*/boxship-cri-{os.getpid()}"):
            group.rmdir()  # the pods' parent; theirs are gone
        shutil.rmtree(root, ignore_errors=True)


def _processes_of(root: Path) -> "list[int]":
    """The zygote that our shim started for this containerd."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        if os.fsencode(root / "exec") in words:
            found.append(int(pid))
    return found


class Pod:
    def __init__(self, client: Cri, handler: str, logs: Path) -> None:
        self.client = client
        network = cri.NamespaceOption(network=cri.NODE)
        cgroup = f"/boxship-cri-{os.getpid()}"
        self.config = cri.SandboxConfig(
            metadata=cri.SandboxMetadata(name=f"pod-{handler}", uid=f"uid-{handler}", namespace="default"),
            log_directory=str(logs),
            linux=cri.LinuxSandbox(
                cgroup_parent=cgroup, security_context=cri.SandboxSecurity(namespace_options=network)
            ),
        )
        self.security = cri.ContainerSecurity(namespace_options=network)
        request = cri.RunPodSandboxRequest(config=self.config, runtime_handler=handler)
        self.id = client("RunPodSandbox", request, cri.SandboxId).pod_sandbox_id
        self.logs = logs

    def create(self, name: str, *command: str, resources: "cri.Resources | None" = None) -> str:
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.Image(image=IMAGE),
            command=list(command),
            envs=[cri.KeyValue(key="COLOUR", value="green")],
            log_path=f"{name}.log",
            linux=cri.LinuxContainer(resources=resources, security_context=self.security),
        )
        request = cri.CreateContainerRequest(pod_sandbox_id=self.id, config=config, sandbox_config=self.config)
        return self.client("CreateContainer", request, cri.ContainerId).container_id

    def start(self, id: str) -> None:
        self.client("StartContainer", cri.ContainerId(container_id=id), cri.Empty)

    def status(self, id: str) -> cri.ContainerStatus:
        found = self.client("ContainerStatus", cri.ContainerId(container_id=id), cri.ContainerStatusResponse).status
        assert found is not None
        return found

    def wait(self, id: str) -> cri.ContainerStatus:
        deadline = time.monotonic() + 10
        while (found := self.status(id)).state != cri.EXITED:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return found

    def exec(self, id: str, *command: str) -> "tuple[int, bytes, bytes]":
        request = cri.ExecSyncRequest(container_id=id, cmd=list(command), timeout=10)
        answer = self.client("ExecSync", request, cri.ExecSyncResponse)
        return answer.exit_code, answer.stdout, answer.stderr

    def log(self, name: str) -> "list[str]":
        """What a container said, as "stream text"."""
        lines = (self.logs / f"{name}.log").read_text().splitlines()
        said = [" ".join([line.split(" ", 3)[1], line.split(" ", 3)[3]]) for line in lines]
        # A bind mount with "rw" keeps its source's flags with runc 1.1, and not since 1.2, nor with us.
        said = [line for line in said if not line.startswith("stdout /dev/shm ")]
        return sorted(said)  # two streams have no order between them, nor have mounts that are not below another

    def remove(self) -> None:
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            self.client(method, cri.SandboxId(pod_sandbox_id=self.id), cri.Empty)


LOOK = (
    "id; echo $COLOUR; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; cat /proc/self/oom_score_adj;"
    "ulimit -n; ls /dev; cut -d' ' -f5,6 /proc/self/mountinfo | grep -v '^/sys/fs/cgroup/'; echo wrong >&2; exit 7"
)


def observe(client: Cri, handler: str, logs: Path) -> "dict[str, object]":
    """Run a pod through its life with one runtime; all that a person could see of it."""
    logs.mkdir()
    pod = Pod(client, handler, logs)
    seen: dict[str, object] = {}
    try:
        limits = cri.Resources(memory_limit_in_bytes=64 << 20, cpu_shares=512, oom_score_adj=300)
        look = pod.create("look", "sh", "-c", LOOK, resources=limits)
        pod.start(look)
        ended = pod.wait(look)
        seen["ended"] = (ended.exit_code, ended.reason)
        seen["said"] = pod.log("look")

        stay = pod.create("stay", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done", resources=limits)
        pod.start(stay)
        seen["exec"] = pod.exec(stay, "sh", "-c", "echo out; echo err >&2; exit 4")
        seen["exec of nothing"] = _error(lambda: pod.exec(stay, "no-such-program"))
        seen["first process"] = pod.exec(stay, "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline")
        limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.shares"
        seen["limits"] = pod.exec(stay, "sh", "-c", limit)
        changed = cri.UpdateResources(
            container_id=stay, linux=cri.Resources(memory_limit_in_bytes=128 << 20, cpu_shares=256)
        )
        client("UpdateContainerResources", changed, cri.Empty)
        seen["limits changed"] = pod.exec(stay, "sh", "-c", limit)
        client("StopContainer", cri.ContainerId(container_id=stay, timeout=5), cri.Empty)
        seen["stopped"] = pod.wait(stay).exit_code

        hungry = pod.create(
            "hungry", "sh", "-c", "x=$(head -c 40000000 /dev/zero | tr '\\0' x); echo ${#x}",
            resources=cri.Resources(memory_limit_in_bytes=8 << 20),
        )  # fmt: skip
        pod.start(hungry)
        # Its reason is OOMKilled or Error: containerd may see the exit first, also with runc.
        seen["hungry"] = pod.wait(hungry).exit_code

        missing = pod.create("missing", "no-such-program")
        seen["missing"] = _error(lambda: pod.start(missing))
    finally:
        pod.remove()
    return seen


def _error(do: "object") -> str:
    """The kind of error that a call ends in, and the part of its text that people and programs look for."""
    assert callable(do)
    try:
        result = do()
    except grpc.RpcError as error:
        text = str(error.details())  # type: ignore[attr-defined]  # of the Call that it is, too
        found = [part for part in ("executable file not found in $PATH", "no such file") if part in text]
        return f"{error.code()} {found}"  # type: ignore[attr-defined]
    return f"no error: {result}"


@pytest.fixture(scope="module")
def with_runc(endpoint: "tuple[Cri, Path]") -> "dict[str, object]":
    client, root = endpoint
    return observe(client, "runc", root / "logs-runc")


@pytest.mark.parametrize("handler", HANDLERS[1:])
def test_a_pod_is_the_same_as_with_runc(
    endpoint: "tuple[Cri, Path]", with_runc: "dict[str, object]", handler: str
) -> None:
    client, root = endpoint
    seen = observe(client, handler, root / f"logs-{handler}")
    assert with_runc["ended"] == (7, "Error")
    for name, value in with_runc.items():
        assert seen[name] == value, f"{name}: {json.dumps([seen[name], value], default=str, indent=1)}"
    left = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{root}/state" in line]
    assert not left
