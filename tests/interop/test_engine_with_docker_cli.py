"""The real docker CLI, unchanged, against our engine."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from pathlib import Path
from typing import IO

import pytest

from .engine_fixture import EngineProcess, wait_until

pytestmark = [pytest.mark.root, pytest.mark.peer("docker", "busybox")]


def test_the_built_in_image_runs_without_any_registry(engine: EngineProcess) -> None:
    out = engine.docker("run", "--rm", "-m", "64m", "--pids-limit", "20", "hello").stdout
    assert "Hello from inside a container." in out
    assert "pid 1, parent 0, user 0" in out
    assert "a filter looks at each system call" in out
    assert "processes 20" in out


def test_output_and_exit_code_pass_through(engine: EngineProcess) -> None:
    done = engine.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_input_reaches_the_process_and_its_end_too(engine: EngineProcess) -> None:
    data = os.urandom(1 << 20).hex().encode()
    assert engine.docker("run", "-i", "--rm", "busybox", "cat", input=data).stdout.encode() == data


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["/etc"], 126, "is a directory"),
        (["/etc/passwd"], 126, "permission denied"),
        (["nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
        (["/nosuch"], 127, "no such file or directory"),
    ],
)
def test_a_command_that_cannot_be_executed(
    engine: EngineProcess, command: list[str], code: int, message: str
) -> None:
    done = engine.docker("run", "--rm", "busybox", *command, check=False)
    assert done.returncode == code
    assert message in done.stderr


def test_a_killed_container_exits_with_137(engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "victim", "busybox", "sleep", "100")
    engine.docker("kill", "victim")
    assert engine.docker("wait", "victim").stdout == "137\n"
    assert engine.docker("ps", "-a", "--filter", "exited=137", "--format", "{{.Names}}").stdout == "victim\n"
    engine.docker("rm", "victim")


def test_the_life_of_a_detached_container(engine: EngineProcess) -> None:
    script = "trap 'echo bye; exit 0' TERM; i=0; while true; do echo line $i; i=$((i+1)); sleep 0.1; done"
    id = engine.docker("run", "-d", "--name", "ticker", "-l", "a=b", "busybox", "sh", "-c", script).stdout.strip()
    following = subprocess.Popen(
        ["docker", "-H", engine.address, "logs", "-f", "ticker"], stdout=subprocess.PIPE, text=True
    )
    wait_until(lambda: "line 3" in engine.docker("logs", "ticker").stdout)
    assert engine.docker("exec", "ticker", "sh", "-c", "echo from exec; exit 5", check=False).returncode == 5
    assert engine.docker("ps", "--no-trunc", "-q").stdout.strip() == id
    assert engine.docker("ps", "-q", "--filter", "label=a=b").stdout.strip() == id[:12]
    assert "sleep 0.1" in engine.docker("top", "ticker").stdout
    stats = engine.docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", "ticker").stdout
    assert stats.startswith(("ticker 2 ", "ticker 1 "))
    engine.docker("stop", "-t", "5", "ticker")
    out, _ = following.communicate(timeout=10)
    lines = [line for line in out.splitlines() if line.startswith("line")]
    assert lines == [f"line {n}" for n in range(len(lines))]
    assert out.endswith("bye\n")
    state = engine.state("ticker")
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    engine.docker("start", "ticker")
    engine.docker("rm", "-f", "ticker")
    assert engine.docker("ps", "-aq", "--filter", "name=ticker").stdout == ""


def test_events_tell_a_containers_life_in_order(engine: EngineProcess) -> None:
    since = str(time.time())
    engine.docker("run", "--rm", "--name", "eventful", "busybox", "true")
    until = str(time.time() + 0.1)
    form = "{{.Action}}"
    out = engine.docker(
        "events", "--since", since, "--until", until, "--filter", "container=eventful", "--format", form
    ).stdout
    assert out.split() == ["create", "start", "die", "destroy"]


def test_inspect_has_what_was_asked_for(engine: EngineProcess) -> None:
    engine.docker(
        "create", "--name", "asked", "-e", "A=1", "-w", "/made/for/it", "--hostname", "ship", "-m", "32m", "--cpus",
        "0.5", "--pids-limit", "9", "--read-only", "--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN", "--restart",
        "on-failure:3", "-v", "/etc/hostname:/h:ro", "--tmpfs", "/t:size=1m", "busybox", "sleep", "5",
    )  # fmt: skip
    document = json.loads(engine.docker("inspect", "asked").stdout)[0]
    config, host = document["Config"], document["HostConfig"]
    assert (config["Hostname"], config["WorkingDir"], config["Env"]) == ("ship", "/made/for/it", ["A=1"])
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (32 << 20, 500_000_000, 9)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert document["Mounts"][0]["Destination"] == "/h"
    assert document["State"]["Status"] == "created"
    engine.docker("rm", "asked")


def test_limits_and_privileges_hold_inside(engine: EngineProcess) -> None:
    script = "grep CapEff /proc/self/status; hostname; pwd; touch /x 2>/dev/null || echo read-only; df /t | tail -1"
    out = engine.docker(
        "run", "--rm", "--read-only", "--cap-drop", "ALL", "--cap-add", "KILL", "-w", "/tmp", "--hostname", "ship",
        "--tmpfs", "/t:size=1m", "busybox", "sh", "-c", script,
    ).stdout.splitlines()  # fmt: skip
    assert out[0].split()[1] == "0000000000000020"
    assert out[1:4] == ["ship", "/tmp", "read-only"]
    assert "1024" in out[4]


@pytest.mark.parametrize(
    ("user", "answer"),
    [
        ("sailor", "uid=1000(sailor) gid=1000(sailor) groups=1000(sailor),2000(crew)"),
        ("1000", "uid=1000(sailor) gid=1000(sailor) groups=1000(sailor),2000(crew)"),
        ("7:8", "uid=7 gid=8 groups=8"),
        ("sailor:crew", "uid=1000(sailor) gid=2000(crew) groups=2000(crew)"),
    ],
)
def test_users_are_looked_up_in_the_image(engine: EngineProcess, user: str, answer: str) -> None:
    assert engine.docker("run", "--rm", "-u", user, "busybox", "id").stdout.strip() == answer


class Terminal:
    """A docker command on a pseudo terminal."""

    def __init__(self, *words: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp(words[0], words)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def until(self, text: str, seconds: float = 10) -> str:
        found = b""
        deadline = time.monotonic() + seconds
        while text.encode() not in found and time.monotonic() < deadline:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    found += os.read(self.fd, 4096)
                except OSError:
                    break
        assert text.encode() in found, found
        return found.decode("utf-8", "replace")

    def send(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def exit_code(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize("program", ["docker", "boxship"])
def test_a_terminal_follows_its_window_and_detaches(engine: EngineProcess, program: str) -> None:
    words = ["docker"] if program == "docker" else [sys.executable, "-m", "boxship.cli"]
    name = f"tty-{program}"
    terminal = Terminal(*words, "-H", engine.address, "run", "-it", "--name", name, "busybox", "sh")
    terminal.until("# ")
    terminal.resize(33, 101)
    time.sleep(0.3)
    terminal.send("stty size\n")
    terminal.until("33 101")
    terminal.send("\x10\x11")
    assert terminal.exit_code() == 0
    assert engine.state(name)["Running"] is True
    again = Terminal(*words, "-H", engine.address, "attach", name)
    time.sleep(0.3)
    again.send("\necho back; exit 6\n")
    again.until("back")
    assert again.exit_code() == 6
    engine.docker("rm", "-f", name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=3) as answer:
        return str(answer.read().decode())


def test_a_published_port_reaches_the_server_inside(engine: EngineProcess) -> None:
    port = _free_port()
    script = "mkdir -p /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www"
    engine.docker("run", "-d", "--name", "web", "-p", f"127.0.0.1:{port}:80", "busybox", "sh", "-c", script)
    try:
        wait_until(lambda: engine.docker("exec", "web", "test", "-f", "/www/index.html", check=False).returncode == 0)
        time.sleep(0.1)
        assert _get(f"http://127.0.0.1:{port}/") == "served\n"
        assert engine.docker("port", "web").stdout == f"80/tcp -> 127.0.0.1:{port}\n"
        gateway = json.loads(engine.docker("network", "inspect", "bridge").stdout)[0]["IPAM"]["Config"][0]["Gateway"]
        with pytest.raises(OSError, match=r"refused|timed out"):
            _get(f"http://{gateway}:{port}/")  # bound to loopback only
        taken = engine.docker("run", "--rm", "-p", f"127.0.0.1:{port}:80", "busybox", "true", check=False)
        assert taken.returncode == 125
        assert "port is already allocated" in taken.stderr
    finally:
        engine.docker("rm", "-f", "web")
    with pytest.raises(OSError, match="refused"):
        _get(f"http://127.0.0.1:{port}/")


UDP_ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 53))
while True:
    data, peer = s.recvfrom(100)
    s.sendto(data, peer)
"""


