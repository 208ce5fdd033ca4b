"""Limits of real containers on this host's own cgroups: set, updated, counted; and what a container may share."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boxship.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from boxship.libcontainer import cgroups
from boxship.libcontainer.cgroups import device_filter, tree
from boxship.libcontainer.cgroups.devices import rules
from boxship.libcontainer.cgroups.layout import Layout
from boxship.libcontainer.container import Container
from boxship.libcontainer.host import detect
from boxship.libcontainer.process import Stdio
from boxship.libcontainer.watch import events
from tests.fake_systemd import fake_systemd

from .bundle_fixture import Bundle, needs_root, new_bundle, pipe, read_all

pytestmark = [pytest.mark.root, needs_root]
M = 1 << 20


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        yield made


@pytest.fixture(scope="module")
def layout() -> Layout:
    found = cgroups.detect()
    if found.mode == "none":
        pytest.skip("no cgroups here")
    return found


def value(container: Container, v1: str, v2: str) -> str:
    """The text of a file: ``v1`` or ``v2`` is its name."""
    manager = container.cgroups
    if [*manager.paths] == [""]:
        return Path(manager.paths[""], v2).read_text().strip()
    return Path(manager.paths[v1.split(".")[0]], v1).read_text().strip()


def unified_group(layout: Layout) -> str:
    """A directory of ours in the v2 tree, empty or with controllers."""
    if not layout.unified or not os.access(layout.unified, os.W_OK):
        pytest.skip("needs cgroup v2")
    path = f"{layout.unified}/boxship-test-{os.getpid()}"
    os.makedirs(path, exist_ok=True)
    return path


def test_every_common_limit_is_set_and_changed(bundle: Bundle, layout: Layout) -> None:
    bundle.spec["linux"]["resources"] = {
        "memory": {"limit": 64 * M, "reservation": 32 * M},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 50},
    }
    container = bundle.create("sleep", "100")

    def read() -> list[str]:
        period = "cpu.max" if layout.mode == "v2" else "cpu.cfs_period_us"
        return [
            value(container, "memory.limit_in_bytes", "memory.max"),
            value(container, "memory.soft_limit_in_bytes", "memory.low"),
            value(container, "cpu.cfs_quota_us", "cpu.max").split()[0],
            value(container, period, "cpu.max").split()[-1],
            value(container, "cpuset.cpus", "cpuset.cpus"),
            value(container, "pids.max", "pids.max"),
        ]

    assert read() == [str(64 * M), str(32 * M), "50000", "100000", "0", "50"]
    container.update({"memory": {"limit": 96 * M}, "pids": {"limit": -1}, "cpu": {"period": 50000}})
    assert read() == [str(96 * M), str(32 * M), "50000", "50000", "0", "max"]
    container.update({"cpu": {"quota": 20000}})
    assert read()[2:4] == ["20000", "50000"]
    with pytest.raises(InvalidArgument, match=r"linux\.resources\.memory\.limit must be a whole number"):
        container.update({"memory": {"limit": "1"}})


def test_device_rules_hold_and_are_replaced_by_an_update(bundle: Bundle, layout: Layout) -> None:
    # 240 to 254 are for experiments: nobody answers there, so who may open it gets ENXIO.
    allow = {"allow": True, "type": "c", "major": 240, "minor": 7, "access": "rw"}
    bundle.spec["linux"]["devices"] = [{"path": "/dev/mine", "type": "c", "major": 240, "minor": 7}]
    bundle.spec["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    container = bundle.create("sleep", "100")
    container.start()

    def opening(path: str) -> str:
        with pipe() as (read, write):
            args = ["sh", "-c", f"true < {path}"]
            process = container.exec({"args": args, "cwd": "/", "env": ["PATH=/bin"]}, stdio=Stdio(-1, write, write))
            os.close(write)
            text = read_all(read)
        process.wait()
        return text.strip().rpartition(": ")[2]

    denied, permitted = "Operation not permitted", "No such device or address"
    assert [opening("/dev/null"), opening("/dev/mine")] == ["", denied]
    container.update({"devices": [{"allow": False, "access": "rwm"}, allow]})
    assert [opening("/dev/null"), opening("/dev/mine")] == ["", permitted]
    container.update({"pids": {"limit": 100}})
    assert opening("/dev/mine") == permitted
    container.update({"devices": [{"allow": False, "access": "rwm"}]})
    assert opening("/dev/mine") == denied


def test_a_device_filter_attached_to_a_v2_group_decides_and_is_replaced(layout: Layout) -> None:
    group = unified_group(layout)
    try:
        script = f"echo $$ > {group}/cgroup.procs; true < /dev/zero && echo zero; true < /dev/null && echo null"

        def can_open(value: Any, *, new: bool) -> list[str]:
            device_filter.attach(group, rules(value), new=new)
            run = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
            return run.stdout.split()

        null, zero = ({"allow": True, "type": "c", "major": 1, "minor": minor} for minor in (3, 5))
        assert can_open([{"allow": False}, null], new=True) == ["null"]
        assert can_open([{"allow": False}, zero], new=False) == ["zero"]
        assert can_open([{"allow": True}, {**zero, "allow": False, "access": "w"}], new=False) == ["zero", "null"]
    finally:
        tree.remove(group, time.monotonic() + 2)


def test_a_group_that_has_processes_or_is_frozen_is_refused(bundle: Bundle, layout: Layout) -> None:
    path = f"/boxship/test-shared-{os.getpid()}"
    bundle.spec["linux"]["cgroupsPath"] = path
    first = bundle.create("sleep", "100")
    with pytest.raises(AlreadyExists, match="container's cgroup is not empty: 1 process"):
        bundle.create("sleep", "100")
    assert first.pids() == [first.pid]
    assert [c.id for c in Container.list(root=bundle.root)] == [first.id]
    first.delete(force=True)
    manager = cgroups.manager(layout, "x", path)
    manager.create()
    try:
        manager.freeze()
        with pytest.raises(FailedPrecondition, match="container's cgroup unexpectedly frozen"):
            bundle.create("sleep", "100")
    finally:
        manager.thaw()
        manager.delete()
    assert Container.list(root=bundle.root) == []


def test_a_frozen_group_of_the_freezer_alone_is_refused(bundle: Bundle, layout: Layout) -> None:
    """The other hierarchies have no such group yet: a container once stopped in it for ever, before it was one."""
    if "freezer" not in layout.v1:
        pytest.skip("needs cgroup v1")
    path = f"/boxship/test-frozen-{os.getpid()}"
    group = Path(layout.v1["freezer"] + path)
    group.mkdir(parents=True)
    (group / "freezer.state").write_text("FROZEN")
    bundle.spec["linux"]["cgroupsPath"] = path
    try:
        with pytest.raises(FailedPrecondition, match="container's cgroup unexpectedly frozen"):
            bundle.create("sleep", "100")
    finally:
        if group.exists():
            (group / "freezer.state").write_text("THAWED")
            group.rmdir()
    assert Container.list(root=bundle.root) == []


def test_an_exec_goes_where_it_is_told_to(bundle: Bundle, layout: Layout) -> None:
    container = bundle.create("sleep", "100")
    container.start()
    manager = container.cgroups
    main = manager.paths.get("memory") or manager.paths[""]
    os.mkdir(main + "/sub")
    controller = "memory" if "memory" in manager.paths else ""
    process = {"args": ["sleep", "100"], "cwd": "/", "env": ["PATH=/bin"]}
    started = container.exec(process, sub_cgroups={controller: "sub"})
    assert f"{Path(main).name}/sub\n" in Path(f"/proc/{started.pid}/cgroup").read_text()
    assert Path(main, "sub/cgroup.procs").read_text().split() == [str(started.pid)]
    with pytest.raises(InvalidArgument, match=r"bad sub cgroup path: \.\."):
        container.exec(process, sub_cgroups={controller: ".."})
    with pytest.raises(FailedPrecondition, match=r"adding pid of the process to cgroups: .*nosuch: no such file"):
        container.exec(process, sub_cgroups={controller: "nosuch"})
    with pytest.raises(InvalidArgument, match="controller"):
        container.exec(process, sub_cgroups={"whaaat": "/"})
    container.delete(force=True)
    assert started.wait() == 137
    assert not os.path.exists(main)


def test_on_v2_an_exec_follows_init_out_of_a_group_that_hands_controllers_on(bundle: Bundle, layout: Layout) -> None:
    if layout.mode != "v2":
        pytest.skip("needs cgroup v2")
    container = bundle.create("sleep", "100")
    container.start()
    main = container.cgroups.directory()
    os.mkdir(main + "/inner")
    Path(main, "inner/cgroup.procs").write_text(str(container.pid))
    Path(main, "cgroup.subtree_control").write_text("+memory")
    process = {"args": ["sleep", "100"], "cwd": "/", "env": ["PATH=/bin"]}
    started = container.exec(process)
    assert Path(f"/proc/{started.pid}/cgroup").read_text().endswith("/inner\n")
    with pytest.raises(FailedPrecondition, match="device or resource busy"):
        container.exec(process, sub_cgroups={"": "/"})
    container.delete(force=True)
    assert started.wait() == 137


def test_a_writable_cgroup_belongs_to_the_container_s_user_on_v2(bundle: Bundle, layout: Layout) -> None:
    if layout.mode != "v2":
        pytest.skip("needs cgroup v2")
    linux = bundle.spec["linux"]
    kinds = {namespace["type"] for namespace in linux["namespaces"]}
    linux["namespaces"] += [{"type": kind} for kind in ("user", "cgroup") if kind not in kinds]
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.spec["mounts"] = [mount for mount in bundle.spec["mounts"] if mount["destination"] != "/sys/fs/cgroup"]
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec"]}
    bundle.spec["mounts"].append(mount)
    os.chmod(bundle.path, 0o755)
    os.chown(bundle.path / "rootfs", 100000, 100000)
    container = bundle.create("sh", "-c", "mkdir /sys/fs/cgroup/mine && echo $$ > /sys/fs/cgroup/mine/cgroup.procs")
    group = Path(container.cgroups.directory())
    owners = {
        name: (group / name).stat().st_uid for name in (".", "cgroup.procs", "cgroup.subtree_control", "memory.max")
    }
    assert owners == {".": 100000, "cgroup.procs": 100000, "cgroup.subtree_control": 100000, "memory.max": 0}
    container.start()
    assert container.wait() == 0
    mount["options"] = ["ro"]
    container = bundle.create("true")
    assert os.stat(container.cgroups.directory()).st_uid == 0


def test_unified_sets_any_file_on_v2_and_is_refused_on_v1(bundle: Bundle, layout: Layout) -> None:
    bundle.spec["linux"]["resources"] = {"memory": {"limit": 64 * M}, "unified": {"memory.high": str(32 * M)}}
    if layout.mode != "v2":
        with pytest.raises(
            InvalidArgument, match=r"invalid configuration: linux\.resources\.unified is for cgroup v2"
        ):
            bundle.create("true")
        assert Container.list(root=bundle.root) == []
        return
    bundle.spec["linux"]["resources"]["unified"]["memory.max"] = str(48 * M)
    container = bundle.create("true")
    assert value(container, "", "memory.high") == str(32 * M)
    assert value(container, "", "memory.max") == str(48 * M)
    with pytest.raises(FailedPrecondition, match=r"unified\['nosuch.max'\] can't be set: controller 'nosuch' not"):
        container.update({"unified": {"nosuch.max": "1"}})
    with pytest.raises(InvalidArgument, match=r"must be in the form CONTROLLER\.PARAMETER"):
        container.update({"unified": {"memory": "1"}})


def test_a_hybrid_host_s_unified_tree_is_joined_where_a_path_is_given(bundle: Bundle, layout: Layout) -> None:
    if layout.mode != "hybrid":
        pytest.skip("needs a hybrid host")
    path = f"/boxship/test-hybrid-{os.getpid()}"
    bundle.spec["linux"]["cgroupsPath"] = path
    container = bundle.create("sleep", "100")
    container.start()
    process = container.exec({"args": ["sleep", "100"], "cwd": "/", "env": ["PATH=/bin"]})
    for pid in (container.pid, process.pid):
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        assert [line for line in lines if not line.endswith(":" + path)] == []
    container.delete(force=True)
    assert process.wait() == 137
    assert not os.path.exists(layout.unified + path)


def test_lack_of_memory_is_told_when_it_happens(bundle: Bundle, layout: Layout) -> None:
    bundle.spec["linux"]["resources"] = {"memory": {"limit": 16 * M, "swap": 16 * M}}
    with pipe() as (read, write):
        script = "head -c 1 > /dev/null; (head -c 40m /dev/zero | tail -c 40m) > /dev/null 2>&1; sleep 100"
        container = bundle.create("sh", "-c", script, stdio=Stdio(read, -1, -1))
        container.start()
        happened = events(container, 0.2)
        assert next(happened).kind == "stats"
        os.write(write, b"x")
        kinds = []
        for event in happened:
            kinds.append(event.kind)
            if event.kind == "oom" or len(kinds) > 50:
                break
        assert kinds[-1] == "oom"
        happened.close()
    deadline = time.monotonic() + 5
    while container.stats().memory.oom_kill < 1:  # v1 tells before it kills
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_events_end_with_the_container(bundle: Bundle, layout: Layout) -> None:
    container = bundle.create("sleep", "0.3")
    container.start()
    assert {event.kind for event in events(container, 0.1)} == {"stats"}
    container.wait()
    with pytest.raises(FailedPrecondition, match="is not running"):
        next(events(container))


def test_counters_count(bundle: Bundle, layout: Layout) -> None:
    container = bundle.create("sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 100")
    container.start()
    deadline = time.monotonic() + 10
    while container.stats().cpu.total < 10_000_000 and time.monotonic() < deadline:
        time.sleep(0.02)
    stats = container.stats(whole=True)
    assert stats.cpu.total >= 10_000_000
    assert stats.memory.usage > 0
    assert stats.pids.current >= 1
    if layout.mode != "v2":
        assert len(stats.cpu.per_cpu) >= 1
        assert stats.cpuset is not None
        assert stats.cpuset.cpus


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="a real systemd is here: test_real_systemd.py")
@pytest.mark.peer("dbus-daemon")
def test_a_scope_of_systemd_holds_the_container(
    bundle: Bundle, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = (
        [layout.unified] if layout.mode == "v2" else [layout.v1[key] for key in ("name=systemd",) if key in layout.v1]
    )
    if not roots:
        pytest.skip("needs cgroup v2")
    bundle.spec["linux"]["cgroupsPath"] = f"boxship-test{os.getpid()}.slice:box:one"
    bundle.spec["linux"]["resources"] = {"pids": {"limit": 77}}
    with fake_systemd(tmp_path, roots) as (service, address):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        container = bundle.create("sleep", "100", cgroup_manager="systemd")
        again = Container.load(container.id, root=bundle.root)
        assert service.properties("SetUnitProperties")["TasksMax"] == 77
        assert value(container, "pids.max", "pids.max") == "77"
        again.start()
        process = again.exec({"args": ["sleep", "100"], "cwd": "/", "env": ["PATH=/bin"]})
        for pid in (container.pid, process.pid):
            assert f"/boxship-test{os.getpid()}.slice/box-one.scope\n" in Path(f"/proc/{pid}/cgroup").read_text()
        paths = [*container.cgroups.paths.values()]
        again.update({"pids": {"limit": 88}})
        assert service.properties("SetUnitProperties")["TasksMax"] == 88
        again.delete(force=True)
        assert process.wait() == 137
        assert "StopUnit" in service.methods()
    assert not any(os.path.exists(path) for path in paths)
    for path in paths:
        for parent in (os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
            if f"boxship-test{os.getpid()}" in parent or parent.endswith("/boxship.slice"):
                tree.remove(parent, time.monotonic() + 2)


def test_the_command_line_prints_one_reading_in_runc_s_shape(bundle: Bundle, layout: Layout) -> None:
    import sys

    container = bundle.create("sleep", "100")
    container.start()
    program = Path(sys.executable).with_name("boxship-runc")
    command = [str(program), "--root", bundle.root, "events", "--stats", container.id]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    event = json.loads(run.stdout)
    assert (event["type"], event["id"]) == ("stats", container.id)
    data = event["data"]
    assert data["cpu"]["usage"]["total"] > 0
    assert data["memory"]["usage"]["limit"] > 0
    assert {"swap", "kernel", "kernelTCP", "raw"} <= {*data["memory"]} | {"raw"}
    assert data["pids"]["current"] >= 1
    assert {"cpuset", "blkio", "hugetlb", "intel_rdt", "network_interfaces"} <= {*data}


def test_a_creator_s_cpus_are_not_the_container_s(bundle: Bundle, layout: Layout) -> None:
    all = os.sched_getaffinity(0)
    if len(all) < 2:
        pytest.skip("needs two CPUs")
    first, *_, last = sorted(all)
    os.sched_setaffinity(0, {first})
    try:
        container = bundle.create("sleep", "100")
        container.start()
        exec = {"args": ["sleep", "100"], "cwd": "/", "env": ["PATH=/bin"]}
        plain = container.exec(exec)
        chosen = container.exec({**exec, "execCPUAffinity": {"initial": str(first), "final": f"{last}"}})
        initial = container.exec({**exec, "execCPUAffinity": {"initial": f"{first}"}})
    finally:
        os.sched_setaffinity(0, all)
    pids = (container.pid, plain.pid, chosen.pid, initial.pid)
    found = [os.sched_getaffinity(pid) for pid in pids]
    assert found[:3] == [all, all, {last}]
    # Older kernels forget the first wish when the process enters a cpuset (seen with 6.1, v1 and v2).
    assert found[3] in ([{first}, all] if detect().kernel < (6, 2) else [{first}])
    with pytest.raises(InvalidArgument, match=r"execCPUAffinity\.initial: '3-1' has an impossible range"):
        container.exec({**exec, "execCPUAffinity": {"initial": "3-1"}})
    container.update({"cpu": {"cpus": str(last)}})
    assert os.sched_getaffinity(container.pid) == {last}
