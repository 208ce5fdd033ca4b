"""Debian's ctr against our containerd socket, with our shim and with the real one started by us."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from boxship.image.content import ContentStore
from boxship.image.rootfs import import_rootfs
from boxship.image.save import save

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not (shutil.which("ctr") and shutil.which("busybox")), reason="needs ctr and busybox"),
]

IMAGE = "docker.io/library/tiny:latest"
OURS, THEIRS = "io.containerd.boxship.v2", "io.containerd.runc.v2"
RUNTIMES = [
    OURS,
    pytest.param(
        THEIRS, marks=pytest.mark.skipif(not shutil.which("containerd-shim-runc-v2"), reason="needs runc's shim")
    ),
]


class Daemon:
    """boxship-containerd on directories of its own; can be killed and started again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.socket = str(home / "c.sock")
        self.process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        with open(self.home / "log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "boxship.containerd.main", "--root", str(self.home / "r"),
                 "--state", str(self.home / "s"), "--address", self.socket],
                stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 15
        while self.ctr("version", check=False).returncode:
            assert time.monotonic() < deadline, (self.home / "log").read_text()
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def ctr(self, *arguments: str, check: bool = True, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            ["ctr", "-a", self.socket, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{arguments}: {done.stderr}\n{(self.home / 'log').read_text()[-3000:]}"
        return done

    def run(
        self, runtime: str, name: str, *command: str, flags: "tuple[str, ...]" = ("--rm",), check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        return self.ctr("run", *flags, "--runtime", runtime, IMAGE, name, *command, check=check)

    def status(self, name: str) -> str:
        for line in self.ctr("tasks", "ls").stdout.splitlines():
            if line.split()[0] == name:
                return line.split()[2]
        return "absent"

    def wait_for(self, name: str, status: str) -> None:
        deadline = time.monotonic() + 15
        while self.status(name) != status:
            assert time.monotonic() < deadline, f"{name} is {self.status(name)}, not {status}"
            time.sleep(0.05)

    def remove(self, name: str) -> None:
        self.ctr("tasks", "rm", "-f", name, check=False)
        self.ctr("containers", "rm", name)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scratch = tmp_path_factory.mktemp("image")
    with tarfile.open(scratch / "rootfs.tar", "w") as tar:
        tar.add(shutil.which("busybox") or "", "bin/busybox")
        for applet in ("sh", "echo", "cat", "sleep", "true", "stty"):
            info = tarfile.TarInfo(f"bin/{applet}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
    store = ContentStore(str(scratch / "content"))
    with open(scratch / "rootfs.tar", "rb") as file:
        image = import_rootfs(file, store, config={"Env": ["PATH=/bin"], "Cmd": ["sh"]})
    image.names.append(IMAGE)
    with open(scratch / "image.tar", "wb") as out:
        save(store, [image], out)
    return scratch / "image.tar"


@pytest.fixture(scope="module")
def daemon(archive: Path) -> Iterator[Daemon]:
    home = Path("/tmp") / f"bxctr{os.getpid()}"  # short: the path of a socket has 107 bytes
    home.mkdir()
    daemon = Daemon(home)
    daemon.start()
    try:
        daemon.ctr("images", "import", str(archive))
        yield daemon
    finally:
        for name in daemon.ctr("tasks", "ls", "-q", check=False).stdout.split():
            daemon.ctr("tasks", "rm", "-f", name, check=False)
        daemon.stop()
        for found in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = found.read_bytes()
            except OSError:
                continue  # it ended meanwhile
            if f"boxship-zygote {home}/".encode() in command:
                os.kill(int(found.parent.name), signal.SIGTERM)
        shutil.rmtree(home)


def mounts_below(path: Path) -> "list[str]":
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(path) in line]


def test_images_are_imported_listed_tagged_and_removed_with_their_content(daemon: Daemon, archive: Path) -> None:
    assert "boxship" in daemon.ctr("version").stdout
    space = ("-n", "images")
    daemon.ctr(*space, "images", "import", str(archive))
    assert IMAGE in daemon.ctr(*space, "images", "ls", "-q").stdout
    assert "linux/" in daemon.ctr(*space, "images", "ls").stdout
    daemon.ctr(*space, "images", "tag", IMAGE, "docker.io/library/tiny:other")
    assert len(daemon.ctr(*space, "images", "ls", "-q").stdout.split()) == 2
    digests = daemon.ctr(*space, "content", "ls", "-q").stdout.split()
    documents = [daemon.ctr(*space, "content", "get", digest, check=True) for digest in digests[:1]]
    assert documents[0].stdout
    assert "Committed" in daemon.ctr(*space, "snapshots", "ls").stdout
    assert daemon.ctr(*space, "images", "check").stdout.count("complete") == 2
    daemon.ctr(*space, "images", "rm", "--sync", IMAGE, "docker.io/library/tiny:other")
    assert daemon.ctr(*space, "content", "ls", "-q").stdout == ""
    assert "Committed" not in daemon.ctr(*space, "snapshots", "ls").stdout


def test_an_image_that_is_exported_by_ctr_is_imported_again(daemon: Daemon, tmp_path: Path) -> None:
    daemon.ctr("images", "export", str(tmp_path / "out.tar"), IMAGE)
    daemon.ctr("-n", "again", "images", "import", str(tmp_path / "out.tar"))
    assert daemon.ctr("-n", "again", "images", "ls", "-q").stdout.split() == [IMAGE]


def test_namespaces_are_created_labelled_and_removed(daemon: Daemon) -> None:
    daemon.ctr("namespaces", "create", "team", "a=b")
    assert "a=b" in daemon.ctr("namespaces", "ls").stdout
    daemon.ctr("namespaces", "label", "team", "a=c")
    assert "a=c" in daemon.ctr("namespaces", "ls").stdout
    daemon.ctr("namespaces", "rm", "team")
    assert "team" not in daemon.ctr("namespaces", "ls", "-q").stdout


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_container_runs_and_its_output_and_exit_code_come_back(daemon: Daemon, runtime: str) -> None:
    assert daemon.run(runtime, "hello", "/bin/echo", "hello").stdout == "hello\n"
    failed = daemon.run(runtime, "fails", "/bin/sh", "-c", "echo oops >&2; exit 3", check=False)
    assert (failed.returncode, failed.stderr) == (3, "oops\n")
    missing = daemon.run(runtime, "missing", "/bin/nosuch", check=False)
    assert missing.returncode == 1
    assert "nosuch" in missing.stderr
    assert daemon.ctr("containers", "ls", "-q").stdout == ""
    assert daemon.ctr("tasks", "ls", "-q").stdout == ""
    assert os.listdir(daemon.home / "s" / "io.containerd.runtime.v2.task" / "default") == []
    assert mounts_below(daemon.home) == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_detached_container_is_execed_into_paused_killed_and_deleted(daemon: Daemon, runtime: str) -> None:
    daemon.run(runtime, "web", "/bin/sleep", "1000", flags=("-d",))
    try:
        daemon.wait_for("web", "RUNNING")
        execed = daemon.ctr("tasks", "exec", "--exec-id", "e1", "web", "/bin/echo", "inside")
        assert execed.stdout == "inside\n"
        status = daemon.ctr("tasks", "exec", "--exec-id", "e2", "web", "/bin/sh", "-c", "exit 5", check=False)
        assert status.returncode == 5
        daemon.ctr("tasks", "pause", "web")
        daemon.wait_for("web", "PAUSED")
        daemon.ctr("tasks", "resume", "web")
        daemon.wait_for("web", "RUNNING")
        assert len(daemon.ctr("tasks", "ps", "web").stdout.splitlines()) == 2
        daemon.ctr("tasks", "metrics", "web")
        again = daemon.run(runtime, "web", "/bin/true", flags=("-d",), check=False)
        assert again.returncode == 1
        assert "already exists" in again.stderr
        daemon.ctr("tasks", "kill", "-s", "KILL", "web")
        daemon.wait_for("web", "STOPPED")
        assert "exit code 137" in daemon.ctr("tasks", "rm", "web", check=False).stderr
    finally:
        daemon.remove("web")
    assert mounts_below(daemon.home) == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_terminal_is_given_its_size(daemon: Daemon, runtime: str) -> None:
    # ctr resizes after the start, so the program waits a moment before it looks.
    inside = "'sleep 0.4; stty size'"
    run = f"ctr -a {daemon.socket} run --rm -t --runtime {runtime} {IMAGE} tty /bin/sh -c {inside}"
    done = subprocess.run(
        ["script", "-qec", f"stty cols 91 rows 17; {run}", "/dev/null"],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "17 91" in done.stdout


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_events_tell_the_life_of_a_task(daemon: Daemon, runtime: str, tmp_path: Path) -> None:
    with open(tmp_path / "events", "wb") as out:
        watch = subprocess.Popen(["ctr", "-a", daemon.socket, "events"], stdout=out)
        try:
            time.sleep(0.5)
            daemon.run(runtime, "told", "/bin/true")
            time.sleep(0.5)
        finally:
            watch.terminate()
            watch.wait()
    topics = [line.split()[5] for line in (tmp_path / "events").read_text().splitlines() if "/" in line]
    order = ["/snapshot/prepare", "/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit",
             "/tasks/delete", "/containers/delete"]  # fmt: skip
    assert [topic for topic in topics if topic in order] == order


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_killed_shim_is_noticed_cleaned_up_and_reported_as_137(
    daemon: Daemon, runtime: str, tmp_path: Path
) -> None:
    daemon.run(runtime, "doomed", "/bin/sleep", "1000", flags=("-d",))
    try:
        daemon.wait_for("doomed", "RUNNING")
        (line,) = [one for one in daemon.ctr("tasks", "ls").stdout.splitlines() if one.startswith("doomed")]
        init = int(line.split()[1])
        shim = int(Path(f"/proc/{init}/stat").read_text().rpartition(")")[2].split()[1])
        with open(tmp_path / "events", "wb") as out:
            watch = subprocess.Popen(["ctr", "-a", daemon.socket, "events"], stdout=out)
            deadline = time.monotonic() + 15
            while not (tmp_path / "events").read_bytes():  # until it listens
                assert time.monotonic() < deadline
                daemon.ctr("namespaces", "label", "default", f"at={time.monotonic_ns()}")
                time.sleep(0.05)
            os.kill(shim, signal.SIGKILL)
            daemon.wait_for("doomed", "absent")
            deadline = time.monotonic() + 10
            while b"/tasks/delete" not in (tmp_path / "events").read_bytes() and time.monotonic() < deadline:
                time.sleep(0.05)
            watch.terminate()
            watch.wait()
        said = (tmp_path / "events").read_text()
        assert "/tasks/exit" in said
        assert '"exit_status":137' in said
        deadline = time.monotonic() + 5
        while Path(f"/proc/{init}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{init}").exists()
    finally:
        daemon.remove("doomed")
    assert not (daemon.home / "s" / "io.containerd.runtime.v2.task" / "default" / "doomed").exists()
    assert mounts_below(daemon.home) == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_killed_daemon_finds_its_tasks_again_also_those_that_ended(
    daemon: Daemon, runtime: str, tmp_path: Path
) -> None:
    names = ["lives", "ends"]
    daemon.run(runtime, "lives", "/bin/sleep", "1000", flags=("-d",))
    daemon.run(runtime, "ends", "/bin/sh", "-c", "/bin/sleep 0.7; exit 4", flags=("-d",))
    try:
        for name in names:
            daemon.wait_for(name, "RUNNING")
        daemon.stop(signal.SIGKILL)
        time.sleep(0.8)
        daemon.start()
        assert daemon.status("lives") == "RUNNING"
        assert daemon.status("ends") == "STOPPED"
        assert daemon.ctr("tasks", "exec", "--exec-id", "e", "lives", "/bin/echo", "still").stdout == "still\n"
        assert "exit code 4" in daemon.ctr("tasks", "rm", "ends", check=False).stderr
        with open(tmp_path / "events", "wb") as out:
            watch = subprocess.Popen(["ctr", "-a", daemon.socket, "events"], stdout=out)
            time.sleep(0.3)
            daemon.ctr("tasks", "kill", "-s", "KILL", "lives")
            daemon.wait_for("lives", "STOPPED")
            time.sleep(0.5)
            watch.terminate()
            watch.wait()
        assert "/tasks/exit" in (tmp_path / "events").read_text(), "the shim reports to the new daemon"
    finally:
        for name in names:
            daemon.remove(name)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_shim_that_died_while_nobody_watched_is_cleaned_up_at_the_next_start(daemon: Daemon, runtime: str) -> None:
    daemon.run(runtime, "orphan", "/bin/sleep", "1000", flags=("-d",))
    try:
        daemon.wait_for("orphan", "RUNNING")
        (line,) = [one for one in daemon.ctr("tasks", "ls").stdout.splitlines() if one.startswith("orphan")]
        init = int(line.split()[1])
        shim = int(Path(f"/proc/{init}/stat").read_text().rpartition(")")[2].split()[1])
        daemon.stop(signal.SIGKILL)
        os.kill(shim, signal.SIGKILL)
        daemon.start()
        assert daemon.status("orphan") == "absent"
        deadline = time.monotonic() + 5
        while Path(f"/proc/{init}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{init}").exists()
        assert daemon.ctr("tasks", "start", "-d", "orphan").returncode == 0, "its container can run again"
        daemon.wait_for("orphan", "RUNNING")
    finally:
        daemon.remove("orphan")
    assert mounts_below(daemon.home) == []


def test_what_is_not_served_is_unimplemented_in_grpcs_words(daemon: Daemon) -> None:
    with grpc.insecure_channel(f"unix:{daemon.socket}") as channel:
        call = channel.unary_unary("/containerd.services.sandbox.v1.Store/List")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
