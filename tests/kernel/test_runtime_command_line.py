"""`boxship-runc` as its callers use it: processes that end between create and start, logs, pid files, consoles."""

import array
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .bundle_fixture import Bundle, needs_root, new_bundle, read_all

RUNTIME = Path(sys.executable).parent / "boxship-runc"
pytestmark = [
    pytest.mark.root,
    needs_root,
    pytest.mark.skipif(not RUNTIME.exists(), reason="needs boxship installed beside this Python"),
]


class Runtime:
    """The command line with its own state, for one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.ids: list[str] = []

    def configure(self, *args: str, **process: Any) -> None:
        self.bundle.spec["process"].update(args=list(args), **process)
        (self.bundle.path / "config.json").write_text(json.dumps(self.bundle.spec))

    def __call__(self, *words: str, ok: bool = True, **options: Any) -> "subprocess.CompletedProcess[str]":
        command = [str(RUNTIME), "--root", self.bundle.root, *words]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.bundle.path, timeout=30, check=False, **options
        )
        assert not ok or done.returncode == 0, done.stderr
        return done

    def create(self, id: str, *flags: str) -> None:
        """Create, with /dev/null for all streams: the container holds on to them after the program has ended."""
        command = [str(RUNTIME), "--root", self.bundle.root, "create", *flags, id]
        null = subprocess.DEVNULL
        subprocess.run(command, stdin=null, stdout=null, stderr=null, cwd=self.bundle.path, timeout=30, check=True)

    def id(self, name: str) -> str:
        self.ids.append(f"cli-{os.getpid()}-{name}")
        return self.ids[-1]


@pytest.fixture
def runtime(door: str) -> Iterator[Runtime]:
    with new_bundle() as bundle:
        runtime = Runtime(bundle)
        try:
            yield runtime
        finally:
            for id in runtime.ids:
                runtime("delete", "--force", id)


def state(runtime: Runtime, id: str) -> "dict[str, Any]":
    found: dict[str, Any] = json.loads(runtime("state", id).stdout)
    return found


def wait_for(runtime: Runtime, id: str, status: str) -> None:
    deadline = time.monotonic() + 5
    while state(runtime, id)["status"] != status:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_run_passes_output_and_exit_code_through(runtime: Runtime) -> None:
    runtime.configure("sh", "-c", "cat; echo err >&2; exit 5")
    done = runtime("run", runtime.id("run"), ok=False, input="in")
    assert (done.returncode, done.stdout, done.stderr) == (5, "in", "err\n")
    assert json.loads(runtime("list", "--format", "json").stdout) == []


def test_create_start_kill_delete_are_separate_programs(runtime: Runtime) -> None:
    id = runtime.id("steps")
    runtime.configure("sleep", "100")
    runtime.create(id, "--pid-file", "pid")
    pid = int((runtime.bundle.path / "pid").read_text())
    created = state(runtime, id)
    assert (created["status"], created["pid"], created["id"]) == ("created", pid, id)
    assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:boxship")  # no interpreter is left, and no host file
    runtime("start", id)
    assert state(runtime, id)["status"] == "running"
    assert "cannot start" in runtime("start", id, ok=False).stderr
    assert json.loads(runtime("ps", "--format", "json", id).stdout) == [pid]
    assert "cannot delete" in runtime("delete", id, ok=False).stderr
    runtime("kill", id, "KILL")
    wait_for(runtime, id, "stopped")
    assert "not running" in runtime("kill", id, "TERM", ok=False).stderr
    runtime("delete", id)
    assert "does not exist" in runtime("state", id, ok=False).stderr
    runtime("delete", "--force", id)


def test_exec_has_flags_for_what_the_process_is(runtime: Runtime) -> None:
    id = runtime.id("exec")
    runtime.configure("sleep", "100")
    runtime.create(id)
    runtime("start", id)
    script = "echo $A; id -u; id -G; pwd; grep CapEff /proc/self/status"
    done = runtime(
        "exec", "-e", "A=b", "--user", "7:8", "--cwd", "/proc", "--cap", "CAP_SYS_TIME", id, "sh", "-c", script
    )
    assert done.stdout.splitlines()[:4] == ["b", "7", "8", "/proc"]
    assert runtime("exec", id, "sh", "-c", "exit 9", ok=False).returncode == 9
    (runtime.bundle.path / "process.json").write_text(
        json.dumps({"args": ["sh", "-c", "echo from-file"], "cwd": "/", "env": ["PATH=/bin"]})
    )
    assert runtime("exec", "--process", "process.json", id).stdout == "from-file\n"
    missing = runtime("exec", id, "nosuch", ok=False)
    assert (missing.returncode, "executable file not found in $PATH" in missing.stderr) == (255, True)


def test_the_log_has_the_error_as_callers_read_it(runtime: Runtime) -> None:
    runtime.configure("nosuch")
    done = runtime("--log", "log.json", "--log-format", "json", "create", runtime.id("log"), ok=False)
    assert done.returncode == 1
    last = json.loads((runtime.bundle.path / "log.json").read_text().splitlines()[-1])
    assert last["level"] == "error"
    cause = 'unable to start container process: exec: "nosuch": executable file not found in $PATH'
    assert last["msg"].endswith(cause)
    assert set(last) == {"level", "msg", "time"}


def test_a_terminal_goes_over_the_console_socket(runtime: Runtime) -> None:
    id = runtime.id("console")
    runtime.configure("sh", "-c", "tty; stty size", terminal=True, consoleSize={"width": 90, "height": 30})
    refused = runtime("create", id, ok=False)
    assert "console socket" in refused.stderr
    path = str(runtime.bundle.path / "console.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        runtime("create", "--console-socket", path, id)
        connection, _ = listener.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(4096, 64)
    master = array.array("i", ancillary[0][2][:4])[0]
    runtime("start", id)
    assert read_all(master).splitlines() == ["/dev/pts/0", "30 90"]
    os.close(master)


def test_a_terminal_that_is_relayed_adds_no_carriage_returns(runtime: Runtime) -> None:
    runtime.configure("sh", "-c", "tty; echo there", terminal=True)
    done = runtime("run", runtime.id("relayed"), stdin=subprocess.DEVNULL)
    assert done.stdout == "/dev/pts/0\nthere\n"


def test_signals_in_the_foreground_are_passed_on(runtime: Runtime) -> None:
    runtime.configure("sh", "-c", "trap 'echo got; exit 3' USR1; echo up; while :; do sleep 0.05; done")
    id = runtime.id("signal")
    command = [str(RUNTIME), "--root", runtime.bundle.root, "run", "-b", str(runtime.bundle.path), id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.read() == "got\n"
    assert process.returncode == 3


def test_descriptors_are_preserved_when_asked(runtime: Runtime) -> None:
    runtime.configure("sh", "-c", "echo three >&3")
    read, write = os.pipe()
    command = [str(RUNTIME), "--root", runtime.bundle.root, "run", "-b", str(runtime.bundle.path)]
    command += ["--preserve-fds", "1", runtime.id("fds")]
    pid = os.posix_spawn(command[0], command, dict(os.environ), file_actions=[(os.POSIX_SPAWN_DUP2, write, 3)])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(write)
    assert read_all(read) == "three\n"
    os.close(read)
    refused = runtime("run", "--preserve-fds", "9", runtime.id("none"), ok=False)
    assert "descriptor 3 is not open" in refused.stderr


def test_limits_can_be_updated_and_counters_read(runtime: Runtime) -> None:
    id = runtime.id("update")
    runtime.configure("sleep", "100")
    runtime.create(id)
    runtime("start", id)
    runtime("update", "--memory", "64m", "--pids-limit", "33", id)
    data = json.loads(runtime("events", "--stats", id).stdout)["data"]
    assert (data["memory"]["usage"]["limit"], data["pids"]["limit"], data["pids"]["current"]) == (64 << 20, 33, 1)
    runtime("pause", id)
    assert state(runtime, id)["status"] == "paused"
    assert "paused" in runtime("exec", id, "true", ok=False).stderr
    runtime("resume", id)
    assert state(runtime, id)["status"] == "running"


def test_spec_features_explain_and_version_need_no_root(runtime: Runtime, tmp_path: Path) -> None:
    nobody: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
    runtime("spec", "-b", str(tmp_path))
    assert "exists" in runtime("spec", "-b", str(tmp_path), ok=False).stderr
    assert json.loads(runtime("features").stdout)["linux"]["seccomp"]["enabled"] is True
    runtime.configure("true")
    os.chmod(runtime.bundle.path, 0o755)
    readable = subprocess.run([str(RUNTIME), "--version"], capture_output=True, text=True, check=False, **nobody)
    if readable.returncode:
        pytest.skip("another user may not read this installation")
    text = runtime("explain", str(runtime.bundle.path), **nobody).stdout
    assert "clone3(CLONE_PARENT | CLONE_NEWNS" in text
    assert text.rstrip().splitlines()[-1].split("  ")[1].startswith("execve(it")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--nosuch", "x"], "flag provided but not defined: --nosuch"),
        (["kill", "x", "NOSIGNAL"], "unknown signal"),
        (["create"], '"create" requires exactly 1 argument(s), not 0'),
        (["list", "x"], '"list" requires exactly 0 argument(s), not 1'),
        (["list", "--quiet=maybe"], "must be true or false"),
        (["--log-format", "xml", "list"], "must be text or json"),
        (["state", "nosuch"], "does not exist"),
        (["update", "--pids-limit", "many", "x"], "not a number"),
    ],
)
def test_wrong_calls_get_one_clear_line(runtime: Runtime, words: "list[str]", message: str) -> None:
    runtime.configure("true")
    done = runtime(*words, ok=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unknown_command_ends_as_with_runc(runtime: Runtime) -> None:
    done = runtime("nosuchverb", "-h", ok=False)
    assert (done.returncode, "No help topic for 'nosuchverb'" in done.stderr) == (3, True)
    assert runtime("help", "exec").stdout == runtime("exec", "--help").stdout


def test_flags_may_follow_the_id(runtime: Runtime) -> None:
    runtime.configure("true")
    id = runtime.id("after")
    runtime.create(id)
    assert runtime("delete", id, "--force").stderr == ""
    assert runtime("state", id, ok=False).returncode == 1


def test_the_environment_has_each_name_once_and_a_home(runtime: Runtime) -> None:
    runtime.configure("env", env=["A=1", "PATH=/bin", "HOME=", "A=2"])
    assert runtime("run", runtime.id("env")).stdout.splitlines() == ["PATH=/bin", "A=2", "HOME=/"]
    runtime.configure("true", env=["NOVALUE"])
    assert "process.env[0]: 'NOVALUE' has no '='" in runtime("run", runtime.id("bad"), ok=False).stderr


def test_debug_says_what_was_done_step_by_step(runtime: Runtime) -> None:
    runtime.configure("true")
    assert 'level=debug msg="step 1 of ' in runtime("--debug", "run", runtime.id("debug")).stderr
    done = runtime("--debug", "--log", "log", "--log-format", "json", "run", runtime.id("file"))
    assert done.stderr == ""
    lines = [json.loads(line) for line in (runtime.bundle.path / "log").read_text().splitlines()]
    assert {line["level"] for line in lines} == {"debug"}
    assert any(line["msg"].endswith("pivot into the root file system") for line in lines)
    assert "child process in init()" in [line["msg"] for line in lines]


def test_debug_of_an_exec_tells_the_cpus_it_began_on(runtime: Runtime) -> None:
    runtime.configure("sleep", "100")
    id = runtime.id("cpus")
    runtime.create(id)
    runtime("start", id)
    (runtime.bundle.path / "process.json").write_text(
        json.dumps({"args": ["/bin/true"], "cwd": "/", "execCPUAffinity": {"initial": "0"}})
    )
    said = runtime("--debug", "exec", "--process", "process.json", id).stderr
    assert 'msg="nsexec: affinity: 0x1"' in said
    assert said.rstrip().endswith('msg="setns_init: about to exec"')


def test_a_created_container_holds_no_descriptor_of_its_creator(runtime: Runtime) -> None:
    runtime.configure("sleep", "100")
    id = runtime.id("leak")
    leaked = os.open("/etc", os.O_RDONLY)
    command = [str(RUNTIME), "--root", runtime.bundle.root, "create", "-b", str(runtime.bundle.path), id]
    actions = [(os.POSIX_SPAWN_DUP2, leaked, 7)]
    actions += [(os.POSIX_SPAWN_OPEN, n, "/dev/null", os.O_RDWR, 0) for n in range(3)]
    pid = os.posix_spawn(command[0], command, dict(os.environ), file_actions=actions)
    os.close(leaked)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    held = f"/proc/{state(runtime, id)['pid']}/fd"
    targets = {os.readlink(f"{held}/{fd}") for fd in os.listdir(held) if int(fd) > 2}
    assert all(target.startswith("socket:") for target in targets), targets


def test_exec_runs_in_a_cgroup_below_the_containers(runtime: Runtime) -> None:
    id = runtime.id("sub")
    runtime.configure("sleep", "100")
    runtime.create(id)
    runtime("start", id)
    own = runtime("exec", id, "cat", "/proc/self/cgroup").stdout
    cases = {"..": "bad sub cgroup path", "nosuch": "adding pid of", "what:/": "unknown controller"}
    for wrong, message in cases.items():
        refused = runtime("exec", "--cgroup", wrong, id, "true", ok=False)
        assert (refused.returncode, message in refused.stderr) == (255, True), refused.stderr
    assert runtime("exec", "--cgroup", "/", id, "cat", "/proc/self/cgroup").stdout == own


def test_an_interpreter_that_is_missing_is_said(runtime: Runtime) -> None:
    script = runtime.bundle.path / "rootfs" / "script"
    script.write_text("#!/nosuch\n")
    script.chmod(0o755)
    runtime.configure("/script")
    done = runtime("run", runtime.id("interpreter"), ok=False)
    assert "exec /script: no such file or directory (the interpreter that it names is missing)" in done.stderr


def test_the_containers_readiness_reaches_the_host(runtime: Runtime) -> None:
    """sd_notify(3): READY, then the pid to watch, then a barrier that the host answers by closing its pipe."""
    path = str(runtime.bundle.path / "host.sock")
    script = "test -S $NOTIFY_SOCKET && sleep 100"
    runtime.configure("sh", "-c", script)
    environment = {**os.environ, "NOTIFY_SOCKET": path}
    id = runtime.id("notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as host:
        host.bind(path)
        host.settimeout(10)
        null = subprocess.DEVNULL
        options: dict[str, Any] = {"stdin": null, "stdout": null, "stderr": null, "cwd": runtime.bundle.path}
        command = [str(RUNTIME), "--root", runtime.bundle.root]
        subprocess.run([*command, "create", id], env=environment, timeout=30, check=True, **options)
        with subprocess.Popen([*command, "start", id], env=environment, **options) as started:
            wait_for(runtime, id, "running")
            inside = f"{runtime.bundle.root}/{id}/notify/notify.sock"
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program:
                program.sendto(b"STATUS=loading", inside)
                program.sendto(b"STATUS=up\nREADY=1", inside)
            assert host.recv(100) == b"READY=1\n"
            assert host.recv(100) == f"MAINPID={state(runtime, id)['pid']}\n".encode()
            text, handles, _, _ = socket.recv_fds(host, 100, 1)
            assert (text, started.poll()) == (b"BARRIER=1", None)
            os.close(handles[0])
            assert started.wait(10) == 0
    runtime("delete", "--force", id)
    assert not os.path.exists(f"{runtime.bundle.root}/{id}")


def test_without_a_log_the_format_is_that_of_standard_error(runtime: Runtime) -> None:
    done = runtime("--log-format", "json", "state", "nosuch", ok=False)
    assert json.loads(done.stderr)["msg"] == "container 'nosuch' does not exist"


def test_invalid_json_is_said_with_its_place(runtime: Runtime) -> None:
    (runtime.bundle.path / "config.json").write_text('{"a": \n nope}')
    assert "config.json: invalid JSON" in runtime("run", runtime.id("json"), ok=False).stderr


def test_explain_marks_the_step_that_failed(runtime: Runtime) -> None:
    runtime.configure("true")
    runtime.bundle.spec["mounts"].append({"destination": "/data", "type": "nosuchfs", "source": "none"})
    runtime.configure("true")
    failed = runtime("run", runtime.id("failed"), ok=False)
    assert "ENODEV" in failed.stderr
    lines = runtime("explain", str(runtime.bundle.path)).stdout.splitlines()
    assert failed.stderr.strip().rpartition("step ")[2].partition(" ")[0] in lines[0]
    at = next(n for n, line in enumerate(lines) if line.startswith(" >>>"))
    assert "nosuchfs" in lines[at + 1]
    assert "ENODEV: no such device" in lines[at + 2]
    assert "this kernel has no such file system" in lines[at + 3]
    # Once config.json was changed it is a new plan.
    os.utime(runtime.bundle.path / "config.json", ns=(time.time_ns() + 10**9,) * 2)
    assert ">>>" not in runtime("explain", str(runtime.bundle.path)).stdout


def test_explain_marks_a_step_behind_the_start(runtime: Runtime) -> None:
    garbage = runtime.bundle.path / "rootfs" / "bin" / "garbage"
    garbage.write_bytes(b"\x7fELF and nothing more")
    garbage.chmod(0o755)
    runtime.configure("garbage")
    id = runtime.id("late")
    runtime.create(id)
    assert runtime("start", id, ok=False).returncode
    first = runtime("explain", str(runtime.bundle.path)).stdout.splitlines()[0]
    assert "exec format error" in first


def test_every_id_is_mapped_onto_itself_on_cruns_command_line_only(runtime: Runtime) -> None:
    runtime.bundle.spec["linux"]["namespaces"].append({"type": "user"})
    runtime.configure("cat", "/proc/self/uid_map", "/proc/self/gid_map")
    plain = runtime("run", runtime.id("runc"), ok=False)
    assert plain.returncode == 1
    assert "linux.uidMappings is empty" in plain.stderr
    ours = [Path(f"/proc/self/{file}").read_text() for file in ("uid_map", "gid_map")]
    done = runtime("--cgroup-manager", "cgroupfs", "run", runtime.id("crun"))
    assert done.stdout.split() == "".join(ours).split()


def test_an_id_mapped_mount_of_an_earlier_mount_in_a_user_namespace(runtime: Runtime) -> None:
    bundle = runtime.bundle
    (bundle.path / "source").mkdir()
    (bundle.path / "source/file").touch()
    bundle.path.chmod(0o755)
    os.chown(bundle.path / "rootfs", 100000, 100000)
    linux = bundle.spec["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.spec["mounts"] += [
        {"destination": "/made", "source": "source", "options": ["bind"]},
        {"destination": "/mapped", "source": str(bundle.path / "rootfs/made"), "options": ["bind", "idmap"]},
    ]
    runtime.configure("ls", "-n", "/made/file", "/mapped/file")
    owners = [line.split()[2] for line in runtime("run", runtime.id("mapped")).stdout.splitlines()]
    assert owners == ["65534", "0"]
