"""Our shim driven by the real containerd through ctr: runs, streams, exec, signals, restarts and sudden deaths."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import boxship

BUSYBOX = "/bin/busybox"
IMAGE = "docker.io/library/shimtest:latest"
RUNTIME = "io.containerd.boxship.v2"
APPLETS = ("sh", "echo", "cat", "sleep", "true", "ps", "tty", "yes", "head")
SOURCE = Path(boxship.__file__).parent

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer("containerd"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not shutil.which("containerd") or not shutil.which("ctr"), reason="no containerd"),
    pytest.mark.skipif(not os.path.exists(BUSYBOX), reason="no static busybox"),
    pytest.mark.skipif(not (SOURCE / "_native" / "executor").exists(), reason="the native executor is not built"),
]


def wait_until(what: str, check: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.02)


def image_archive(path: Path, command: tuple[str, ...] = ("/bin/sh",)) -> None:
    """A docker-archive with one layer: busybox, running ``command``."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("bin", "tmp", "proc", "dev", "sys", "etc"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        data = Path(BUSYBOX).read_bytes()
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(data), 0o755
        tar.addfile(entry, io.BytesIO(data))
        for name in APPLETS:
            entry = tarfile.TarInfo("bin/" + name)
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    diff_id = "sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": [*command]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
    ).encode()  # fmt: skip
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as tar:
        for name, content in (
            ("config.json", config),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", manifest),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


class Containerd:
    """A real containerd with directories of its own, and ctr for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.exec_root = root / "x"
        self.address = str(root / "c.sock")
        binaries = root / "bin"
        binaries.mkdir()
        shim = binaries / "containerd-shim-boxship-v2"
        installed = Path(sys.executable).parent / shim.name
        if installed.exists():
            shim.symlink_to(installed)
        else:  # run from a checkout that was not installed: no native launcher
            shim.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {SOURCE}/shim/cold.py "$@"\n')
            shim.chmod(0o755)
        (root / "config.toml").write_text(
            f'version = 2\nroot = "{root}/root"\nstate = "{root}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\n  address = "{self.address}"\n[ttrpc]\n  address = "{self.address}.ttrpc"\n'
        )
        self.environment = {
            **os.environ,
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "BOXSHIP_EXEC_ROOT": str(self.exec_root),
            "CONTAINERD_ADDRESS": self.address,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with open(self.root / "containerd.log", "ab") as log:
            self.process = subprocess.Popen(
                ["containerd", "-c", str(self.root / "config.toml")],
                env=self.environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_until("containerd answers", lambda: self.try_ctr("version").returncode == 0)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def try_ctr(self, *words: str, input: bytes = b"", timeout: float = 20) -> subprocess.CompletedProcess[bytes]:
        process = subprocess.Popen(
            ["ctr", *words], env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = process.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"ctr {' '.join(words)} hangs: {out!r} {err!r}") from None
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def ctr(self, *words: str, input: bytes = b"") -> str:
        done = self.try_ctr(*words, input=input)
        assert done.returncode == 0, f"ctr {' '.join(words)}: {done.stderr.decode()}"
        return done.stdout.decode()

    def run(self, id: str, *command: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
        return self.try_ctr("run", "--runtime", RUNTIME, *flags, IMAGE, id, *command)

    def detached(self, id: str, *command: str) -> None:
        done = self.run(id, *command, flags=("-d",))
        assert done.returncode == 0, done.stderr.decode()

    def status(self, id: str) -> str:
        lines = [line.split() for line in self.ctr("task", "ls").splitlines()]
        return next((words[2] for words in lines if words[0] == id), "")

    def pid(self, id: str) -> int:
        lines = [line.split() for line in self.ctr("task", "ls").splitlines()]
        return next(int(words[1]) for words in lines if words[0] == id)

    def shim_pid(self, id: str) -> int:
        """The process that is the parent of the container's init."""
        return int(Path(f"/proc/{self.pid(id)}/stat").read_text().rpartition(")")[2].split()[1])

    def remove(self, id: str) -> None:
        self.try_ctr("task", "kill", "-s", "9", id)
        wait_until(f"{id} stops", lambda: self.status(id) in ("STOPPED", ""))
        self.try_ctr("task", "rm", id)
        self.ctr("container", "rm", id)

    def traces_of(self, id: str) -> list[str]:
        """What a container may have left: processes, mounts, cgroups, sockets, state.

        Not the FIFOs: ctr makes them, and forgets them when a task ends without it.
        """
        found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"/{id}/" in line]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/default/{id}")]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"default/{id}")]
        found += [str(path) for path in (self.exec_root / "s").glob("*")]
        found += [str(path) for path in (self.exec_root / "runtime/default").glob(id)]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"-id" in command and id.encode() in command and self.address.encode() in command:
                    found.append(f"process {entry.name}")
        return found

    def zygote(self) -> int:
        """The zygote's pid, 0 when there is none."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if command.startswith(f"boxship-zygote\0{self.exec_root}/zygote.sock\0".encode()):
                    return int(entry.name)
        return 0


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    root = tmp_path_factory.mktemp("c")
    image_archive(root / "image.tar")
    daemon = Containerd(root)
    try:
        daemon.ctr("image", "import", str(root / "image.tar"))
        yield daemon
    finally:
        for line in daemon.try_ctr("container", "ls", "-q").stdout.decode().split():
            daemon.remove(line)
        daemon.kill()
        zygote = daemon.zygote()
        if zygote:
            os.kill(zygote, signal.SIGKILL)
        subprocess.run(["umount", "-l", *map(str, (root / "state").rglob("rootfs"))], capture_output=True)


@pytest.fixture(autouse=True)
def nothing_left(containerd: Containerd, request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test the container that bears its name is gone without a trace."""
    yield
    id = container_id(request)
    if id in containerd.ctr("container", "ls", "-q").split():
        containerd.remove(id)
    for fifo in Path("/run/containerd/fifo").glob(f"*/{id}-std*"):
        fifo.unlink(missing_ok=True)
    deadline = time.monotonic() + 5
    while containerd.traces_of(id) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert containerd.traces_of(id) == []


