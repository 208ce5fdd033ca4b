"""Cgroups on v1, v2 and hybrid hosts: hosts described by two texts and a temporary directory."""

import os
from pathlib import Path

import pytest

from boxship.errors import FailedPrecondition, InvalidArgument
from boxship.libcontainer import cgroups
from boxship.libcontainer.cgroups import cpu

HYBRID_MOUNTS = """\
30 29 0:26 / {root} rw - tmpfs tmpfs rw
31 30 0:27 / {root}/memory rw - cgroup cgroup rw,memory
32 30 0:28 / {root}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / {root}/pids rw - cgroup cgroup rw,pids
34 30 0:30 / {root}/freezer rw - cgroup cgroup rw,freezer
35 30 0:31 / {root}/systemd rw - cgroup cgroup rw,name=systemd
36 30 0:32 / {root}/unified rw - cgroup2 cgroup2 rw
"""
HYBRID_OWN = "9:name=systemd:/\n4:memory:/session/one\n3:cpu,cpuacct:/\n2:pids:/\n1:freezer:/\n0::/\n"
V2_MOUNTS = "30 29 0:26 /slice {root} rw - cgroup2 cgroup2 rw\n"
V2_OWN = "0::/slice/user\n"


@pytest.fixture
def hybrid(tmp_path: Path) -> cgroups.Layout:
    for name in ("memory", "cpu,cpuacct", "pids", "freezer", "systemd", "unified"):
        (tmp_path / name).mkdir()
    return cgroups.parse(HYBRID_MOUNTS.format(root=tmp_path), HYBRID_OWN)


@pytest.fixture
def unified(tmp_path: Path) -> cgroups.Layout:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("\n")
    return cgroups.parse(V2_MOUNTS.format(root=tmp_path), V2_OWN)


def test_a_hybrid_host_is_told_from_its_mounts(hybrid: cgroups.Layout, tmp_path: Path) -> None:
    assert hybrid.mode == "hybrid"
    assert hybrid.v1["cpu"] == hybrid.v1["cpuacct"] == f"{tmp_path}/cpu,cpuacct"
    assert hybrid.unified == f"{tmp_path}/unified"
    assert hybrid.own["memory"] == "session/one"


def test_own_cgroup_is_relative_to_the_root_of_the_mount(unified: cgroups.Layout) -> None:
    assert unified.mode == "v2"
    assert unified.own == {"": "user"}


def test_mount_points_with_spaces_are_unescaped() -> None:
    layout = cgroups.parse("1 0 0:1 / /sys/fs/my\\040cgroup rw - cgroup2 none rw\n", "0::/\n")
    assert layout.unified == "/sys/fs/my cgroup"


def test_a_host_without_cgroups_refuses_limits_but_runs_without() -> None:
    manager = cgroups.manager(cgroups.parse("", ""), "c")
    manager.create()
    manager.apply({"devices": [{"allow": False}]})
    with pytest.raises(FailedPrecondition, match="no cgroup hierarchy is mounted"):
        manager.apply({"memory": {"limit": 1}})


@pytest.mark.parametrize(
    ("path", "memory_directory"),
    [("", "memory/boxship/c"), ("/a/b", "memory/a/b"), ("a/b", "memory/session/one/a/b")],
)
def test_cgroups_path_is_absolute_from_the_mount_or_relative_to_the_caller(
    hybrid: cgroups.Layout, tmp_path: Path, path: str, memory_directory: str
) -> None:
    assert cgroups.manager(hybrid, "c", path).paths["memory"] == str(tmp_path / memory_directory)


def test_a_path_that_climbs_is_refused(hybrid: cgroups.Layout) -> None:
    with pytest.raises(InvalidArgument, match=r"must not contain '\.\.'"):
        cgroups.manager(hybrid, "c", "/a/../../b")