def test_a_published_udp_port(engine: EngineProcess) -> None:
    port = _free_port()
    python = os.path.realpath(sys.executable)
    roots = {f"/{python.split('/')[1]}", "/usr", "/lib", "/lib64"}
    binds = [word for root in sorted(roots) for word in ("-v", f"{root}:{root}:ro")]
    command = [python, "-I", "-S", "-c", UDP_ECHO]
    engine.docker("run", "-d", "--name", "udp", "-p", f"{port}:53/udp", *binds, "busybox", *command)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.3)
            answer = b""
            for _ in range(20):
                probe.sendto(b"ping\n", ("127.0.0.1", port))
                try:
                    answer = probe.recv(100)
                    break
                except OSError:
                    continue
            assert answer == b"ping\n"
    finally:
        engine.docker("rm", "-f", "udp")


def test_containers_reach_each_other_and_their_own_published_port(engine: EngineProcess) -> None:
    port = _free_port()
    script = "mkdir -p /www; echo neighbour > /www/index.html; exec httpd -f -p 80 -h /www"
    engine.docker("run", "-d", "--name", "one", "-p", f"{port}:80", "busybox", "sh", "-c", script)
    try:
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}"
        ip, gateway = engine.docker("inspect", "-f", form, "one").stdout.split()
        fetch = engine.docker("run", "--rm", "busybox", "wget", "-q", "-O", "-", f"http://{ip}/").stdout
        assert fetch == "neighbour\n"
        own = engine.docker("exec", "one", "wget", "-q", "-O", "-", f"http://{gateway}:{port}/").stdout
        assert own == "neighbour\n"
    finally:
        engine.docker("rm", "-f", "one")