def container_id(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).removeprefix("test_").replace("_", "-")[:60]


@pytest.fixture
def id(request: pytest.FixtureRequest) -> str:
    return container_id(request)


def test_run_passes_output_and_exit_code(containerd: Containerd, id: str) -> None:
    done = containerd.run(id, "sh", "-c", "echo out; echo err >&2; exit 7", flags=("--rm",))
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)


def test_a_terminal(containerd: Containerd, id: str) -> None:
    command = f"ctr run --runtime {RUNTIME} --rm -t {IMAGE} {id} sh -c 'tty; echo done'"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"], env=containerd.environment, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=20,
    )  # fmt: skip
    assert b"/dev/pts/0\ndone\n" in done.stdout.replace(b"\r", b"")
    assert done.returncode == 0


def test_much_output_arrives_whole(containerd: Containerd, id: str) -> None:
    done = containerd.run(id, "sh", "-c", "yes 0123456789012345678 | head -c 4000000", flags=("--rm",))
    assert done.stdout == b"0123456789012345678\n" * 200_000


def test_a_missing_command_is_one_clear_error(containerd: Containerd, id: str) -> None:
    done = containerd.run(id, "nosuch", flags=("--rm",))
    assert done.returncode != 0
    assert b"nosuch" in done.stderr


def test_detached_exec_kill_and_delete(containerd: Containerd, id: str) -> None:
    containerd.detached(id, "sleep", "1000")
    assert containerd.status(id) == "RUNNING"
    done = containerd.try_ctr("task", "exec", "--exec-id", "e1", id, "sh", "-c", "echo hi; exit 5")
    assert (done.stdout, done.returncode) == (b"hi\n", 5)
    assert containerd.ctr("task", "exec", "--exec-id", "e2", id, "cat", input=b"typed\n") == "typed\n"
    containerd.ctr("task", "pause", id)
    assert containerd.status(id) == "PAUSED"
    containerd.ctr("task", "resume", id)
    assert "memory.usage_in_bytes" in containerd.ctr("task", "metrics", id) or os.path.exists(
        "/sys/fs/cgroup/cgroup.controllers"
    )
    assert str(containerd.pid(id)) in containerd.ctr("task", "ps", id)
    containerd.ctr("task", "kill", "-s", "KILL", id)
    wait_until("it stops", lambda: containerd.status(id) == "STOPPED")
    assert b"exit code 137" in containerd.try_ctr("task", "rm", id).stderr


def test_ps_shows_one_shim_a_container(containerd: Containerd, id: str) -> None:
    containerd.detached(id, "sleep", "1000")
    shim = containerd.shim_pid(id)
    shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(shim)], capture_output=True, text=True).stdout
    assert shown.rstrip().endswith(
        f"containerd-shim-boxship-v2 -namespace default -id {id} -address {containerd.address}"
    )
    children = Path(f"/proc/{shim}/task/{shim}/children").read_text().split()
    assert children == [str(containerd.pid(id))]


def test_a_shim_survives_a_restart_of_containerd(containerd: Containerd, id: str) -> None:
    containerd.detached(id, "sleep", "1000")
    pid, shim = containerd.pid(id), containerd.shim_pid(id)
    containerd.kill()
    containerd.start()
    assert (containerd.pid(id), containerd.status(id), containerd.shim_pid(id)) == (pid, "RUNNING", shim)
    assert containerd.ctr("task", "exec", "--exec-id", "e", id, "echo", "still here") == "still here\n"


def test_an_exit_while_containerd_is_down_is_not_lost(containerd: Containerd, id: str) -> None:
    containerd.detached(id, "sh", "-c", "sleep 0.5; exit 9")
    containerd.kill()
    time.sleep(0.8)
    containerd.start()
    assert containerd.status(id) == "STOPPED"
    assert b"exit code 9" in containerd.try_ctr("task", "rm", id).stderr


def test_a_killed_shim_is_noticed_and_cleaned_up(containerd: Containerd, id: str) -> None:
    containerd.detached(id, "sleep", "1000")
    pid = containerd.pid(id)
    os.kill(containerd.shim_pid(id), signal.SIGKILL)
    wait_until("containerd forgets the task", lambda: containerd.status(id) in ("", "STOPPED"))
    wait_until("the container's process ends", lambda: not os.path.exists(f"/proc/{pid}"))


def test_a_killed_zygote_is_replaced_and_its_shims_go_on(containerd: Containerd, id: str) -> None:
    containerd.detached(id, "sleep", "1000")
    zygote = containerd.zygote()
    assert zygote
    os.kill(zygote, signal.SIGKILL)
    wait_until("the zygote is gone", lambda: containerd.zygote() == 0)
    assert containerd.ctr("task", "exec", "--exec-id", "e", id, "echo", "on") == "on\n"
    done = containerd.run(id + "2", "echo", "new", flags=("--rm",))
    assert done.stdout == b"new\n"
    assert containerd.zygote() not in (0, zygote)


def test_a_background_process_of_init_ends_with_it(containerd: Containerd, id: str) -> None:
    done = containerd.run(id, "sh", "-c", "sleep 1000 & echo started", flags=("--rm",))
    assert (done.stdout, done.returncode) == (b"started\n", 0)
