"""The plan server and the launcher: the same results through either door; a server is not trusted blindly."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .bundle_fixture import PATIENCE, Bundle, needs_root, new_bundle
from .doors import RUNTIME, VARIABLE, Served, plan_server

LIMIT = 30 * PATIENCE  # seconds for one command

pytestmark = [
    pytest.mark.root,
    needs_root,
    pytest.mark.skipif(not RUNTIME.exists(), reason="needs boxship installed beside this Python"),
]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with plan_server() as found:
        yield found


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as found:
        yield found


class Commands:
    """Commands on one bundle that ask the server at ``path``."""

    def __init__(self, bundle: Bundle, path: str) -> None:
        self.bundle = bundle
        self.environment = {**os.environ, VARIABLE: path}
        os.makedirs(bundle.root, mode=0o711, exist_ok=True)  # list refuses a root that is not there

    def configure(self, *args: str, **process: Any) -> None:
        self.bundle.spec["process"].update(args=list(args), **process)
        (self.bundle.path / "config.json").write_text(json.dumps(self.bundle.spec))

    def words(self, *words: str) -> "list[str]":
        return [str(RUNTIME), "--root", self.bundle.root, *words]

    def __call__(self, *words: str, ok: bool = True, **options: Any) -> "subprocess.CompletedProcess[str]":
        options = {"stdin": subprocess.DEVNULL, **options}
        done = subprocess.run(
            self.words(*words), capture_output=True, text=True, cwd=self.bundle.path, timeout=LIMIT,
            env=self.environment, check=False, **options,
        )  # fmt: skip
        assert not ok or done.returncode == 0, done.stderr
        return done

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """A command that stays."""
        return subprocess.Popen(
            self.words(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=self.bundle.path, env=self.environment,
        )  # fmt: skip

    def ids(self) -> "list[str]":
        return self("list", "-q").stdout.split()


@pytest.fixture
def commands(bundle: Bundle, served: Served) -> Iterator[Commands]:
    found = Commands(bundle, served.path)
    yield found
    found.environment[VARIABLE] = "none"
    for id in found.ids():
        found("delete", "--force", id)


def python_runs(commands: Commands, *words: str) -> bool:
    """Whether a command became a Python interpreter: what strace sees it execute."""
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=execve", "-e", "signal=none", *commands.words(*words)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=commands.bundle.path,
        env=commands.environment, timeout=LIMIT, check=False,
    )  # fmt: skip
    return '"-I", "-S"' in done.stderr


@pytest.mark.peer("strace")
def test_the_warm_door_starts_no_interpreter(commands: Commands) -> None:
    commands.configure("true")
    assert not python_runs(commands, "run", "warm")
    assert not python_runs(commands, "list")
    commands.environment[VARIABLE] = "none"
    assert python_runs(commands, "run", "warm")


def test_what_a_container_inherits_is_the_callers(commands: Commands) -> None:
    """The server has another session, limits, umask, directory and environment; none of them shows."""
    commands.configure("sh", "-c", "ulimit -n; cat /proc/self/oom_score_adj; umask")
    del commands.bundle.spec["process"]["rlimits"]
    commands.configure(*commands.bundle.spec["process"]["args"])

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (77, 77))
        Path("/proc/self/oom_score_adj").write_text("33")
        os.umask(0o027)
        os.setsid()

    told = {}
    for path in (commands.environment[VARIABLE], "none"):
        commands.environment[VARIABLE] = path
        told[path] = commands("run", "inherits", preexec_fn=prepare).stdout.split()
    assert len({tuple(words) for words in told.values()}) == 1, told
    assert next(iter(told.values()))[:2] == ["77", "33"]


def test_relative_paths_are_the_callers(commands: Commands) -> None:
    commands.configure("sleep", "100")
    null = subprocess.DEVNULL
    subprocess.run(
        commands.words("create", "--bundle", ".", "--pid-file", "the.pid", "relative"),
        stdin=null, stdout=null, stderr=null, cwd=commands.bundle.path, env=commands.environment, timeout=LIMIT,
        check=True,
    )  # fmt: skip
    pid = int((commands.bundle.path / "the.pid").read_text())
    state = json.loads(commands("state", "relative").stdout)
    assert (state["pid"], state["bundle"]) == (pid, str(commands.bundle.path))


def test_a_container_is_nobodys_of_the_server(commands: Commands, served: Served) -> None:
    """It is a child of the command while that runs, and of the next subreaper afterwards."""
    commands.configure("sleep", "100")
    process = commands.start("run", "parent")
    try:
        deadline = time.monotonic() + 5
        found: list[dict[str, Any]] = []
        while not found or found[0]["status"] != "running":
            assert time.monotonic() < deadline
            found = json.loads(commands("list", "-f", "json").stdout) or []
        status = Path(f"/proc/{found[0]['pid']}/status").read_text()
        assert f"PPid:\t{process.pid}\n" in status
        process.send_signal(signal.SIGTERM)  # busybox's sleep as pid 1 ignores it
        commands("kill", "parent", "KILL")
        assert process.wait(10) == 137
        assert commands.ids() == []
    finally:
        process.kill()
        process.communicate()


def test_many_at_once(commands: Commands, served: Served) -> None:
    """More commands stay in the foreground than there are workers; each gets its own output and exit code."""
    commands.configure("sh", "-c", "sleep 0.5; echo done; exit 7")
    running = [commands.start("run", f"many-{n}") for n in range(12)]
    for process in running:
        out, err = process.communicate(timeout=LIMIT)
        assert (out, err, process.returncode) == ("done\n", "", 7)
    assert commands.ids() == []
    deadline = time.monotonic() + 10
    while len(served.workers()) > 8:  # those that were made for the rush go again
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_errors_are_word_for_word_the_same(commands: Commands) -> None:
    commands.configure("no-such-program")
    cases = [
        ("run", "x"), ("state", "missing"), ("kill", "missing"), ("delete", "missing"), ("start", "missing"),
        ("run",), ("run", "a/b"), ("run", "--nonsense", "x"), ("create", "--bundle", "/nowhere", "x"),
        ("--log-format", "xml", "list"), ("exec", "missing", "true"), ("run", "x", "y"), ("kill", "missing", "SIGX"),
    ]  # fmt: skip
    warm = [commands(*words, ok=False) for words in cases]
    commands.environment[VARIABLE] = "none"
    for words, was in zip(cases, warm, strict=True):
        now = commands(*words, ok=False)
        assert (was.returncode, was.stdout, was.stderr) == (now.returncode, now.stdout, now.stderr), words
        assert now.returncode != 0


# ── Servers that are not to be trusted, or do not work ──


def test_a_server_that_is_stopped_is_not_waited_for(commands: Commands) -> None:
    commands.configure("echo", "here")
    with plan_server() as own:
        commands.environment[VARIABLE] = own.path
        assert commands("run", "first").stdout == "here\n"
        stopped = [own.process.pid, *own.workers()]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            begin = time.monotonic()
            assert commands("run", "second").stdout == "here\n"
            assert time.monotonic() - begin < 2
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        time.sleep(0.2)  # awake again, it finds the old question, and must not act on it
        assert commands.ids() == []


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator["Callable[[Callable[[socket.socket], None], int], str]"]:
    """Start a process that listens where a plan server would, as another user if asked, and plays a part."""
    children = []

    def start(play: "Callable[[socket.socket], None]", user: int = 0) -> str:
        path = str(tmp_path / f"impostor-{len(children)}")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(path)
        os.chmod(tmp_path, 0o755)
        os.chmod(path, 0o666)
        pid = os.fork()
        if pid == 0:
            try:
                if user:
                    os.setresuid(user, user, user)
                listener.listen(8)
                while True:
                    play(listener.accept()[0])
            finally:
                os._exit(0)
        listener.close()
        children.append(pid)
        time.sleep(0.1)
        return path

    yield start
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


HELLO = b"\x01\0\0\0\x01\0\0\0" + (1).to_bytes(8, "little") + b"1:1"


def _says_exit(connection: socket.socket) -> None:
    """A server that answers at once that all is well."""
    connection.sendall(HELLO)
    connection.recv(100_000)
    connection.sendall(b"\x05\0\0\0\0\0\0\0" + (0).to_bytes(8, "little"))
    time.sleep(1)


def _says_nothing(connection: socket.socket) -> None:
    time.sleep(5)


def _greets_and_ends(connection: socket.socket) -> None:
    connection.sendall(HELLO)
    connection.close()


def _speaks_nonsense(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.close()


def test_a_server_of_another_user_is_not_believed(commands: Commands, impostor: Any) -> None:
    commands.configure("echo", "real")
    commands.environment[VARIABLE] = impostor(_says_exit)
    assert commands("run", "fooled").stdout == ""  # of our own user it is: whoever is us may answer for us
    commands.environment[VARIABLE] = impostor(_says_exit, user=12345)
    assert commands("run", "genuine").stdout == "real\n"


@pytest.mark.parametrize("play", [_says_nothing, _greets_and_ends, _speaks_nonsense])
def test_a_server_that_does_not_answer_well_is_left(commands: Commands, impostor: Any, play: Any) -> None:
    commands.configure("echo", "real")
    commands.environment[VARIABLE] = impostor(play)
    begin = time.monotonic()
    assert commands("run", "left").stdout == "real\n"
    assert time.monotonic() - begin < 3


def test_a_client_with_fewer_privileges_is_refused(commands: Commands) -> None:
    """Root without CAP_SYS_ADMIN must not get from the server what it could not do itself."""
    commands.configure("true")
    command = ["setpriv", "--bounding-set", "-sys_admin", "--", *commands.words("run", "weaker")]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=commands.bundle.path, env=commands.environment, timeout=LIMIT,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "EPERM" in done.stderr or "not permitted" in done.stderr.lower()


def test_a_client_in_other_namespaces_is_not_served(commands: Commands) -> None:
    """Its mounts and network are not the server's: it starts cold, and sees its own."""
    commands.configure("readlink", "/proc/self/ns/net")
    commands.bundle.spec["linux"]["namespaces"] = [
        one for one in commands.bundle.spec["linux"]["namespaces"] if one["type"] != "network"
    ]
    commands.configure("ls", "-l", "/proc/self/ns/net")
    done = subprocess.run(
        ["unshare", "--net", *commands.words("run", "elsewhere")],
        capture_output=True, text=True, cwd=commands.bundle.path, env=commands.environment, timeout=LIMIT, check=True,
    )  # fmt: skip
    assert os.readlink("/proc/self/ns/net") not in done.stdout
    assert os.readlink("/proc/self/ns/net") in commands("run", "here").stdout


