"""Real containers, by the library: what is inside, what is refused, and that nothing is left."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from boxship.errors import AlreadyExists, BoxshipError, FailedPrecondition, InvalidArgument, NotFound, StepFailed
from boxship.libcontainer.cgroups import Layout
from boxship.libcontainer.container import Container
from boxship.libcontainer.host import detect
from boxship.libcontainer.plan.reports import NeverExecuted
from boxship.libcontainer.process import Stdio, Terminal
from boxship.libcontainer.step_errors import CommandFailed

from .bundle_fixture import Bundle, needs_root, new_bundle, pipe, read_all

pytestmark = [pytest.mark.root, needs_root]


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        yield made


def cgroup_directories(container: Container) -> "list[str]":
    return [path for path in container.cgroups.paths.values() if os.path.isdir(path)]


def test_the_program_is_pid_1_in_namespaces_of_its_own(bundle: Bundle) -> None:
    script = (
        "echo $$; id -u; cat /proc/sys/kernel/hostname; ls /proc | grep -c '^[0-9]';"
        "ls -l /proc/self/ns | grep -o '[a-z]*:.*'"
    )
    code, text = bundle.output("sh", "-c", script)
    lines = text.splitlines()
    assert code == 0
    assert lines[:3] == ["1", "0", "boxship"]
    assert int(lines[3]) <= 3
    ours = {link: os.readlink(f"/proc/self/ns/{link}") for link in ("mnt", "pid", "net", "ipc", "uts", "cgroup")}
    assert not set(ours.values()) & set(lines[4:])


def test_the_exit_code_and_the_signal_come_back(bundle: Bundle) -> None:
    assert bundle.output("sh", "-c", "exit 7")[0] == 7
    container = bundle.create("sleep", "100")
    container.start()
    container.kill(signal.SIGKILL)
    assert container.wait() == 137


def test_capabilities_no_new_privs_and_seccomp_are_as_the_spec_says(bundle: Bundle) -> None:
    bundle.spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }
    bundle.spec["process"]["capabilities"] = {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")}
    script = "grep -E 'Cap(Prm|Eff|Bnd)|NoNewPrivs|Seccomp:' /proc/self/status; busybox mkdir /x"
    code, text = bundle.output("sh", "-c", script)
    assert code == 1
    assert text.count("0000000000000020") == 3
    assert "NoNewPrivs:\t1" in text
    assert "Seccomp:\t2" in text
    assert "Operation not supported" in text


def test_seccomp_without_no_new_privs_leaves_no_extra_capability(bundle: Bundle) -> None:
    bundle.spec["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    bundle.spec["linux"]["seccomp"]["syscalls"] = [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]
    bundle.spec["process"].update(noNewPrivileges=False, user={"uid": 1000, "gid": 1000})
    bundle.spec["process"]["capabilities"] = {"bounding": ["CAP_KILL"]}
    _, text = bundle.output("grep", "-E", "CapPrm|CapEff|CapBnd|Seccomp:|NoNew", "/proc/self/status")
    assert [line.split()[1] for line in text.splitlines()] == ["0" * 16, "0" * 16, "0" * 14 + "20", "0", "2"]


def test_a_user_without_a_name_gets_ids_groups_umask_and_a_home(bundle: Bundle) -> None:
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [7, 8], "umask": 0o077}
    _, text = bundle.output("sh", "-c", "id; umask; echo $HOME")
    assert text.splitlines() == ["uid=1000 gid=1001 groups=7,8", "0077", "/"]


def test_home_is_read_from_the_image(bundle: Bundle) -> None:
    (bundle.path / "rootfs/etc").mkdir()
    (bundle.path / "rootfs/etc/passwd").write_text("web:x:1000:1000::/srv/web:/bin/sh\n")
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 1000}
    assert bundle.output("sh", "-c", "echo $HOME")[1] == "/srv/web\n"


def test_default_devices_work_and_masked_and_read_only_paths_are_so(bundle: Bundle) -> None:
    script = (
        "head -c 4 /dev/zero | od -An -tx1; echo x > /dev/null; cat /proc/keys | head -c 1;"
        "(echo x > /proc/sys/kernel/hostname) 2>&1; ls -A /sys/firmware;"
        "ls -l /dev/ptmx /dev/fd | grep -o '[^ ]* -> .*'"
    )
    _, text = bundle.output("sh", "-c", script)
    lines = text.splitlines()
    assert lines[0].split() == ["00"] * 4
    assert "Read-only file system" in lines[1]
    assert sorted(lines[2:]) == ["/dev/fd -> /proc/self/fd", "/dev/ptmx -> pts/ptmx"]


def test_a_sysctl_is_written_before_it_is_read_only_and_a_whole_root_may_be(bundle: Bundle) -> None:
    bundle.spec["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "7"}
    bundle.spec["linux"]["readonlyPaths"].append("/")
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; (echo > /x) 2>&1; echo > /dev/x"
    _, text = bundle.output("sh", "-c", script)
    lines = text.splitlines()
    assert lines[0] == "7"
    assert "Read-only file system" in lines[1]
    assert len(lines) == 2


def test_containers_of_one_configuration_are_each_their_own(bundle: Bundle) -> None:
    """Their plans are taken over from the one before (compile/again.py), their programs and environments are not."""
    for name in "abcde":
        bundle.spec["process"]["env"] = ["PATH=/bin", f"WHO={name}"]
        code, text = bundle.output("sh", "-c", f"echo {name} $WHO $HOME; cat /proc/keys; exit 3")
        assert (code, text.split()[:2]) == (3, [name, name])
    assert bundle.made[-1].plan is not None
    assert bundle.made[-1].plan.encoded
    with pytest.raises(StepFailed, match='"missing": executable file not found'):
        bundle.create("missing")
    with pytest.raises(InvalidArgument, match=r"process.args\[1\] must be a text, not 5"):
        bundle.create("sh", 5)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"process.args\[1\] contains a NUL byte"):
        bundle.create("sh", "\0")
    bundle.spec["process"]["env"] = {}
    with pytest.raises(InvalidArgument, match=r"process.env must be a list"):
        bundle.create("sh")
    bundle.spec["process"]["env"] = ["PATH=/bin"]
    assert bundle.output("echo", "again", trace=True)[1] == "again\n"
    assert len(bundle.made[-1].times) == len(bundle.made[-1].plan.ops) + 1


def test_a_plan_of_many_packets_is_the_same_again(bundle: Bundle) -> None:
    """Also when it is taken over: at a meeting point the next packet is the answer, not more of the plan."""
    bundle.spec["process"]["env"] = ["PATH=/bin", *(f"V{n}={'x' * 100}" for n in range(3000))]
    for _ in range(4):
        assert bundle.output("sh", "-c", "env | grep -c ^V") == (0, "3000\n")
    mounts = [{"destination": f"/m{n}", "type": "tmpfs", "source": "tmpfs"} for n in range(400)]
    bundle.spec["mounts"] += mounts
    for _ in range(4):
        assert bundle.output("grep", "-c", " /m[0-9]", "/proc/self/mountinfo") == (0, "400\n")


def test_a_terminal_is_the_container_s_own_and_follows_its_size(bundle: Bundle) -> None:
    container = bundle.create("sh", "-c", "tty; stty size; ls -l /dev/console | head -c 1", stdio=Terminal(80, 24))
    container.start()
    text = read_all(container.console)
    os.close(container.console)
    assert text.splitlines() == ["/dev/pts/0", "24 80", "c"]
    assert container.wait() == 0


def test_exec_joins_everything_and_is_a_child_of_ours(bundle: Bundle) -> None:
    container = bundle.create("sleep", "100")
    container.start()
    with pipe() as (read, write):
        process = container.exec(
            {"args": ["sh", "-c", "id -u; ps | grep -c sleep; exec >&- 2>&-; sleep 100"], "cwd": "/",
             "env": ["PATH=/bin"], "user": {"uid": 5, "gid": 5}},
            stdio=Stdio(-1, write, write),
        )  # fmt: skip
        os.close(write)
        text = read_all(read)
    lines = text.splitlines()
    assert lines[0] == "5"
    assert int(lines[1]) >= 1
    of_init, of_exec = (Path(f"/proc/{pid}/cgroup").read_text() for pid in (container.pid, process.pid))
    assert of_init == of_exec
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == 137
    with pytest.raises(CommandFailed) as caught:
        container.exec({"args": ["nosuch"], "cwd": "/", "env": ["PATH=/bin"]})
    assert caught.value.exit_code == 127


def test_exec_has_the_container_s_capabilities_and_no_more(bundle: Bundle) -> None:
    container = bundle.create("sleep", "100")
    container.start()
    with pipe() as (read, write):
        args = ["grep", "-E", "CapEff|CapBnd", "/proc/self/status"]
        process = container.exec({"args": args, "cwd": "/", "env": ["PATH=/bin"]}, stdio=Stdio(-1, write, -1))
        os.close(write)
        text = read_all(read)
    process.wait()
    status = Path(f"/proc/{container.pid}/status").read_text()
    assert text.splitlines() == [line for line in status.splitlines() if line.startswith(("CapEff", "CapBnd"))]


def test_exec_has_from_the_container_s_process_what_it_does_not_say(bundle: Bundle) -> None:
    """execCPUAffinity is for execs alone (runtime-spec 1.3): init runs wherever the cgroup allows."""
    all = os.sched_getaffinity(0)
    one = min(all)
    own = bundle.spec["process"]
    own.update(
        oomScoreAdj=77,
        scheduler={"policy": "SCHED_BATCH", "nice": 7},
        ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6},
        execCPUAffinity={"initial": str(one), "final": str(one)},
        noNewPrivileges=True,
    )
    own["user"]["umask"] = 0o77
    container = bundle.create("sleep", "100")
    container.start()
    assert os.sched_getaffinity(container.pid) == all
    says_nothing = {"args": ["sleep", "100"], "cwd": "/", "env": ["PATH=/bin"]}
    says_all = {
        **says_nothing,
        "oomScoreAdj": 78,
        "scheduler": {"policy": "SCHED_OTHER", "nice": 8},
        "execCPUAffinity": {"initial": f"{min(all)}-{max(all)}", "final": f"{min(all)}-{max(all)}"},
        "noNewPrivileges": False,
        "user": {"uid": 0, "gid": 0, "umask": 0o27},
        "capabilities": {},
    }
    for process, oom, policy, nice, cpus, umask, no_new, capabilities in (
        (says_nothing, "77", os.SCHED_BATCH, 7, {one}, "0077", "1", None),
        ({**says_nothing, "execCPUAffinity": {}}, "77", os.SCHED_BATCH, 7, {one}, "0077", "1", None),
        (says_all, "78", os.SCHED_OTHER, 8, all, "0027", "0", "0" * 16),
    ):
        pid = container.exec(process).pid
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == oom
        assert (os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid)) == (policy, nice)
        assert os.sched_getaffinity(pid) == cpus
        assert (status["Umask"], status["NoNewPrivs"]) == (umask, no_new)
        own_capabilities = capabilities or f"{int(status['CapBnd'], 16):016x}"
        assert status["CapEff"] == own_capabilities
        os.kill(pid, signal.SIGKILL)


def test_exec_with_a_terminal(bundle: Bundle) -> None:
    container = bundle.create("sleep", "100")
    container.start()
    process = container.exec({"args": ["stty", "size"], "cwd": "/", "env": ["PATH=/bin"]}, stdio=Terminal(100, 40))
    assert read_all(process.console) == "40 100\n"
    os.close(process.console)
    assert process.wait() == 0


@pytest.mark.parametrize("namespaces", [[], ["user"]])
def test_nothing_of_the_host_stays_mounted(bundle: Bundle, namespaces: "list[str]") -> None:
    """A mount that was stacked below our root once covered the old root when that was unmounted (one ``..`` away)."""
    bundle.spec["linux"]["namespaces"] += [{"type": kind} for kind in namespaces]
    if namespaces:
        maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = maps
        for directory in (bundle.path, bundle.path / "rootfs"):
            directory.chmod(0o755)
        os.chown(bundle.path / "rootfs", 100000, 100000)
    (bundle.path / "rootfs" / "usr").mkdir()
    (bundle.path / "rootfs" / "usr" / "up").symlink_to("../marker")
    (bundle.path / "rootfs" / "marker").write_text("inside")
    code, text = bundle.output("sh", "-c", "cat /usr/up; echo; cat /proc/self/mountinfo")
    lines = text.splitlines()
    assert (code, lines[0]) == (0, "inside")
    roots = [line for line in lines[1:] if line.split()[4] == "/"]
    assert len(roots) == 1, roots
    known = ("/proc", "/dev", "/sys")
    assert all(line.split()[4] == "/" or line.split()[4].startswith(known) for line in lines[1:])


def test_a_user_namespace_maps_root_and_has_devices(bundle: Bundle) -> None:
    bundle.spec["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = maps
    os.chmod(bundle.path, 0o755)
    os.chown(bundle.path / "rootfs", 100000, 100000)
    script = "id -u; cat /proc/self/uid_map; echo x > /dev/null && head -c 1 /dev/zero | od -An -tx1; sleep 0.2"
    with pipe() as (read, write):
        container = bundle.create("sh", "-c", script, stdio=Stdio(-1, write, write))
        container.start()
        os.close(write)
        assert os.stat(f"/proc/{container.pid}").st_uid == 100000
        text = read_all(read)
    assert container.wait() == 0
    assert [line.split() for line in text.splitlines()] == [["0"], ["0", "100000", "65536"], ["00"]]


def test_an_overlay_given_as_mounts_is_not_seen_on_the_host(bundle: Bundle) -> None:
    for name in ("upper", "work"):
        (bundle.path / name).mkdir()
    options = [f"lowerdir={bundle.path}/rootfs", f"upperdir={bundle.path}/upper", f"workdir={bundle.path}/work"]
    container = bundle.create("sh", "-c", "touch /new; sleep 100", rootfs_mounts=[("overlay", "overlay", options)])
    container.start()
    deadline = time.monotonic() + 5
    while not (bundle.path / "upper/new").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert str(bundle.path) not in Path("/proc/self/mountinfo").read_text()
    assert " / / rw" in Path(f"/proc/{container.pid}/mountinfo").read_text()


def test_a_link_in_the_image_cannot_lead_a_mount_out_of_it(bundle: Bundle) -> None:
    outside = bundle.path / "outside"
    outside.mkdir()
    (bundle.path / "rootfs/evil").symlink_to(f"../../../../../..{outside}")
    (bundle.path / "rootfs" / str(outside).lstrip("/")).mkdir(parents=True)
    bundle.spec["mounts"].append({"destination": "/evil", "type": "tmpfs", "source": "tmpfs"})
    code, text = bundle.output("sh", "-c", "grep -c outside /proc/self/mountinfo; touch /evil/x")
    assert (code, text) == (0, "1\n")
    assert list(outside.iterdir()) == []


def test_limits_are_in_force_before_the_program_runs(bundle: Bundle) -> None:
    bundle.spec["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 50}}
    container = bundle.create("true")
    manager = container.cgroups
    if not manager.paths:
        pytest.skip("no cgroups here")
    stats = container.stats()
    assert (stats.memory.limit, stats.pids.limit) == (64 << 20, 50)
    assert container.pids() == [container.pid]


def test_nothing_is_left_after_delete(bundle: Bundle) -> None:
    before = set(os.listdir("/proc/self/fd"))
    container = bundle.create("sleep", "100")
    container.start()
    pid, paths = container.pid, cgroup_directories(container)
    with pytest.raises(FailedPrecondition, match="it is running"):
        container.delete()
    container.delete(force=True)
    container.delete(force=True)
    assert not os.path.exists(f"/proc/{pid}")
    assert not any(os.path.exists(path) for path in paths)
    assert os.listdir(bundle.root) in ([], [".seccomp"])
    assert set(os.listdir("/proc/self/fd")) == before


def test_states_follow_one_another_and_are_seen_from_elsewhere(bundle: Bundle) -> None:
    container = bundle.create("sleep", "100")
    container.detach()
    other = Container.load(container.id, root=bundle.root)
    assert other.status() == "created"
    other.start()
    assert other.status() == "running"
    with pytest.raises(FailedPrecondition, match="it is running"):
        other.start()
    if other.cgroups.paths:
        other.pause()
        assert other.status() == "paused"
        other.resume()
    other.kill(signal.SIGKILL)
    container.wait()
    assert other.status() == "stopped"
    with pytest.raises(FailedPrecondition, match="not running"):
        other.kill(signal.SIGTERM)
    assert [c.id for c in Container.list(root=bundle.root)] == [container.id]
    other.delete()
    with pytest.raises(NotFound):
        Container.load(container.id, root=bundle.root)


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/no/such", 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
        ("/bin", 126, 'exec: "/bin": is a directory'),
        ("/data", 126, 'exec: "/data": permission denied'),
    ],
)
def test_a_missing_command_is_said_as_shells_count_it(bundle: Bundle, command: str, code: int, words: str) -> None:
    (bundle.path / "rootfs/data").write_text("no program")
    with pytest.raises(CommandFailed) as caught:
        bundle.create(command)
    assert (caught.value.exit_code, str(caught.value)) == (code, words)
    assert Container.list(root=bundle.root) == []


@contextmanager
def killed_once_it_was_told(pid: int) -> Iterator[None]:
    """The process stands still when its word comes, and is killed then: it never executes anything."""
    os.kill(pid, signal.SIGSTOP)
    killer = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
    killer.start()
    try:
        yield
    finally:
        killer.join()


@pytest.mark.parametrize("from_outside", [False, True])
def test_a_start_whose_process_is_killed_before_it_executes_fails(bundle: Bundle, from_outside: bool) -> None:
    container = bundle.create("sleep", "100")
    starter = container
    if from_outside:
        container.detach()
        starter = Container.load(container.id, root=bundle.root)
    words = r"ended between steps \d+ and (\d+) of \1, before it could execute sleep: killed by signal 9: killed"
    with killed_once_it_was_told(container.pid), pytest.raises(NeverExecuted, match=words):
        starter.start()
    assert starter.status() == "stopped"
    container.delete()
    assert not os.path.exists(container.directory)


def test_a_start_of_a_process_that_was_killed_while_it_waited_fails(bundle: Bundle) -> None:
    container = bundle.create("sleep", "100")
    os.kill(container.pid, signal.SIGKILL)
    os.waitid(os.P_PID, container.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(NeverExecuted, match="before it could execute"):
        container.start()
    assert container.status() == "stopped"


def test_a_program_that_ends_at_once_has_executed(bundle: Bundle) -> None:
    for _ in range(5):
        container = bundle.create("true")
        container.start()
        assert container.wait() == 0
        other = bundle.create("true")
        other.detach()
        Container.load(other.id, root=bundle.root).start()
        assert other.wait() == 0


def test_a_memory_limit_that_kills_before_the_program_is_named(bundle: Bundle) -> None:
    bundle.spec["linux"]["resources"]["memory"] = {"limit": 16 << 10, "swap": 16 << 10}
    # What of the executor is charged by then decides which: the kernel refuses the limit, or kills for it.
    killed = r"the memory limit has killed .*memory\.limit too low"
    refused = r"memory\.limit: .*is below what is in use"
    with pytest.raises(BoxshipError, match=f"{killed}|{refused}") as caught:
        bundle.create("sleep", "100")
    assert isinstance(caught.value, NeverExecuted | FailedPrecondition)
    assert Container.list(root=bundle.root) == []


def test_a_failed_step_has_an_address_a_cause_and_a_remedy(bundle: Bundle) -> None:
    bundle.spec["mounts"].append({"destination": "/x", "type": "nosuchfs", "source": "x"})
    address = r"step \d+ of \d+: mount nosuchfs on /x: .*ENODEV \(this kernel has no"
    with pytest.raises(StepFailed, match=address) as caught:
        bundle.create("true")
    assert 1 < caught.value.step < caught.value.total
    assert Container.list(root=bundle.root) == []


def test_what_cannot_be_done_is_refused_before_anything_is(bundle: Bundle) -> None:
    bundle.spec["process"]["cwd"] = "relative"
    with pytest.raises(InvalidArgument, match="cwd must be an absolute path"):
        bundle.create("true")
    bundle.spec["process"]["cwd"] = "/"
    bundle.spec["mounts"].append({"destination": "/proc/self", "type": "tmpfs", "source": "tmpfs"})
    with pytest.raises(InvalidArgument, match="inside /proc"):
        bundle.create("true")
    for id in ("", ".", "..", "a/b", "a b", ".hidden"):
        with pytest.raises(InvalidArgument, match="invalid container ID"):
            Container.create(id, str(bundle.path), root=bundle.root, spec=bundle.spec)
    assert Container.list(root=bundle.root) == []


def test_a_name_can_be_taken_once(bundle: Bundle) -> None:
    container = bundle.create("true")
    with pytest.raises(AlreadyExists):
        Container.create(container.id, str(bundle.path), root=bundle.root, spec=bundle.spec)
    assert container.status() == "created"


def test_signals_that_python_ignores_are_back_to_default(bundle: Bundle) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        _, text = bundle.output("grep", "-E", "SigBlk|SigIgn", "/proc/self/status")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    assert [line.split()[1] for line in text.splitlines()] == ["0" * 16] * 2


def test_no_descriptor_leaks_into_the_container_but_the_preserved(bundle: Bundle) -> None:
    with pipe() as (read, write):
        os.set_inheritable(write, True)
        high = os.dup2(write, 60)
        _, text = bundle.output("ls", "/proc/self/fd")
        os.close(high)
    assert text.split() == ["0", "1", "2", "3"]  # 3 is the directory that ls reads
    del read


def test_hooks_run_in_order_and_know_the_container(bundle: Bundle) -> None:
    log = bundle.path / "hooks.log"
    script = bundle.path / "hook"
    script.write_text(f'#!/bin/sh\ncat > {bundle.path}/state.$1\necho "$1 $COLOUR" >> {log}\n')
    script.chmod(0o755)
    bundle.spec["hooks"] = {
        kind: [{"path": str(script), "args": ["hook", kind], "env": ["COLOUR=red", "PATH=/bin:/usr/bin"]}]
        for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    }
    inside = [{"path": "/bin/sh", "args": ["sh", "-c", "/bin/cat > /from-hook"]}]
    bundle.spec["hooks"]["startContainer"] = inside
    assert bundle.output("grep", "-o", '"id":"[^"]*"', "/from-hook")[1].startswith('"id":"test-')
    order = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    assert log.read_text().splitlines() == [f"{kind} red" for kind in order]
    assert '"status":"stopped"' in (bundle.path / "state.poststop").read_text()


def test_a_hook_that_fails_undoes_the_container(bundle: Bundle) -> None:
    bundle.spec["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo no luck >&2; exit 3"]}]}
    with pytest.raises(FailedPrecondition, match="createRuntime hook #0: /bin/sh: exit code 3: no luck"):
        bundle.create("true")
    assert Container.list(root=bundle.root) == []


def test_steps_are_timed_when_asked(bundle: Bundle) -> None:
    container = bundle.create("true", trace=True)
    container.start()
    assert container.plan is not None
    assert len(container.times) == len(container.plan.ops) + 1
    assert container.times == sorted(container.times)
    container.wait()


def test_the_steps_of_a_trace_follow_one_another(bundle: Bundle) -> None:
    container = bundle.create("true", trace=True)
    container.start()
    container.wait()
    steps = list(container.steps())
    assert steps[0][0] == "prepare the executor"
    assert "mount proc on /proc" in [purpose for purpose, _, _ in steps]
    assert all(a[2] == b[1] for a, b in pairwise(steps))


def test_on_a_v2_host_the_clone_goes_right_into_the_cgroup(bundle: Bundle) -> None:
    mount = next((p for p in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified") if os.path.exists(p + "/cgroup.procs")), "")
    if not mount or not os.access(mount, os.W_OK):
        pytest.skip("no cgroup v2 here")
    machine = detect()
    machine.cgroups = Layout("v2", {}, mount, {})
    del bundle.spec["linux"]["resources"]
    container = bundle.create("sh", "-c", "cat /proc/self/cgroup; sleep 100", host=machine)
    path = container.cgroups.directory()
    assert path.startswith(mount)
    assert container.pids() == [container.pid]
    container.start()
    process = container.exec({"args": ["sleep", "100"], "cwd": "/", "env": ["PATH=/bin"]})
    assert process.pid in container.pids()
    container.delete(force=True)
    assert process.wait() == 137
    assert not os.path.exists(path)


def test_a_sigkill_reaches_a_paused_container(bundle: Bundle) -> None:
    container = bundle.create("sleep", "100")
    container.start()
    if not container.cgroups.paths:
        pytest.skip("no cgroups here")
    container.pause()
    with pytest.raises(FailedPrecondition, match="paused container"):
        container.exec({"args": ["true"], "cwd": "/"})
    container.kill(signal.SIGKILL)
    assert container.wait() == 137
    container.delete()


def test_exec_in_a_user_namespace_is_mapped_too(bundle: Bundle) -> None:
    bundle.spec["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = maps
    os.chmod(bundle.path, 0o755)
    os.chown(bundle.path / "rootfs", 100000, 100000)
    container = bundle.create("sleep", "100")
    container.start()
    with pipe() as (read, write):
        args = ["sh", "-c", "id -u; cat /proc/self/uid_map"]
        process = container.exec({"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 3, "gid": 3}},
                                 stdio=Stdio(-1, write, -1))  # fmt: skip
        os.close(write)
        text = read_all(read)
    assert process.wait() == 0
    assert text.split() == ["3", "0", "100000", "65536"]


def test_namespaces_can_be_shared_by_path_as_in_a_pod(bundle: Bundle) -> None:
    first = bundle.create("sleep", "100")
    first.start()
    for namespace in bundle.spec["linux"]["namespaces"]:
        if namespace["type"] in ("network", "ipc", "uts", "pid"):
            file = {"network": "net"}.get(namespace["type"], namespace["type"])
            namespace["path"] = f"/proc/{first.pid}/ns/{file}"
    bundle.spec["hostname"] = ""
    second = bundle.create("sleep", "100")
    second.start()
    for file, same in (("net", True), ("ipc", True), ("uts", True), ("pid", True), ("mnt", False)):
        links = {os.readlink(f"/proc/{c.pid}/ns/{file}") for c in (first, second)}
        assert (len(links) == 1) == same, file
    first.kill(signal.SIGKILL)
    assert second.wait() == 137  # the pid namespace ends with its first process


def test_mappings_beside_a_joined_user_namespace_must_be_its_own(bundle: Bundle) -> None:
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    linux = bundle.spec["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = maps
    for path in [bundle.path, *bundle.path.rglob("*")]:
        os.chown(path, 100000, 100000, follow_symlinks=False)
    first = bundle.create("sleep", "100")
    first.start()
    linux["namespaces"][-1]["path"] = f"/proc/{first.pid}/ns/user"
    assert bundle.output("cat", "/proc/self/uid_map")[1].split() == ["0", "100000", "65536"]  # as containerd does
    linux["gidMappings"] = [{"containerID": 0, "hostID": 200000, "size": 65536}]
    with pytest.raises(InvalidArgument, match=r"linux\.gidMappings differs .*/ns/user, which maps 0 100000 65536 \("):
        bundle.create("true")
    del linux["gidMappings"]
    with pytest.raises(InvalidArgument, match=r"linux\.gidMappings differs"):
        bundle.create("true")
    del linux["uidMappings"]
    assert bundle.output("cat", "/proc/self/gid_map")[1].split() == ["0", "100000", "65536"]


def test_a_name_of_a_creator_that_died_can_be_deleted_without_force(bundle: Bundle) -> None:
    directory = Path(bundle.root) / "half"
    directory.mkdir(parents=True)
    (directory / "state.json").write_text('{"id":"half","status":"creating","creator":[1,1],"cgroups":{}}')
    container = Container.load("half", root=bundle.root)
    assert container.status() == "stopped"
    container.delete()
    assert not directory.exists()


def test_a_low_limit_on_open_files_is_the_program_s_not_ours(bundle: Bundle) -> None:
    bundle.spec["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 4, "hard": 8}]
    code, text = bundle.output("sh", "-c", "ulimit -n; ulimit -Hn")
    assert (code, text.split()) == (0, ["4", "8"])


def test_what_we_do_not_have_is_not_given_and_said(bundle: Bundle) -> None:
    machine = detect()
    machine.capabilities &= ~(1 << 24)
    machine._limits = {7: 1000}
    every = ["CAP_KILL", "CAP_SYS_RESOURCE"]
    bundle.spec["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), every)
    bundle.spec["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 2000, "hard": 2000}]
    bundle.spec["process"]["oomScoreAdj"] = machine.oom_score_adj - 10
    container = bundle.create("sleep", "1", host=machine)
    assert [note.split()[0] for note in container.notes] == [
        "process.oomScoreAdj", "RLIMIT_NOFILE", "process.capabilities:",
    ]  # fmt: skip
    status = Path(f"/proc/{container.pid}/status").read_text()
    assert "CapPrm:\t0000000000000020" in status