def test_a_volume_keeps_data_between_containers(engine: EngineProcess) -> None:
    engine.docker("volume", "create", "hold")
    engine.docker("run", "--rm", "-v", "hold:/data", "busybox", "sh", "-c", "echo kept > /data/file")
    assert engine.docker("run", "--rm", "-v", "hold:/data:ro", "busybox", "cat", "/data/file").stdout == "kept\n"
    assert "hold" in engine.docker("volume", "ls", "-q").stdout.split()
    in_use = engine.docker("create", "-v", "hold:/data", "busybox", "true").stdout.strip()
    refused = engine.docker("volume", "rm", "hold", check=False)
    assert "volume is in use" in refused.stderr
    engine.docker("rm", in_use)
    engine.docker("volume", "rm", "hold")


def test_a_new_volume_gets_what_the_image_has_there(engine: EngineProcess) -> None:
    out = engine.docker("run", "--rm", "-v", "fresh:/etc", "busybox", "cat", "/etc/passwd").stdout
    assert out.startswith("root:x:0:0")
    engine.docker("volume", "rm", "fresh")


def test_anonymous_volumes_go_with_the_container(engine: EngineProcess) -> None:
    before = engine.docker("volume", "ls", "-q").stdout
    engine.docker("run", "--rm", "-v", "/data", "busybox", "touch", "/data/x")
    assert engine.docker("volume", "ls", "-q").stdout == before