# ── Ends in the middle ──


def _hook(bundle: Bundle, script: str) -> None:
    """A hook in the middle of create, in the runtime's namespace: the moment at which a test acts."""
    path = bundle.path / "hook.sh"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    bundle.spec["hooks"] = {"createRuntime": [{"path": str(path)}]}


def test_a_worker_killed_in_the_middle_leaves_the_command_to_the_cold_start(commands: Commands) -> None:
    """The hook kills the worker that runs it, the first time; the command succeeds, once, with nothing left over."""
    directory = commands.bundle.path
    _hook(commands.bundle, f"echo x >> {directory}/times\n[ -e {directory}/killed ] && exit 0\n"
                           f"touch {directory}/killed\nkill -9 $PPID\nsleep 0.2\n")  # fmt: skip
    commands.configure("echo", "ran")
    with plan_server() as own:
        commands.environment[VARIABLE] = own.path
        done = commands("run", "middle")
        assert (done.stdout, done.stderr) == ("ran\n", "")
        assert (directory / "times").read_text() == "x\nx\n"
        assert commands.ids() == []
        assert commands("run", "after").stdout == "ran\n"  # by a worker that took the dead one's place


def test_a_worker_stopped_in_the_middle_is_not_waited_for(commands: Commands) -> None:
    directory = commands.bundle.path
    _hook(commands.bundle, f"[ -e {directory}/stopped ] && exit 0\ntouch {directory}/stopped\nkill -STOP $PPID\n")
    commands.configure("echo", "ran")
    with plan_server() as own:
        commands.environment[VARIABLE] = own.path
        begin = time.monotonic()
        assert commands("run", "middle").stdout == "ran\n"
        assert time.monotonic() - begin < 5 * PATIENCE
        assert commands.ids() == []


