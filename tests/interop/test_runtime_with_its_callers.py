"""`boxship-runc` in place of runc, under programs that are not ours: containerd's shim (by ctr), dockerd, podman."""

import difflib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

RUNTIME = Path(sys.executable).parent / "boxship-runc"
BUSYBOX = shutil.which("busybox") or ""
APPLETS = "sh true echo sleep cat id tty ls env sort tr cut grep pwd".split()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not BUSYBOX, reason="needs root and a static busybox"),
    pytest.mark.skipif(not RUNTIME.exists(), reason="needs boxship installed beside this Python"),
]


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="boxship-"))
    bin = directory / "rootfs" / "bin"
    bin.mkdir(parents=True)
    shutil.copy2(BUSYBOX, bin / "busybox")
    for applet in APPLETS:
        (bin / applet).symlink_to("busybox")
    for name in ("proc", "dev", "sys", "etc", "run", "tmp"):
        (directory / "rootfs" / name).mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)


# ── containerd-shim-runc-v2, asked by the real containerd ──


class Ctr:
    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.socket = str(scratch / "containerd.sock")

    def __call__(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return run("ctr", "-a", self.socket, *words)

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        ours = ["--runc-binary", str(RUNTIME), "--runc-root", str(self.scratch / "runc"), "--env", "PATH=/bin"]
        return self("run", *ours, "--rootfs", *words)


@pytest.fixture(scope="module")
def ctr(scratch: Path) -> Iterator[Ctr]:
    if not shutil.which("containerd") or not shutil.which("ctr"):
        pytest.skip("needs containerd and ctr")
    config = scratch / "containerd.toml"
    config.write_text(
        f'version = 2\nroot = "{scratch}/root"\nstate = "{scratch}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{scratch}/containerd.sock"\n'
    )
    with open(scratch / "containerd.log", "wb") as log:
        process = subprocess.Popen(["containerd", "-c", str(config)], stdout=log, stderr=log)
    ctr = Ctr(scratch)
    try:
        deadline = time.monotonic() + 15
        while ctr("version").returncode:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield ctr
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.mark.peer("containerd")
def test_ctr_runs_with_output_and_exit_code(ctr: Ctr, scratch: Path) -> None:
    rootfs = str(scratch / "rootfs")
    done = ctr.run("--rm", rootfs, "out", "sh", "-c", "echo hi; exit 7")
    assert (done.returncode, done.stdout) == (7, "hi\n")
    missing = ctr.run("--rm", rootfs, "missing", "nosuch")
    assert "OCI runtime create failed" in missing.stderr
    assert 'exec: "nosuch": executable file not found in $PATH' in missing.stderr
    ctr("container", "rm", "missing")


@pytest.mark.peer("containerd")
def test_ctr_execs_pauses_lists_and_kills(ctr: Ctr, scratch: Path) -> None:
    assert ctr.run("-d", str(scratch / "rootfs"), "long", "sleep", "100").returncode == 0
    try:
        done = ctr("task", "exec", "--exec-id", "e1", "long", "sh", "-c", "echo inside; exit 3")
        assert (done.returncode, done.stdout) == (3, "inside\n")
        assert ctr("task", "pause", "long").returncode == 0
        assert "PAUSED" in ctr("task", "ls").stdout
        assert ctr("task", "resume", "long").returncode == 0
        pid = ctr("task", "ls").stdout.splitlines()[1].split()[1]
        assert pid in ctr("task", "ps", "long").stdout
        assert "memory.usage_in_bytes" in ctr("task", "metrics", "long").stdout
    finally:
        ctr("task", "kill", "-s", "KILL", "long")
        deadline = time.monotonic() + 5
        while "STOPPED" not in ctr("task", "ls").stdout and time.monotonic() < deadline:
            time.sleep(0.05)
        ctr("task", "rm", "long")
        ctr("container", "rm", "long")
    assert not any((scratch / "runc" / "default").glob("[!.]*"))


# ── a real dockerd with --add-runtime and as its default ──


@pytest.fixture(scope="module")
def docker(scratch: Path) -> "Iterator[list[str]]":
    if not shutil.which("dockerd") or not shutil.which("docker"):
        pytest.skip("needs dockerd and docker")
    command = ["dockerd", "--bridge=none", "--iptables=false", "--storage-driver=vfs"]
    command += [f"--add-runtime=boxship={RUNTIME}", "--default-runtime=boxship"]
    command += ["--data-root", str(scratch / "docker"), "--exec-root", str(scratch / "dockerexec")]
    command += ["-H", f"unix://{scratch}/docker.sock", "--pidfile", str(scratch / "docker.pid")]
    with open(scratch / "docker.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    client = ["docker", "-H", f"unix://{scratch}/docker.sock"]
    try:
        deadline = time.monotonic() + 20
        while run(*client, "version").returncode:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        archive = ["tar", "-C", str(scratch / "rootfs"), "-c", "."]
        tar = subprocess.run(archive, capture_output=True, check=True).stdout
        subprocess.run([*client, "import", "-", "bb"], input=tar, capture_output=True, check=True)
        yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.peer("dockerd")
@pytest.mark.parametrize(
    ("flags", "command", "code", "output"),
    [
        ([], ["/bin/sh", "-c", "echo hi; exit 3"], 3, "hi\n"),
        (["-u", "7:8", "-w", "/srv"], ["/bin/sh", "-c", "/bin/id -u; pwd"], 0, "7\n/srv\n"),
        (["--ulimit", "nofile=5:9"], ["/bin/sh", "-c", "ulimit -n"], 0, "5\n"),
        (["--privileged"], ["/bin/true"], 0, ""),
        (["--init", "--read-only", "--tmpfs", "/t"], ["/bin/sh", "-c", "echo x > /t/x && echo ok"], 0, "ok\n"),
        ([], ["nosuch"], 127, ""),
        ([], ["/bin"], 126, ""),
    ],
)
def test_docker_runs(
    docker: "list[str]", flags: "list[str]", command: "list[str]", code: int, output: str
) -> None:
    done = run(*docker, "run", "--rm", "--network", "none", *flags, "bb", *command)
    assert (done.returncode, done.stdout) == (code, output), done.stderr


LOOK = (
    "id; pwd; umask; env | sort; cat /proc/self/oom_score_adj; ulimit -a;"
    "ls -l /dev | tr -s ' ' | cut -d' ' -f1,3,4,9-;"
    "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|CoreDumping)' /proc/self/status;"
    "cut -d' ' -f5,6 /proc/self/mountinfo | sort;"
    "ls /proc/self/fd; cat /proc/self/cgroup; echo wrong >&2; ls -ld / /proc /tmp | cut -d' ' -f1; exit 9"
)


@pytest.mark.peer("dockerd", "runc")
@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--user", "1000:1000", "--group-add", "50"],
        ["--cap-drop", "ALL", "--cap-add", "NET_RAW", "--security-opt", "no-new-privileges"],
        ["--security-opt", "seccomp=unconfined", "--read-only", "--tmpfs", "/tmp:size=1m,noexec"],
        ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "50", "--oom-score-adj", "400"],
        ["--ulimit", "nofile=99:100", "--ulimit", "core=0", "--shm-size", "3m", "--hostname", "named"],
        ["--ipc", "host", "--uts", "host"],
        ["--pid", "host"],
        ["--cgroupns", "private"],
        ["--device", "/dev/full:/dev/mine:r", "--sysctl", "kernel.msgmax=12345"],
        ["--init", "--workdir", "/made/here", "--env", "A=b c", "--stop-signal", "USR1"],
    ],
    ids=" ".join,
)
def test_docker_sees_no_difference_to_runc(docker: "list[str]", flags: "list[str]") -> None:
    seen = []
    for runtime in ("runc", "boxship"):
        words = ["run", "--rm", "--name", "same", "--runtime", runtime, "--network", "none", *flags]
        words += [] if "--hostname" in flags or "host" in flags else ["--hostname", "h"]
        done = run(*docker, *words, "bb", "/bin/sh", "-c", LOOK)
        # Ids are the container's own.
        # Not the container's own ids, the minute, nor a hybrid host's unified hierarchy (we do not join it there).
        said = re.sub(r" \d\d:\d\d ", " ", done.stdout)
        lines = [line for line in said.splitlines() if not re.match(r"\d+:.*docker|0::|HOSTNAME=\w{12}$", line)]
        seen.append((done.returncode, lines, done.stderr))
    assert [code for code, _, _ in seen] == [9, 9], seen
    assert "\n".join(difflib.unified_diff(seen[0][1], seen[1][1], "runc", "ours", n=0, lineterm="")) == ""
    assert seen[1] == seen[0]


