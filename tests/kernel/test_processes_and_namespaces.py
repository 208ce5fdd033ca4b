"""The rest of config.json: how the process is scheduled, which namespaces it is in, what its hooks are told."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boxship.errors import BoxshipError, FailedPrecondition, InvalidArgument, StepFailed
from boxship.libcontainer.process import Stdio
from tests.kernel.bundle_fixture import OWN_IDS, Bundle, needs_root, new_bundle, pipe, read_all

pytestmark = needs_root


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        yield made


def executed(container: Any, *args: str, **process: Any) -> str:
    """What a further process in the container says."""
    with pipe() as (read, write):
        settings = {"args": list(args), "cwd": "/", "env": ["PATH=/bin"], **process}
        done = container.exec(settings, stdio=Stdio(-1, write, write))
        os.close(write)
        text = read_all(read)
    assert done.wait() == 0, text
    return text


# ── Scheduling ──


def test_scheduler_io_priority_and_memory_policy_are_those_of_the_program(bundle: Bundle) -> None:
    bundle.spec["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    bundle.spec["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE"}
    bundle.spec["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    container = bundle.create("sleep", "100")
    container.start()
    fields = Path(f"/proc/{container.pid}/stat").read_text().rpartition(")")[2].split()
    assert (fields[16], fields[38]) == ("7", "3")  # nice, SCHED_BATCH
    if os.path.exists("/proc/self/numa_maps"):
        assert "bind=static:0" in Path(f"/proc/{container.pid}/numa_maps").read_text()


@pytest.mark.parametrize(
    ("where", "settings", "said"),
    [
        ("scheduler", {"policy": "SCHED_OTHER", "nice": 20}, r"scheduler\.nice: must be from -20 to 19"),
        ("scheduler", {"policy": "SCHED_OTHER", "priority": 1}, r"scheduler\.priority: only SCHED_FIFO"),
        ("scheduler", {"policy": "SCHED_RR", "runtime": 1}, "runtime, deadline and period are of SCHED_DEADLINE"),
        ("scheduler", {"policy": "SCHED_DEADLINE", "deadline": 5000}, r"scheduler\.runtime: SCHED_DEADLINE needs"),
        ("scheduler", {"policy": "SCHED_DEADLINE", "runtime": 9000, "deadline": 5000}, "runtime <= deadline"),
        ("memoryPolicy", {"mode": "MPOL_BIND"}, r"memoryPolicy\.nodes: the MPOL_BIND mode requires at least one"),
        ("memoryPolicy", {"mode": "MPOL_LOCAL", "nodes": "0-1"}, "requires 0 nodes but got 2"),
        ("memoryPolicy", {"mode": "MPOL_BIND", "nodes": "3-1"}, "ends before it starts"),
        ("memoryPolicy", {"mode": "MPOL_BIND", "nodes": "x"}, "is not a list like"),
    ],
)
def test_settings_that_the_kernel_would_only_call_invalid_are_refused_in_words(
    bundle: Bundle, where: str, settings: "dict[str, Any]", said: str
) -> None:
    (bundle.spec["linux"] if where == "memoryPolicy" else bundle.spec["process"])[where] = settings
    with pytest.raises(InvalidArgument, match=said):
        bundle.create("true")


def test_crun_keep_groups(bundle: Bundle) -> None:
    bundle.spec["annotations"] = {"run.oci.keep_original_groups": "1"}
    before = os.getgroups()
    os.setgroups([3, 4])
    try:
        code, text = bundle.output("grep", "Groups", "/proc/self/status")
    finally:
        os.setgroups(before)
    # The host's facts are read once: what counts is that the groups are those of this process.
    assert code == 0
    assert text.split()[1:] == ["3", "4"]


# ── Namespaces ──


def test_every_namespace_can_be_joined_by_its_path(bundle: Bundle) -> None:
    kinds = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup", "user": "user",
             "time": "time"}  # fmt: skip
    bundle.spec["linux"]["namespaces"] = [{"type": kind} for kind in (*kinds, "mount")]
    bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = OWN_IDS
    first = bundle.create("sleep", "100")
    first.start()
    bundle.spec["linux"]["namespaces"] = [
        {"type": kind, "path": f"/proc/{first.pid}/ns/{file}"} for kind, file in kinds.items()
    ] + [{"type": "mount"}]
    bundle.spec["hostname"] = ""
    second = bundle.create("sleep", "100")
    second.start()
    for file in kinds.values():
        links = [os.readlink(f"/proc/{pid}/ns/{file}") for pid in (first.pid, second.pid, os.getpid())]
        assert links[0] == links[1] != links[2], file
    second.delete(force=True)  # the first is init of its pid namespace, which ends when all in it are reaped


def test_a_mount_namespace_that_is_joined_is_not_changed_for_those_in_it(bundle: Bundle) -> None:
    holder = bundle.create("sleep", "100")
    holder.start()
    before = Path(f"/proc/{holder.pid}/mountinfo").read_text()
    for namespace in bundle.spec["linux"]["namespaces"]:
        if namespace["type"] == "mount":
            namespace["path"] = f"/proc/{holder.pid}/ns/mnt"
    bundle.spec["linux"]["maskedPaths"] = bundle.spec["linux"]["readonlyPaths"] = []
    code, text = bundle.output("sh", "-c", "echo there; readlink /proc/self/ns/mnt")
    assert code == 0, text
    assert text.split()[0] == "there"
    assert executed(holder, "ls", "/bin/busybox") == "/bin/busybox\n"
    assert len(Path(f"/proc/{holder.pid}/mountinfo").read_text()) >= len(before)


def test_an_exec_is_in_the_time_namespace_too(bundle: Bundle) -> None:
    bundle.spec["linux"]["namespaces"].append({"type": "time"})
    bundle.spec["linux"]["timeOffsets"] = {"boottime": {"secs": 86400, "nanosecs": 5}}
    container = bundle.create("sleep", "100")
    container.start()
    assert executed(container, "grep", "boottime", "/proc/self/timens_offsets").split() == ["boottime", "86400", "5"]


@pytest.mark.parametrize(
    ("linux", "said"),
    [
        ({"sysctl": {"kernel.hostname": "x"}}, "use hostname"),
        ({"sysctl": {"kernel.pid_max": "99"}}, "not namespaced"),
        ({"sysctl": {"user.max_user_namespaces": "1"}}, "needs a user namespace"),
        ({"timeOffsets": {"boottime": {"secs": 1}}}, "no time namespace|no new time namespace"),
        ({"rootfsPropagation": "sideways"}, "unknown value 'sideways'"),
    ],
)
def test_what_would_change_the_host_or_makes_no_sense_is_refused(
    bundle: Bundle, linux: "dict[str, Any]", said: str
) -> None:
    bundle.spec["linux"].update(linux)
    with pytest.raises(InvalidArgument, match=said):
        bundle.create("true")


def test_sysctls_of_the_network_are_refused_for_the_hosts_namespace(bundle: Bundle) -> None:
    for namespace in bundle.spec["linux"]["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = f"/proc/{os.getpid()}/ns/net"
    bundle.spec["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    with pytest.raises(InvalidArgument, match="is the host's"):
        bundle.create("true")


# ── Hooks ──


def hook(bundle: Bundle, script: str, **settings: Any) -> "dict[str, Any]":
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **settings}


def test_hooks_get_the_state_in_their_time_and_place(bundle: Bundle) -> None:
    out = bundle.path / "out"
    out.mkdir()
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    bundle.spec["hooks"] = {
        kind: [hook(bundle, f"cat > {out}/{kind}; pwd >> {out}/where; echo {kind}=$A >> {out}/order", env=["A=b"])]
        for kind in kinds
    }
    bundle.spec["hooks"]["startContainer"] = [
        {"path": "/bin/sh", "args": ["sh", "-c", "cat > /state; echo $HOME $OWN > /environment"]}
    ]
    bundle.spec["process"]["env"] = ["PATH=/bin", "OWN=process"]
    assert bundle.output("true")[0] == 0
    states = {kind: json.loads((out / kind).read_text()) for kind in kinds}
    assert {kind: state["status"] for kind, state in states.items()} == {
        "prestart": "creating", "createRuntime": "creating", "createContainer": "creating", "poststart": "running",
        "poststop": "stopped",
    }  # fmt: skip
    assert all(state["id"] == bundle.made[0].id and state["bundle"] == str(bundle.path) for state in states.values())
    assert (out / "order").read_text().split() == [f"{kind}=b" for kind in kinds]
    where = (out / "where").read_text().split()
    assert where == [str(bundle.path)] * 2 + [str(bundle.path / "rootfs")] + [str(bundle.path)] * 2
    assert json.loads((bundle.path / "rootfs/state").read_text())["status"] == "created"
    assert (bundle.path / "rootfs/environment").read_text() == "/ process\n"


def test_a_hook_of_create_adds_to_what_is_mounted(bundle: Bundle) -> None:
    (bundle.path / "rootfs/added").mkdir()
    bundle.spec["hooks"] = {"createContainer": [hook(bundle, "mount -t tmpfs added ./added && test -e proc/self")]}
    assert bundle.output("grep", "-c", " /added ", "/proc/self/mountinfo") == (0, "1\n")
    assert "added" not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"])
def test_a_hook_that_fails_says_which_how_and_why_and_leaves_nothing(bundle: Bundle, kind: str) -> None:
    good, bad = {"path": "/bin/true"}, hook(bundle, "echo no luck >&2; exit 3")
    bundle.spec["hooks"] = {kind: [good, bad]}
    with pytest.raises(BoxshipError, match=rf"error running {kind} hook #1: /bin/sh: exit code 3.*no luck"):
        bundle.create("sleep", "100").start()
    for container in bundle.made:
        container.delete(force=True)
    assert not [name for name in os.listdir(bundle.root) if not name.startswith(".")]


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_hook_has_its_time(bundle: Bundle, kind: str) -> None:
    bundle.spec["hooks"] = {kind: [hook(bundle, "sleep 100", timeout=1)]}
    with pytest.raises(BoxshipError, match="no end after 1 s"):
        bundle.create("true")


def test_poststop_hooks_that_fail_are_noted_and_the_others_run(bundle: Bundle) -> None:
    mark = bundle.path / "mark"
    bundle.spec["hooks"] = {"poststop": [{"path": "/bin/false"}, hook(bundle, f"touch {mark}")]}
    container = bundle.create("true")
    container.start()
    container.wait()
    container.delete()
    assert mark.exists()
    assert "poststop hook failed with exit code 1: #0, /bin/false" in container.notes


def test_a_start_container_hook_runs_under_the_filter(bundle: Bundle) -> None:
    bundle.spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
    }
    (bundle.path / "rootfs/bin/mkdir").symlink_to("busybox")
    bundle.spec["hooks"] = {"startContainer": [{"path": "/bin/mkdir", "args": ["mkdir", "/x"]}]}
    with pytest.raises(StepFailed, match="startContainer hook #0: /bin/mkdir: killed by signal 31: bad system call"):
        bundle.create("true").start()


def test_crun_files_for_what_hooks_print(bundle: Bundle) -> None:
    out, err = bundle.path / "out", bundle.path / "err"
    bundle.spec["annotations"] = {"run.oci.hooks.stdout": str(out), "run.oci.hooks.stderr": str(err)}
    bundle.spec["hooks"] = {"createRuntime": [hook(bundle, "echo said; echo complained >&2")]}
    assert bundle.output("true")[0] == 0
    assert (out.read_text(), err.read_text()) == ("said\n", "complained\n")


def test_a_hook_that_is_not_there_is_named(bundle: Bundle) -> None:
    bundle.spec["hooks"] = {"createRuntime": [{"path": "/no/such/hook"}]}
    with pytest.raises(FailedPrecondition, match="error running createRuntime hook #0: /no/such/hook"):
        bundle.create("true")