def test_bind_mounts(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host\n")
    target = f"{tmp_path}:/host"
    assert engine.docker("run", "--rm", "-v", target, "busybox", "cat", "/host/in").stdout == "from the host\n"
    engine.docker("run", "--rm", "-v", target, "busybox", "touch", "/host/out")
    assert (tmp_path / "out").exists()
    refused = engine.docker("run", "--rm", "-v", f"{target}:ro", "busybox", "touch", "/host/no", check=False)
    assert "Read-only file system" in refused.stderr


def test_images_go_out_and_come_back(engine: EngineProcess, tmp_path: Path) -> None:
    archive = tmp_path / "busybox.tar"
    engine.docker("save", "-o", str(archive), "busybox")
    engine.docker("tag", "busybox", "other/name:1")
    assert "other/name" in engine.docker("images", "--format", "{{.Repository}}").stdout.split()
    engine.docker("rmi", "other/name:1")
    engine.docker("tag", "busybox", "keep:1")
    engine.docker("rmi", "busybox")
    assert engine.docker("load", "-i", str(archive)).stdout == "Loaded image: busybox:latest\n"
    assert engine.docker("run", "--rm", "busybox", "echo", "again").stdout == "again\n"
    engine.docker("rmi", "keep:1")


def test_restart_policy_brings_a_failing_container_back(engine: EngineProcess) -> None:
    engine.docker(
        "run", "-d", "--name", "again", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo up; exit 1"
    )

    def given_up() -> bool:
        document = json.loads(engine.docker("inspect", "again").stdout)[0]
        return bool(document["RestartCount"] == 2 and document["State"]["Status"] == "exited")

    wait_until(given_up)
    assert engine.docker("logs", "again").stdout == "up\n" * 3
    engine.docker("rm", "again")


def test_tcp_and_docker_host(engine: EngineProcess, tmp_path: Path) -> None:
    import tempfile

    root = Path(tempfile.mkdtemp(prefix="bxt", dir="/tmp"))
    port = _free_port()
    other = EngineProcess(root, "-H", f"tcp://127.0.0.1:{port}", "-G", "nogroup").start()
    try:
        environment = {**os.environ, "DOCKER_HOST": f"tcp://127.0.0.1:{port}"}
        out = subprocess.run(
            ["docker", "run", "--rm", "hello"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        assert "Hello from inside a container." in out
        import grp
        import stat

        status = other.socket.stat()
        assert status.st_gid == grp.getgrnam("nogroup").gr_gid
        assert stat.S_IMODE(status.st_mode) == 0o660
    finally:
        other.remove_everything()


def test_a_slow_reader_gets_every_byte(engine: EngineProcess) -> None:
    process = subprocess.Popen(
        ["docker", "-H", engine.address, "run", "--rm", "busybox", "head", "-c", "30000000", "/dev/zero"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    total = 0
    while data := process.stdout.read(1 << 20):
        total += len(data)
        time.sleep(0.01)
    assert process.wait() == 0
    assert total == 30_000_000


def test_many_at_once(engine: EngineProcess) -> None:
    failures: list[str] = []

    def one(number: int) -> None:
        done = engine.docker("run", "--rm", "busybox", "echo", str(number), check=False)
        if done.stdout != f"{number}\n":
            failures.append(f"{number}: {done.stdout!r} {done.stderr!r}")

    threads = [threading.Thread(target=one, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_execs_exit_code_is_known_when_its_output_ends(engine: EngineProcess) -> None:
    """The output ends before the shim has reaped the process: half of the clients used to be told 0."""
    engine.docker("run", "-d", "--name", "busy", "busybox", "sleep", "100")
    codes = [engine.docker("exec", "busy", "sh", "-c", f"exit {n}", check=False).returncode for n in range(1, 21)]
    assert codes == list(range(1, 21))
    engine.docker("rm", "-f", "busy")


def test_a_seccomp_profile_of_the_users_own(engine: EngineProcess, tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    option = f"seccomp={tmp_path}/profile.json"
    done = engine.docker("run", "--rm", "--security-opt", option, "busybox", "mkdir", "/x", check=False)
    assert done.returncode == 1
    assert "Operation not permitted" in done.stderr


def test_namespaces_of_others(engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "donor", "--hostname", "donor-host", "busybox", "sleep", "100")
    script = "hostname; grep -c donor-host /etc/hosts"
    out = engine.docker("run", "--rm", "--network", "container:donor", "busybox", "sh", "-c", script).stdout
    assert out == "donor-host\n1\n"
    assert engine.docker("run", "--rm", "--uts", "host", "busybox", "hostname").stdout.strip() == os.uname().nodename
    publishing = ("run", "--rm", "-p", "80:80", "--network", "container:donor", "busybox", "true")
    done = engine.docker(*publishing, check=False)
    assert done.returncode == 125
    assert "conflicting options: port publishing and the container type network mode" in done.stderr
    engine.docker("rm", "-f", "donor")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--log-opt", "bogus=1"], "unknown log opt 'bogus' for json-file log driver"),
        (["--log-opt", "max-size=zz"], "invalid size: 'zz'"),
        (["--platform", "linux/riscv64", "--pull", "never"], "does not match the specified platform"),
        (["--volumes-from", "nosuch"], "No such container: nosuch"),
        (["--gpus", "all"], "could not select device driver"),
    ],
)
def test_options_that_cannot_be_are_refused(engine: EngineProcess, options: list[str], message: str) -> None:
    done = engine.docker("run", "--rm", *options, "busybox", "true", check=False)
    assert done.returncode == 125
    assert message in done.stderr
    assert "Unable to find image" not in done.stderr


def test_files_of_the_engine_are_read_only_with_the_root(engine: EngineProcess) -> None:
    done = engine.docker("run", "--rm", "--read-only", "busybox", "touch", "/etc/hosts", check=False)
    assert "Read-only file system" in done.stderr


def test_followers_of_a_log_may_go_at_any_moment(engine: EngineProcess) -> None:
    """A descriptor that the loop still knew when it was closed ended the whole engine."""
    id = engine.docker("run", "-d", "busybox", "sh", "-c", "while :; do echo x; sleep 0.01; done").stdout.strip()
    request = f"GET /v1.47/containers/{id}/logs?follow=1&stdout=1&tail=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    for number in range(60):
        followers = []
        for _ in range(3):
            follower = socket.socket(socket.AF_UNIX)
            follower.connect(str(engine.socket))
            follower.sendall(request)
            assert follower.recv(4096)
            followers.append(follower)
        for follower in followers:
            follower.close()
        with socket.socket(socket.AF_UNIX) as other:  # its descriptor is the one that was just closed
            other.connect(str(engine.socket))
            other.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert other.recv(4096).startswith(b"HTTP/1.1 200"), number
    engine.docker("rm", "-f", id)


def test_input_that_waits_for_room_ends_with_the_container(engine: EngineProcess) -> None:
    id = engine.docker("run", "-d", "-i", "busybox", "sleep", "600").stdout.strip()
    command = ["docker", "-H", engine.address, "attach", "--sig-proxy=false", id]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) for _ in range(2)]
    for writer in writers:
        assert writer.stdin is not None
        threading.Thread(target=_pour, args=(writer.stdin,), daemon=True).start()
    time.sleep(0.5)
    engine.docker("kill", id)
    for writer in writers:
        writer.wait(20)
    assert engine.docker("ps", "-q").stdout == ""
    engine.docker("rm", "-f", id)


def _pour(stream: IO[bytes]) -> None:
    try:
        stream.write(bytes(1 << 20))  # more than a FIFO takes
        stream.flush()
    except BrokenPipeError:
        pass  # the client has ended, which is what the test waits for