def test_a_server_killed_under_a_running_container(commands: Commands) -> None:
    """The command goes on waiting, gives the exit code, and the container is removed."""
    commands.configure("sh", "-c", "sleep 0.6; exit 5")
    with plan_server() as own:
        commands.environment[VARIABLE] = own.path
        process = commands.start("run", "orphaned")
        time.sleep(0.3)
        for pid in [own.process.pid, *own.workers()]:
            os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=20)
        assert (out, err, process.returncode) == ("", "", 5)
        commands.environment[VARIABLE] = "none"
        assert commands.ids() == []


def test_a_command_killed_in_the_middle_leaves_nothing(commands: Commands) -> None:
    """The launcher is killed while the worker makes the container: the worker undoes what it has begun."""
    _hook(commands.bundle, "kill -9 $(cat launcher.pid)\nsleep 0.1\n")
    commands.configure("true")
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'echo $$ > launcher.pid; exec "$@"', "sh", *commands.words("run", "cut")],
        stdin=subprocess.DEVNULL, cwd=commands.bundle.path, env=commands.environment,
    )  # fmt: skip
    assert process.wait(10) == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while commands.ids():
        assert time.monotonic() < deadline, commands("list").stdout
        time.sleep(0.02)


# ── The server's own life ──


def test_a_second_server_at_the_same_place_is_refused(served: Served) -> None:
    command = [str(RUNTIME), "serve", "--socket", served.path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "a plan server is there already" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_server_leaves_nothing_behind(bundle: Bundle) -> None:
    with plan_server() as own:
        workers = own.workers()
        assert len(workers) >= 2
        own.process.terminate()
        assert own.process.wait(10) == 0
        assert not os.path.exists(own.path)
        deadline = time.monotonic() + 5
        while any(os.path.exists(f"/proc/{pid}") for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_server_whose_socket_was_taken_away_ends(bundle: Bundle) -> None:
    with plan_server() as own:
        os.unlink(own.path)
        assert own.process.wait(15) == 0
        Path(own.path).touch()  # for the fixture's clean-up


def descriptors(server: Served) -> "dict[int, int]":
    """How many each worker has, once its last command is put away: the same for half a second."""
    found: list[dict[int, int]] = []
    while len(found) < 5 or found[-5:] != [found[-1]] * 5:
        found.append({pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in server.workers()})
        time.sleep(0.1)
    return found[-1]


def test_many_commands_leave_no_descriptor_in_a_worker(commands: Commands) -> None:
    commands.configure("true")
    with plan_server() as own:
        commands.environment[VARIABLE] = own.path
        for n in range(6):
            commands("run", f"first-{n}")
        before = descriptors(own)
        for n in range(30):
            commands("run", f"then-{n}")
            commands("state", "missing", ok=False)
        # On a busy machine a worker may have been replaced; each has as many as the next.
        assert len({*before.values(), *descriptors(own).values()}) == 1


def test_detached_it_returns_when_it_can_be_asked(tmp_path: Path) -> None:
    path = str(tmp_path / "d.sock")
    subprocess.run([str(RUNTIME), "serve", "--detach", "--socket", path], check=True, timeout=20)
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    probe.connect(path)
    size = 12
    pid = int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)[:4], sys.byteorder)
    probe.close()
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 5
    while os.path.exists(path):
        assert time.monotonic() < deadline
        time.sleep(0.02)