def _fill(directory: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        Path(directory, name).write_text(text)


def test_v1_writes_every_limit_into_its_file(hybrid: cgroups.Layout) -> None:
    manager = cgroups.manager(hybrid, "c")
    manager.create()
    memory, cpu_dir, pids = (manager.paths[name] for name in ("memory", "cpu", "pids"))
    _fill(memory, dict.fromkeys(("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"), ""))
    _fill(cpu_dir, dict.fromkeys(("cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"), ""))
    _fill(pids, {"pids.max": ""})
    manager.apply(
        {
            "memory": {"limit": 1000, "swap": 2000},
            "cpu": {"shares": 512, "quota": 50000, "period": 100000},
            "pids": {"limit": -1},
        }
    )
    assert Path(memory, "memory.limit_in_bytes").read_text() == "1000"
    assert Path(memory, "memory.memsw.limit_in_bytes").read_text() == "2000"
    assert Path(cpu_dir, "cpu.shares").read_text() == "512"
    assert Path(cpu_dir, "cpu.cfs_quota_us").read_text() == "50000"
    assert Path(pids, "pids.max").read_text() == "max"


def test_a_missing_controller_is_named_with_the_limit_that_wanted_it(hybrid: cgroups.Layout) -> None:
    manager = cgroups.manager(hybrid, "c")
    manager.create()
    with pytest.raises(FailedPrecondition, match=r"set cpuset.cpus to 0: this host has no cpuset cgroup controller"):
        manager.apply({"cpu": {"cpus": "0"}})


@pytest.mark.parametrize("current", ["500", "9223372036854771712"])
def test_raising_the_v1_memory_limit_raises_the_sum_first(current: str) -> None:
    from boxship.libcontainer.cgroups import memory

    writes = memory.v1({"memory": {"limit": 1000, "swap": 2000}}, lambda controller, file: current)
    files = [file for _, file, _ in writes]
    raised_first = files[0] == "memory.memsw.limit_in_bytes"
    assert raised_first == (int(current) < 1000)


def test_v2_enables_controllers_on_the_way_down_and_writes_its_own_forms(
    unified: cgroups.Layout, tmp_path: Path
) -> None:
    manager = cgroups.manager(unified, "c", "/boxship/c")
    manager.create()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    leaf = manager.directory()
    names = ("memory.max", "memory.swap.max", "memory.low", "cpu.max", "cpu.weight", "pids.max")
    _fill(leaf, {"cgroup.controllers": "cpu memory pids", **dict.fromkeys(names, "")})
    manager.apply(
        {
            "memory": {"limit": 1000, "swap": 1500, "reservation": 10},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000},
            "pids": {"limit": 7},
        }
    )
    assert {name: Path(leaf, name).read_text() for name in names} == {
        "memory.max": "1000",
        "memory.swap.max": "500",
        "memory.low": "10",
        "cpu.max": "50000 100000",
        "cpu.weight": "100",
        "pids.max": "7",
    }


def test_v2_names_a_controller_that_its_parents_do_not_hand_down(unified: cgroups.Layout) -> None:
    manager = cgroups.manager(unified, "c")
    manager.create()
    _fill(manager.directory(), {"cgroup.controllers": "pids"})
    with pytest.raises(FailedPrecondition, match=r"the memory controller is not enabled in .*subtree_control"):
        manager.apply({"memory": {"limit": 1000}})


@pytest.mark.parametrize(
    ("resources", "path"),
    [
        ({"memory": {"limit": "1g"}}, r"linux\.resources\.memory\.limit"),
        ({"memory": []}, r"linux\.resources\.memory must be an object"),
        ({"cpu": {"shares": 1.5}}, r"linux\.resources\.cpu\.shares"),
        ({"cpu": {"cpus": 3}}, r"linux\.resources\.cpu\.cpus"),
        ({"pids": {"limit": True}}, r"linux\.resources\.pids\.limit"),
        ({"devices": [{"type": "x"}]}, r"linux\.resources\.devices\[0\]\.type"),
        ({"devices": [{"type": "c", "access": "q"}]}, r"devices\[0\]\.access"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_by_its_json_path(
    hybrid: cgroups.Layout, resources: dict[str, object], path: str
) -> None:
    manager = cgroups.manager(hybrid, "c")
    with pytest.raises(InvalidArgument, match=path):
        manager.apply(resources)


@pytest.mark.parametrize(("shares", "weight"), [(0, 1), (2, 1), (1024, 100), (262144, 10000), (1 << 20, 10000)])
def test_shares_map_onto_weights_through_the_fixed_points(shares: int, weight: int) -> None:
    assert cpu.weight(shares) == weight


def test_v2_counters_are_read_in_their_units(unified: cgroups.Layout) -> None:
    manager = cgroups.manager(unified, "c")
    manager.create()
    _fill(
        manager.directory(),
        {
            "memory.current": "4096\n",
            "memory.max": "max\n",
            "memory.events": "low 0\nmax 3\noom_kill 1\n",
            "memory.stat": "anon 10\nfile 20\n",
            "cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 4\nthrottled_usec 6\n",
            "pids.current": "2\n",
            "pids.max": "max\n",
            "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
        },
    )
    stats = manager.stats()
    assert (stats.memory.usage, stats.memory.failcnt, stats.memory.oom_kill) == (4096, 3, 1)
    assert stats.memory.detail == {"anon": 10, "file": 20}
    assert (stats.cpu.total, stats.cpu.throttled_periods, stats.cpu.throttled_time) == (5000, 4, 6000)
    assert (stats.pids.current, stats.pids.limit) == (2, 0)
    assert stats.io == [(8, 0, 1, 2, 3, 4)]


def test_delete_removes_nested_groups_and_repeats(hybrid: cgroups.Layout) -> None:
    manager = cgroups.manager(hybrid, "c")
    manager.create()
    os.mkdir(manager.paths["memory"] + "/inner")
    manager.delete()
    assert not any(os.path.exists(path) for path in manager.paths.values())
    manager.delete()


def test_a_manager_is_found_again_from_the_paths_in_the_state(hybrid: cgroups.Layout) -> None:
    manager = cgroups.manager(hybrid, "c")
    assert cgroups.from_paths(hybrid, manager.paths).paths == manager.paths
