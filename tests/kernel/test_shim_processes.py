"""Real shims from a real zygote, driven over ttrpc: logs, terminals, inputs, loggers, deaths."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any as Anything

import pytest

import boxship
import boxship.api.task.metrics  # declares what StatsResponse holds
from boxship.api.task.bootstrap import BootstrapParams
from boxship.api.task.options import ShimOptions
from boxship.api.task.task import (
    CloseIORequest,
    ConnectRequest,
    CreateTaskRequest,
    DeleteRequest,
    DeleteResponse,
    ExecProcessRequest,
    KillRequest,
    ResizePtyRequest,
    ShutdownRequest,
    StartRequest,
    StateRequest,
    StatsRequest,
    TaskV2,
    TaskV3,
    WaitRequest,
)
from boxship.api.task.types import Mount, Status
from boxship.api.task.zygote import ShimLauncher
from boxship.errors import BoxshipError, NotFound, Unavailable
from boxship.protobuf import Any
from boxship.ttrpc import aio
from boxship.ttrpc.blocking import BlockingClient

SOURCE = Path(boxship.__file__).parent
BUSYBOX = "/bin/busybox"
APPLETS = ("sh", "echo", "cat", "sleep", "true", "stty", "tty", "seq", "dd", "yes", "head")
COLD = [sys.executable, "-I", "-S", str(SOURCE / "shim" / "cold.py")]

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not os.path.exists(BUSYBOX), reason="no static busybox"),
    pytest.mark.skipif(not (SOURCE / "_native/executor").exists(), reason="the native executor is not built"),
]

NAMESPACES = [{"type": kind} for kind in ("mount", "pid", "network", "ipc", "uts")]
MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
]


def wait_until(what: str, check: Callable[[], object], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.01)


class Bench:
    """An exec root with its zygote, and bundles made of busybox."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.launcher = ShimLauncher(str(root / "x"))
        self.rootfs = root / "rootfs"
        (self.rootfs / "bin").mkdir(parents=True)
        for name in ("proc", "dev", "tmp"):
            (self.rootfs / name).mkdir()
        shutil.copy(BUSYBOX, self.rootfs / "bin/busybox")
        for name in APPLETS:
            (self.rootfs / "bin" / name).symlink_to("busybox")

    def bundle(self, id: str, *command: str, terminal: bool = False) -> Path:
        bundle = self.root / "bundles" / id
        bundle.mkdir(parents=True)
        (bundle / "rootfs").mkdir()
        process = {
            "args": list(command), "cwd": "/", "env": ["PATH=/bin"], "terminal": terminal,
            "user": {"uid": 0, "gid": 0}, "capabilities": {"bounding": [], "effective": [], "permitted": []},
        }  # fmt: skip
        spec = {
            "ociVersion": "1.0.2", "process": process, "root": {"path": str(self.rootfs)}, "mounts": MOUNTS,
            "linux": {"namespaces": NAMESPACES, "cgroupsPath": f"/boxship-test/{id}"},
        }  # fmt: skip
        (bundle / "config.json").write_text(json.dumps(spec))
        return bundle

    def shim(self, id: str, bundle: Path) -> Shim:
        address = self.launcher.start("test", id, str(bundle), "/none", "")
        return Shim(id, bundle, address)

    def zygote(self, part: str = "zygote") -> int:
        """The zygote's pid (or its template's), 0 when there is none."""
        wanted = f"boxship-{part}\0{self.launcher.socket}\0".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if (entry / "cmdline").read_bytes().startswith(wanted):
                        return int(entry.name)
                except OSError:
                    continue
        return 0