# ── podman with conmon ──


@pytest.fixture(scope="module")
def podman(scratch: Path) -> "list[str]":
    if not shutil.which("podman"):
        pytest.skip("needs podman")
    store = ["--root", str(scratch / "pod"), "--runroot", str(scratch / "podrun")]
    return ["podman", *store, "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", str(RUNTIME)]


@pytest.mark.peer("podman")
@pytest.mark.parametrize(
    ("flags", "command", "code", "output"),
    [
        ([], ["true"], 0, ""),
        ([], ["sh", "-c", "echo hi; exit 4"], 4, "hi\n"),
        (["-t"], ["tty"], 0, "/dev/pts/0\n"),
        (["--user", "7:8"], ["sh", "-c", "id -u; id -g"], 0, "7\n8\n"),
        (["--read-only"], ["sh", "-c", "echo x > /x || echo no"], 0, "no\n"),
        ([], ["nosuch"], 127, ""),
        ([], ["/bin"], 126, ""),
    ],
)
def test_podman_runs(
    podman: "list[str]", scratch: Path, flags: "list[str]", command: "list[str]", code: int, output: str
) -> None:
    done = run(*podman, "run", "--rm", "--network", "none", *flags, "--rootfs", str(scratch / "rootfs"), *command)
    assert (done.returncode, done.stdout) == (code, output), done.stderr


@pytest.mark.peer("podman")
def test_podman_execs_pauses_and_removes(podman: "list[str]", scratch: Path) -> None:
    flags = ["--name", "long", "--network", "none", "--memory", "64m", "--rootfs", str(scratch / "rootfs")]
    assert run(*podman, "run", "-d", *flags, "sleep", "100").returncode == 0
    try:
        assert run(*podman, "exec", "long", "sh", "-c", "echo inside").stdout == "inside\n"
        assert run(*podman, "exec", "long", "nosuch").returncode == 127
        assert run(*podman, "pause", "long").returncode == 0
        assert run(*podman, "unpause", "long").returncode == 0
        assert run(*podman, "kill", "long").returncode == 0
        assert run(*podman, "wait", "long").stdout == "137\n"
    finally:
        assert run(*podman, "rm", "-f", "long").returncode == 0
