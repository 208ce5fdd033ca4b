"""Killing any process of the stack: what must go on goes on, what must be noticed is, nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from .engine_fixture import EngineProcess, wait_until

pytestmark = [pytest.mark.root, pytest.mark.peer("docker", "busybox")]

TICKER = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.02; done"


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    process = EngineProcess(Path(tempfile.mkdtemp(prefix="bxs", dir="/tmp"))).start()
    try:
        process.import_busybox()
        yield process
    finally:
        process.remove_everything()


def numbers(text: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines()]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_containers_outlive_their_engine_and_the_next_one_finds_them(engine: EngineProcess) -> None:
    for number in range(7):
        engine.docker("run", "-d", "--name", f"tick{number}", "busybox", "sh", "-c", TICKER)
    engine.docker("run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 1; echo last words; exit 33")
    engine.docker("run", "-dit", "--name", "terminal", "busybox", "sh")
    script = "mkdir /www; echo up > /www/index.html; exec httpd -f -h /www"
    engine.docker("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "busybox", "sh", "-c", script)
    address = engine.docker("port", "web").stdout.split()[-1]
    time.sleep(0.3)
    engine.crash()
    time.sleep(1.5)
    with urllib.request.urlopen(f"http://{address}/", timeout=3) as answer:
        assert answer.read() == b"up\n"  # reachable while no engine runs
    engine.start()
    for number in range(7):
        assert engine.state(f"tick{number}")["Running"] is True
        found = numbers(engine.docker("logs", f"tick{number}").stdout)
        assert found == list(range(len(found)))
        assert len(found) > 50  # it went on writing while nobody was there
    state = engine.state("ends")
    assert (state["Status"], state["ExitCode"]) == ("exited", 33)
    assert engine.docker("logs", "ends").stdout == "last words\n"
    assert engine.docker("wait", "ends").stdout == "33\n"
    assert engine.state("terminal")["Running"] is True
    assert engine.docker("exec", "tick0", "echo", "still here").stdout == "still here\n"
    with urllib.request.urlopen(f"http://{address}/", timeout=3) as answer:
        assert answer.read() == b"up\n"
    taken = engine.docker("run", "--rm", "-p", f"{address}:80", "busybox", "true", check=False)
    assert "port is already allocated" in taken.stderr
    engine.docker("stop", "-t", "0", "tick1")
    assert engine.state("tick1")["ExitCode"] == 137


def test_containers_outlive_the_zygote_and_new_ones_start(engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "before", "busybox", "sh", "-c", TICKER)
    os.kill(engine.zygote(), signal.SIGKILL)
    assert engine.docker("run", "--rm", "busybox", "echo", "new").stdout == "new\n"
    assert engine.docker("exec", "before", "echo", "old").stdout == "old\n"
    assert engine.state("before")["Running"] is True


def test_a_killed_shim_is_noticed_and_cleaned_up_after(engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "orphan", "busybox", "sh", "-c", TICKER)
    init = engine.state("orphan")["Pid"]
    assert isinstance(init, int)
    shim = parent(init)
    assert shim in engine.shims()
    os.kill(shim, signal.SIGKILL)
    wait_until(lambda: engine.state("orphan")["Running"] is False)
    state = engine.state("orphan")
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    wait_until(lambda: not alive(init))
    engine.docker("start", "orphan")
    assert engine.state("orphan")["Running"] is True


def test_each_container_has_its_shim_and_no_runtime_process_stays(engine: EngineProcess) -> None:
    ids = [engine.docker("run", "-d", "busybox", "sleep", "100").stdout.strip() for _ in range(4)]
    shims = engine.shims()
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in shims]
    assert len(lines) == 4
    for id in ids:
        assert sum(f"-namespace moby -id {id} -address " in line for line in lines) == 1
    for id in ids:
        init = engine.state(id)["Pid"]
        assert isinstance(init, int)
        assert parent(init) in shims
    runtimes = [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and b"boxship-runc" in _command_line(entry)
        and str(engine.root).encode() in _command_line(entry)
    ]
    assert runtimes == []


def _command_line(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def test_nothing_is_left_after_removal(engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "aa", "-p", "127.0.0.1::80", "-v", "/data", "busybox", "sh", "-c", TICKER)
    engine.docker("run", "-dit", "--name", "bb", "busybox", "sh")
    engine.docker("exec", "-d", "aa", "sleep", "1000")
    inits = [engine.state(name)["Pid"] for name in ("aa", "bb")]
    ids = json.loads(engine.docker("inspect", "aa", "bb").stdout)
    engine.docker("rm", "-f", "-v", "aa", "bb")
    wait_until(lambda: not engine.shims())
    for init in inits:
        assert isinstance(init, int)
        wait_until(lambda init=init: not alive(init))
    for document in ids:
        for mount in Path("/sys/fs/cgroup").iterdir():
            assert not (mount / "boxship" / document["Id"]).exists()
    assert list((engine.exec_root / "fifo").iterdir()) == []
    tasks = engine.exec_root / "containerd" / "io.containerd.runtime.v2.task" / "moby"
    assert list(tasks.iterdir()) == []
    assert list((engine.data_root / "containers").iterdir()) == []
    assert list((engine.data_root / "volumes").iterdir()) == []
    assert str(engine.root) not in Path("/proc/self/mounts").read_text()
    sockets = [path for path in engine.exec_root.rglob("*") if path.is_socket()]
    assert {path.name for path in sockets} <= {"containerd.sock", "containerd.sock.ttrpc", "zygote.sock"}
    snapshots = engine.data_root / "containerd" / "snapshotter" / "snapshots"
    # busybox's one layer, and the places for mounts; what is removed goes after the answer
    wait_until(lambda: len(list(snapshots.iterdir())) == 2)


@pytest.mark.parametrize("moment", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08])
def test_an_engine_killed_while_it_starts_a_container_leaves_a_container_that_can_be_used(
    engine: EngineProcess, moment: float
) -> None:
    import subprocess

    engine.docker("create", "--name", "half", "busybox", "sh", "-c", "echo ran; sleep 100")
    starting = subprocess.Popen(
        ["docker", "-H", engine.address, "start", "half"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(0.01 + moment)
    engine.crash()
    starting.wait(10)
    engine.start()
    if not engine.state("half")["Running"]:
        engine.docker("start", "half")
    assert engine.state("half")["Running"] is True
    assert engine.docker("exec", "half", "echo", "usable").stdout == "usable\n"
    engine.docker("rm", "-f", "half")
    wait_until(lambda: not engine.shims())


def test_what_ended_while_no_engine_ran_is_brought_back_once_and_stays(engine: EngineProcess) -> None:
    """The old shim still waits to tell of the exit: the new task must not be given to it."""
    engine.docker("run", "-d", "--name", "phoenix", "--restart", "always", "busybox", "sleep", "1000")
    pid = engine.state("phoenix")["Pid"]
    assert isinstance(pid, int)
    engine.crash()
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    engine.start()
    wait_until(lambda: engine.state("phoenix")["Running"], what="it runs again")
    reborn = engine.state("phoenix")["Pid"]
    time.sleep(1)
    assert engine.state("phoenix")["Pid"] == reborn
    assert engine.docker("inspect", "-f", "{{.RestartCount}}", "phoenix").stdout == "1\n"


def test_policies_differ_in_what_an_engine_starts_again(engine: EngineProcess) -> None:
    for policy in ("always", "unless-stopped", "no"):
        engine.docker("run", "-d", "--name", policy, "--restart", policy, "busybox", "sleep", "1000")
        engine.docker("stop", "-t", "0", policy)
    engine.docker("create", "--name", "never-started", "--restart", "always", "busybox", "sleep", "1000")
    engine.stop()
    engine.start()
    wait_until(lambda: engine.state("always")["Running"], what="always means always")
    assert not engine.state("unless-stopped")["Running"]
    assert not engine.state("no")["Running"]
    assert engine.state("never-started")["Status"] == "created"


def forward_rules(bridge: str) -> int:
    listed = subprocess.run(
        ["nft", "list", "chain", "ip", "filter", "FORWARD"], capture_output=True, text=True, check=False
    )
    return listed.stdout.count(f'"{bridge}"')


@pytest.fixture
def forward_chain() -> Iterator[None]:
    """iptables' FORWARD chain, as a dockerd makes it; what is there already stays."""
    there = subprocess.run(["nft", "list", "table", "ip", "filter"], capture_output=True, check=False).returncode == 0
    for change in ("-A", "-D"):
        subprocess.run(["iptables", change, "FORWARD", "-j", "RETURN"], check=True, capture_output=True)
    yield
    if not there:
        subprocess.run(["nft", "delete", "table", "ip", "filter"], check=True, capture_output=True)


@pytest.mark.peer("nft", "iptables")
@pytest.mark.usefixtures("forward_chain")
def test_iptables_chain_gets_two_rules_however_often_an_engine_starts(engine: EngineProcess) -> None:
    query = '{{index .Options "com.docker.network.bridge.name"}}'
    bridge = engine.docker("network", "inspect", "-f", query, "bridge").stdout.strip()
    assert bridge
    for _ in range(2):
        engine.docker("run", "--rm", "busybox", "true")
        assert forward_rules(bridge) == 2
        engine.crash()
        engine.start()
    engine.docker("run", "--rm", "busybox", "true")
    engine.stop()
    assert forward_rules(bridge) == 0