class Shim:
    """A client of one shim."""

    def __init__(self, id: str, bundle: Path, address: str) -> None:
        self.id, self.bundle, self.address = id, bundle, address
        self.client = BlockingClient.connect(address)

    def call(self, method: Anything, request: Anything, timeout: float = 10) -> Anything:
        return self.client.call(method, request, timeout=timeout)

    def create(self, **fields: Anything) -> int:
        request = CreateTaskRequest(id=self.id, bundle=str(self.bundle), **fields)
        return int(self.call(TaskV2.Create, request).pid)

    def start(self, exec_id: str = "") -> int:
        return int(self.call(TaskV2.Start, StartRequest(id=self.id, exec_id=exec_id)).pid)

    def wait(self, exec_id: str = "") -> int:
        return int(self.call(TaskV2.Wait, WaitRequest(id=self.id, exec_id=exec_id)).exit_status)

    def kill(self, number: int = 9) -> None:
        self.call(TaskV2.Kill, KillRequest(id=self.id, signal=number))

    def pid(self) -> int:
        return int(self.call(TaskV2.Connect, ConnectRequest(id=self.id)).shim_pid)

    def end(self) -> None:
        """Delete and shut down; all that the shim had must be gone."""
        pid = self.pid()
        self.call(TaskV2.Delete, DeleteRequest(id=self.id))
        self.call(TaskV2.Shutdown, ShutdownRequest(id=self.id))
        wait_until("the shim ends", lambda: not alive(pid))
        assert not os.path.exists(self.address.removeprefix("unix://"))
        assert not list(Path("/sys/fs/cgroup").glob(f"*/boxship-test/{self.id}"))

    def logged(self) -> list[tuple[str, str]]:
        with open(self.bundle / "log.json") as file:
            return [(entry["stream"], entry["log"]) for entry in map(json.loads, file)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("s"))
    yield bench
    for bundle in (bench.root / "bundles").iterdir():
        environment = {**os.environ, "BOXSHIP_EXEC_ROOT": bench.launcher.exec_root}
        subprocess.run(
            [*COLD, "-namespace", "test", "-id", bundle.name, "-bundle", str(bundle), "delete"],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    while zygote := bench.zygote():  # one whose socket was taken away may still be about to leave
        os.kill(zygote, signal.SIGKILL)
        wait_until("the zygote ends", lambda: not alive(zygote))


@pytest.fixture
def id(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).removeprefix("test_").replace("_", "-")[:40]


def logging(bundle: Path, **fields: Anything) -> Any:
    options = ShimOptions(log_driver="json-file", log_path=str(bundle / "log.json"), **fields)
    return Any.pack(options)


def test_a_log_is_written_without_any_reader(bench: Bench, id: str) -> None:
    bundle = bench.bundle(id, "sh", "-c", "echo out; echo err >&2; printf end; exit 3")
    shim = bench.shim(id, bundle)
    shim.create(options=logging(bundle))
    shim.start()
    assert shim.wait() == 3
    assert sorted(shim.logged()) == [("stderr", "err\n"), ("stdout", "end"), ("stdout", "out\n")]
    shim.end()


def test_a_log_is_whole_when_the_exit_is_known(bench: Bench, id: str) -> None:
    bundle = bench.bundle(id, "seq", "1", "20000")
    shim = bench.shim(id, bundle)
    shim.create(options=logging(bundle, log_max_size=50_000, log_max_files=200))
    shim.start()
    assert shim.wait() == 0
    numbers = []
    for number in range(199, -1, -1):
        path = bundle / ("log.json" + (f".{number}" if number else ""))
        if path.exists():
            assert path.stat().st_size <= 50_000
            numbers += [int(json.loads(line)["log"]) for line in path.read_text().splitlines()]
    assert numbers == list(range(1, 20001))
    shim.end()


def test_both_versions_of_the_service_and_asyncio(bench: Bench, id: str) -> None:
    bundle = bench.bundle(id, "sleep", "100")
    shim = bench.shim(id, bundle)

    async def drive() -> int:
        client = await aio.Client.connect(shim.address)
        task = TaskV3(client)
        await task.Create(CreateTaskRequest(id=id, bundle=str(bundle)))
        waiting = asyncio.ensure_future(task.Wait(WaitRequest(id=id)))
        await task.Start(StartRequest(id=id))
        assert (await task.State(StateRequest(id=id))).status == Status.RUNNING
        await task.Kill(KillRequest(id=id, signal=9))
        status = (await waiting).exit_status
        client.close()
        return status

    assert asyncio.run(drive()) == 137
    shim.end()


def test_root_file_systems_are_mounted_inside_only(bench: Bench, id: str) -> None:
    bundle = bench.bundle(id, "cat", "/marker")
    for name in ("upper", "work"):
        (bundle / name).mkdir()
    (bundle / "upper/marker").write_text("from the overlay\n")
    spec = json.loads((bundle / "config.json").read_text())
    spec["root"] = {"path": "rootfs"}
    (bundle / "config.json").write_text(json.dumps(spec))
    options = [f"lowerdir={bench.rootfs}", f"upperdir={bundle}/upper", f"workdir={bundle}/work"]
    shim = bench.shim(id, bundle)
    shim.create(options=logging(bundle), rootfs=[Mount(type="overlay", source="overlay", options=options)])
    assert str(bundle) not in Path("/proc/self/mountinfo").read_text()
    shim.start()
    assert shim.wait() == 0
    assert shim.logged() == [("stdout", "from the overlay\n")]
    shim.end()


def test_a_terminal_has_the_size_that_it_is_given(bench: Bench, id: str) -> None:
    bundle = bench.bundle(id, "sh", "-c", "read x; stty size; echo got $x", terminal=True)
    for name in ("in", "out"):
        os.mkfifo(bundle / name)
    reader = os.open(bundle / "out", os.O_RDONLY | os.O_NONBLOCK)
    shim = bench.shim(id, bundle)
    shim.create(terminal=True, stdin=str(bundle / "in"), stdout=str(bundle / "out"))
    shim.start()
    shim.call(TaskV2.ResizePty, ResizePtyRequest(id=id, width=100, height=40))
    writer = os.open(bundle / "in", os.O_WRONLY)
    os.write(writer, b"typed\n")
    assert shim.wait() == 0
    seen = b""
    while part := os.read(reader, 65536):
        seen += part
    assert seen == b"typed\r\n40 100\r\ngot typed\r\n"
    shim.end()


def test_input_ends_by_closeio_and_not_by_its_writer(bench: Bench, id: str) -> None:
    bundle = bench.bundle(id, "cat")
    os.mkfifo(bundle / "in")
    shim = bench.shim(id, bundle)
    shim.create(options=logging(bundle), stdin=str(bundle / "in"))
    shim.start()
    for word in (b"one\n", b"two\n"):
        writer = os.open(bundle / "in", os.O_WRONLY)
        os.write(writer, word)
        os.close(writer)
    time.sleep(0.1)
    assert shim.call(TaskV2.State, StateRequest(id=id)).status == Status.RUNNING
    shim.call(TaskV2.CloseIO, CloseIORequest(id=id, stdin=True))
    assert shim.wait() == 0
    assert shim.logged() == [("stdout", "one\n"), ("stdout", "two\n")]
    shim.end()


def test_an_exec_and_its_exit(bench: Bench, id: str) -> None:
    bundle = bench.bundle(id, "sleep", "100")
    os.mkfifo(bundle / "out")
    reader = os.open(bundle / "out", os.O_RDONLY | os.O_NONBLOCK)
    shim = bench.shim(id, bundle)
    shim.create()
    shim.start()
    process = {"args": ["sh", "-c", "echo in; exit 6"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0}}
    packed = Any(type_url="types.containerd.io/x", value=json.dumps(process).encode())
    shim.call(TaskV2.Exec, ExecProcessRequest(id=id, exec_id="e", spec=packed, stdout=str(bundle / "out")))
    shim.start("e")
    assert shim.wait("e") == 6
    assert os.read(reader, 100) == b"in\n"
    shim.call(TaskV2.Delete, DeleteRequest(id=id, exec_id="e"))
    bad = Any(type_url="types.containerd.io/x", value=json.dumps({**process, "args": ["nosuch"]}).encode())
    shim.call(TaskV2.Exec, ExecProcessRequest(id=id, exec_id="bad", spec=bad))
    with pytest.raises(BoxshipError, match="nosuch"):
        shim.start("bad")
    shim.call(TaskV2.Delete, DeleteRequest(id=id, exec_id="bad"))
    stats = shim.call(TaskV2.Stats, StatsRequest(id=id)).stats.unpack_known()
    assert stats.pids.current == 1
    shim.kill()
    assert shim.wait() == 137
    shim.end()


def test_an_exec_on_a_terminal_of_its_own(bench: Bench, id: str) -> None:
    bundle = bench.bundle(id, "sleep", "100")
    for name in ("in", "out"):
        os.mkfifo(bundle / name)
    reader = os.open(bundle / "out", os.O_RDONLY | os.O_NONBLOCK)
    shim = bench.shim(id, bundle)
    shim.create()
    shim.start()
    process = {"args": ["sh", "-c", "read x; tty; exit 4"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0}}
    packed = Any(type_url="types.containerd.io/x", value=json.dumps(process).encode())
    shim.call(
        TaskV2.Exec,
        ExecProcessRequest(
            id=id, exec_id="e", spec=packed, terminal=True, stdin=str(bundle / "in"), stdout=str(bundle / "out")
        ),
    )
    shim.start("e")
    writer = os.open(bundle / "in", os.O_WRONLY)
    os.write(writer, b"go\n")
    assert shim.wait("e") == 4
    seen = b""
    while part := os.read(reader, 65536):
        seen += part
    assert seen == b"go\r\n/dev/pts/0\r\n"
    shim.call(TaskV2.Delete, DeleteRequest(id=id, exec_id="e"))
    shim.kill()
    shim.wait()
    shim.end()


def test_a_logger_program_gets_the_streams(bench: Bench, id: str) -> None:
    bundle = bench.bundle(id, "sh", "-c", "echo out; echo err >&2")
    logger = bundle / "logger"
    logger.write_text(
        f"#!/bin/sh\nexec 5>&-\ncat <&3 >{bundle}/o\ncat <&4 >{bundle}/e\n"
        f'echo "$CONTAINER_ID $CONTAINER_NAMESPACE $*" >{bundle}/who\n'
    )
    logger.chmod(0o755)
    shim = bench.shim(id, bundle)
    uri = f"binary://{logger}?key=value&flag"
    shim.create(stdout=uri, stderr=uri)
    shim.start()
    assert shim.wait() == 0
    wait_until("the logger ends", lambda: (bundle / "who").exists() and (bundle / "who").read_text())
    assert (bundle / "o").read_text() == "out\n"
    assert (bundle / "e").read_text() == "err\n"
    assert (bundle / "who").read_text() == f"{id} test key value flag\n"
    shim.end()


def test_a_killed_shim_hands_its_container_to_init_and_delete_ends_it(bench: Bench, id: str) -> None:
    bundle = bench.bundle(id, "sleep", "100")
    shim = bench.shim(id, bundle)
    pid = shim.create()
    shim.start()
    os.kill(shim.pid(), signal.SIGKILL)
    wait_until("init is adopted", lambda: _parent(pid) == 1)
    environment = {**os.environ, "BOXSHIP_EXEC_ROOT": bench.launcher.exec_root}
    done = subprocess.run(
        [*COLD, "-namespace", "test", "-id", id, "-bundle", str(bundle), "delete"], env=environment,
        stdin=subprocess.DEVNULL, capture_output=True, check=True,
    )  # fmt: skip
    response = DeleteResponse.decode(done.stdout)
    assert (response.pid, response.exit_status) == (pid, 137)
    assert not alive(pid)
    assert not list(Path("/sys/fs/cgroup").glob(f"*/boxship-test/{id}"))
    assert not os.path.exists(shim.address.removeprefix("unix://"))


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_an_exit_that_the_shim_wrote_survives_the_shim(bench: Bench, id: str) -> None:
    bundle = bench.bundle(id, "sh", "-c", "exit 42")
    shim = bench.shim(id, bundle)
    shim.create()
    shim.start()
    assert shim.wait() == 42
    os.kill(shim.pid(), signal.SIGKILL)
    environment = {**os.environ, "BOXSHIP_EXEC_ROOT": bench.launcher.exec_root}
    done = subprocess.run(
        [*COLD, "-namespace", "test", "-id", id, "-bundle", str(bundle), "delete"], env=environment,
        stdin=subprocess.DEVNULL, capture_output=True, check=True,
    )  # fmt: skip
    assert DeleteResponse.decode(done.stdout).exit_status == 42


def test_many_starters_make_one_zygote(bench: Bench, id: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    if bench.zygote():
        os.kill(bench.zygote(), signal.SIGKILL)
        wait_until("the zygote is gone", lambda: not bench.zygote())
    bundles = [bench.bundle(f"{id}{n}", "true") for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        shims = list(pool.map(lambda n: bench.shim(f"{id}{n}", bundles[n]), range(8)))
    assert len({_parent(shim.pid()) for shim in shims}) == 1
    for shim in shims:
        shim.call(TaskV2.Shutdown, ShutdownRequest(id=shim.id))


def test_a_killed_template_takes_its_zygote_along_and_both_are_replaced(bench: Bench, id: str) -> None:
    bench.launcher.ensure_zygote()
    zygote, template = bench.zygote(), bench.zygote("template")
    os.kill(template, signal.SIGKILL)
    wait_until("the zygote ends", lambda: not alive(zygote))
    shim = bench.shim(id, bench.bundle(id, "true"))
    assert bench.zygote() not in (0, zygote)
    shim.call(TaskV2.Shutdown, ShutdownRequest(id=id))


def test_a_killed_zygote_takes_its_template_along(bench: Bench, id: str) -> None:
    bench.launcher.ensure_zygote()
    zygote, template = bench.zygote(), bench.zygote("template")
    os.kill(zygote, signal.SIGKILL)
    wait_until("the template ends", lambda: not alive(template))


def test_a_caller_in_another_mount_namespace_gets_a_shim_there(bench: Bench, id: str) -> None:
    bundle = bench.bundle(id, "true")
    environment = {**os.environ, "BOXSHIP_EXEC_ROOT": bench.launcher.exec_root}
    bench.launcher.ensure_zygote()
    done = subprocess.run(
        ["unshare", "-m", *COLD, "-namespace", "test", "-id", id, "-address", "/none", "start"],
        cwd=bundle, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shim = Shim(id, bundle, done.stdout)
    assert os.readlink(f"/proc/{shim.pid()}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    shim.call(TaskV2.Shutdown, ShutdownRequest(id=id))
    assert not list(Path(bench.launcher.exec_root).glob("zygote-*.sock"))


def test_newer_containerds_bootstrap(bench: Bench, id: str) -> None:
    bundle = bench.bundle(id, "true")
    environment = {
        **os.environ, "BOXSHIP_EXEC_ROOT": bench.launcher.exec_root, "MAX_SHIM_VERSION": "3",
    }  # fmt: skip
    sockets = bench.root / "sockets"
    params = BootstrapParams(instance_id=id, namespace="test", socket_dir=str(sockets)).encode()
    done = subprocess.run(
        [*COLD, "-namespace", "test", "-id", id, "start"],
        cwd=bundle, env=environment, input=params, capture_output=True, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert (answer["version"], answer["protocol"]) == (3, "ttrpc")
    assert answer["address"].startswith(f"unix://{sockets}/")
    assert (bundle / "address").read_text() == answer["address"]
    client = BlockingClient.connect(answer["address"])
    with pytest.raises(NotFound):
        client.call(TaskV3.State, StateRequest(id=id))
    client.call(TaskV3.Shutdown, ShutdownRequest(id=id))


def test_errors_of_the_binary_are_one_line(bench: Bench, tmp_path: Path) -> None:
    done = subprocess.run([*COLD, "-id", "x", "start"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "containerd-shim-boxship-v2: -namespace is missing\n"


def test_two_containers_of_a_pod_share_a_shim(bench: Bench, id: str) -> None:
    addresses = []
    for name in ("pod", "side"):
        bundle = bench.bundle(id + name, "true")
        spec = json.loads((bundle / "config.json").read_text())
        spec["annotations"] = {"io.kubernetes.cri.sandbox-id": id + "pod"}
        (bundle / "config.json").write_text(json.dumps(spec))
        addresses.append(bench.launcher.start("test", id + name, str(bundle), "/none", ""))
    assert addresses[0] == addresses[1]
    client = BlockingClient.connect(addresses[0])
    client.call(TaskV2.Shutdown, ShutdownRequest(id=id))


def test_a_zygote_whose_socket_was_taken_away_is_replaced(bench: Bench, id: str) -> None:
    bench.launcher.ensure_zygote()
    os.unlink(bench.launcher.socket)
    shim = bench.shim(id, bench.bundle(id, "true"))
    shim.call(TaskV2.Shutdown, ShutdownRequest(id=id))
    wait_until("the shim ends", lambda: not os.path.exists(shim.address.removeprefix("unix://")))
    with pytest.raises(Unavailable):
        BlockingClient.connect(shim.address)
