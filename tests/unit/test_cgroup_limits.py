"""What each limit of runtime-spec is written as, on v1 and on v2: tables of (resources, files and texts)."""

from errno import EINVAL
from typing import Any

import pytest

from boxship.errors import FailedPrecondition, InvalidArgument
from boxship.libcontainer.cgroups import cpu, cpuset, hugetlb, io, memory, network, pids, rdma


def files(**texts: str) -> Any:
    """A group whose files hold these texts, by their name with ``_`` for ``.``; all others are not there."""
    return lambda controller, file: texts.get(file.replace(".", "_"), "")


NEW = files()
M = 1 << 20

MEMORY = [
    # (linux.resources.memory, the group before, v1, v2)
    ({}, NEW, [], []),
    ({"limit": M}, NEW, ["memory.limit_in_bytes=1048576"], ["memory.max=1048576"]),
    (
        {"limit": M, "swap": 2 * M},
        files(memory_limit_in_bytes=str(2**63 - 4096)),
        ["memory.limit_in_bytes=1048576", "memory.memsw.limit_in_bytes=2097152"],
        ["memory.swap.max=1048576", "memory.max=1048576"],
    ),
    (  # raised: the sum goes first
        {"limit": 3 * M, "swap": 4 * M},
        files(memory_limit_in_bytes=str(M)),
        ["memory.memsw.limit_in_bytes=4194304", "memory.limit_in_bytes=3145728"],
        ["memory.swap.max=1048576", "memory.max=3145728"],
    ),
    ({"limit": M, "swap": M}, NEW, None, ["memory.swap.max=0", "memory.max=1048576"]),
    ({"limit": M, "swap": -1}, NEW, None, ["memory.swap.max=max", "memory.max=1048576"]),
    (  # no limit at all, also when only half of it was said
        {"limit": -1},
        files(memory_memsw_limit_in_bytes=str(M)),
        ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"],
        ["memory.swap.max=max", "memory.max=max"],
    ),
    ({"limit": -1}, NEW, ["memory.limit_in_bytes=-1"], ["memory.swap.max=max", "memory.max=max"]),
    ({"limit": -1, "swap": M}, NEW, None, ["memory.swap.max=1048576", "memory.max=max"]),
    (  # an update of the limit alone keeps the sum
        {"limit": 2 * M},
        files(memory_max=str(M), memory_swap_max=str(3 * M)),
        None,
        ["memory.swap.max=2097152", "memory.max=2097152"],
    ),
    ({"limit": 2 * M}, files(memory_max=str(M), memory_swap_max="max"), None, ["memory.max=2097152"]),
    ({"swap": 3 * M}, files(memory_max=str(M)), None, ["memory.swap.max=2097152"]),
    ({"reservation": M}, NEW, ["memory.soft_limit_in_bytes=1048576"], ["memory.low=1048576"]),
    ({"swappiness": 10}, NEW, ["memory.swappiness=10"], []),
    ({"swappiness": -1}, NEW, [], []),
    ({"disableOOMKiller": True}, NEW, ["memory.oom_control=1"], []),
    ({"disableOOMKiller": False, "useHierarchy": True, "kernel": M, "kernelTCP": M}, NEW, [], []),
]

CPU = [
    ({}, NEW, [], []),
    ({"shares": 1024}, NEW, ["cpu.shares=1024"], ["cpu.weight=100"]),
    ({"shares": 0}, NEW, [], []),
    (
        {"quota": 5000, "period": 10000},
        NEW,
        ["cpu.cfs_period_us=10000?", "cpu.cfs_quota_us=5000", "cpu.cfs_period_us=10000"],
        ["cpu.max=5000 10000"],
    ),
    ({"quota": 5000}, NEW, ["cpu.cfs_quota_us=5000"], ["cpu.max=5000"]),
    ({"quota": -1}, NEW, ["cpu.cfs_quota_us=-1"], ["cpu.max=max"]),
    ({"period": 10000}, files(cpu_max="700 100000"), ["cpu.cfs_period_us=10000"], ["cpu.max=700 10000"]),
    ({"period": 10000}, files(cpu_max="max 100000"), None, ["cpu.max=max 10000"]),
    (
        {"quota": 5000, "burst": 1000},
        NEW,
        ["cpu.cfs_burst_us=1000?", "cpu.cfs_quota_us=5000", "cpu.cfs_burst_us=1000?"],
        ["cpu.max.burst=1000?", "cpu.max=5000", "cpu.max.burst=1000?"],
    ),
    ({"burst": 0}, NEW, ["cpu.cfs_burst_us=0?"], ["cpu.max.burst=0?"]),
    ({"idle": 1, "shares": 1024}, NEW, ["cpu.shares=1024", "cpu.idle=1"], ["cpu.idle=1"]),
    ({"idle": 0, "shares": 1024}, NEW, ["cpu.shares=1024", "cpu.idle=0"], ["cpu.idle=0", "cpu.weight=100"]),
    ({"cpus": "0-1", "mems": "0"}, NEW, ["cpuset.cpus=0-1", "cpuset.mems=0"], ["cpuset.cpus=0-1", "cpuset.mems=0"]),
    ({"realtimeRuntime": 900}, NEW, ["cpu.rt_runtime_us=900"], None),
    (
        {"realtimeRuntime": 900, "realtimePeriod": 1000},
        NEW,
        ["cpu.rt_period_us=1000?", "cpu.rt_runtime_us=900", "cpu.rt_period_us=1000"],
        None,
    ),
]

DEVICE = {"major": 8, "minor": 16}
BLOCK = [
    ({}, NEW, [], []),
    ({"weight": 500}, NEW, ["blkio.bfq.weight=500"], ["io.weight=4950"]),
    ({"weight": 500}, files(blkio_weight="500"), ["blkio.weight=500"], None),
    ({"weight": 500}, files(io_bfq_weight="default 100"), None, ["io.bfq.weight=500"]),
    ({"leafWeight": 10}, NEW, ["blkio.leaf_weight=10"], []),
    (
        {"weightDevice": [{**DEVICE, "weight": 10, "leafWeight": 1000}]},
        files(io_bfq_weight="default 100"),
        ["blkio.bfq.weight_device=8:16 10", "blkio.leaf_weight_device=8:16 1000"],
        ["io.bfq.weight=8:16 10"],
    ),
    (
        {
            "throttleReadBpsDevice": [{**DEVICE, "rate": 1}],
            "throttleWriteBpsDevice": [{**DEVICE, "rate": 2}],
            "throttleReadIOPSDevice": [{**DEVICE, "rate": 3}],
            "throttleWriteIOPSDevice": [{**DEVICE, "rate": 0}],
        },
        NEW,
        [
            "blkio.throttle.read_bps_device=8:16 1",
            "blkio.throttle.write_bps_device=8:16 2",
            "blkio.throttle.read_iops_device=8:16 3",
            "blkio.throttle.write_iops_device=8:16 0",
        ],
        ["io.max=8:16 rbps=1", "io.max=8:16 wbps=2", "io.max=8:16 riops=3", "io.max=8:16 wiops=max"],
    ),
]


def said(writes: list[Any]) -> list[str]:
    """The writes as ``file=text``, with a ``?`` behind those that may be refused."""
    return [f"{write[1]}={write[2]}{'?' if write[3:] and write[3] else ''}" for write in writes]


def check(module: Any, key: str, table: Any, group: Any, v1: "list[str] | None", v2: "list[str] | None") -> None:
    if v1 is not None:
        assert said(module.v1({key: table}, group)) == v1
    if v2 is not None:
        found = said(module.v2({key: table}, group))
        assert [text.removesuffix("?") if key == "memory" else text for text in found] == v2


@pytest.mark.parametrize(("table", "group", "v1", "v2"), MEMORY)
def test_memory(table: Any, group: Any, v1: Any, v2: Any) -> None:
    check(memory, "memory", table, group, v1, v2)


@pytest.mark.parametrize(("table", "group", "v1", "v2"), CPU)
def test_cpu(table: Any, group: Any, v1: Any, v2: Any) -> None:
    check(cpu, "cpu", table, group, v1, v2)


@pytest.mark.parametrize(("table", "group", "v1", "v2"), BLOCK)
def test_block_io(table: Any, group: Any, v1: Any, v2: Any) -> None:
    check(io, "blockIO", table, group, v1, v2)


def test_a_period_that_only_fits_the_new_quota_may_be_refused_at_first() -> None:
    first, *_, last = cpu.v1({"cpu": {"quota": 5000, "period": 10000}}, NEW)
    assert first[3:] == ((EINVAL,),)
    assert len(last) == 3


@pytest.mark.parametrize(("limit", "text"), [(5, "5"), (1, "1"), (0, "1"), (-1, "max")])
def test_pids(limit: int, text: str) -> None:
    assert said(pids.writes({"pids": {"limit": limit}}, NEW)) == [f"pids.max={text}"]


def test_no_pids_limit_is_no_write() -> None:
    assert pids.writes({"pids": {}}, NEW) == []


def test_huge_pages_and_their_reservations() -> None:
    resources: dict[str, object] = {"hugepageLimits": [{"pageSize": "2MB", "limit": 2 * M}]}
    v1 = ["hugetlb.2MB.limit_in_bytes=2097152", "hugetlb.2MB.rsvd.limit_in_bytes=2097152?"]
    assert said(hugetlb.v1(resources)) == v1
    assert said(hugetlb.v2(resources)) == ["hugetlb.2MB.max=2097152", "hugetlb.2MB.rsvd.max=2097152?"]


def test_network_is_for_v1_only() -> None:
    resources: dict[str, object] = {"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]}}
    assert said(network.v1(resources)) == ["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"]
    with pytest.raises(InvalidArgument, match=r"linux\.resources\.network: .*cgroup v2 has no such controller"):
        network.v2(resources)
    assert network.v2({"network": {}}) == []


def test_rdma() -> None:
    resources: dict[str, object] = {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {}}}
    assert said(rdma.writes(resources)) == ["rdma.max=mlx5_1 hca_handle=3 hca_object=10000"]
    read = files(rdma_max="mlx5_1 hca_handle=3 hca_object=max\n")
    assert rdma.stats(read, "rdma.max") == {"mlx5_1": {"hca_handle": 3, "hca_object": 2**32 - 1}}


@pytest.mark.parametrize(
    ("version", "module", "key", "table", "words"),
    [
        (2, memory, "memory", {"swap": M}, "unable to set swap limit without memory limit"),
        (2, memory, "memory", {"limit": 2 * M, "swap": M}, r"memory\+swap limit should be >= memory limit"),
        (1, memory, "memory", {"swappiness": 101}, r"memory\.swappiness must be 0 to 100"),
        (1, memory, "memory", {"disableOOMKiller": 1}, r"memory\.disableOOMKiller must be true or false"),
        (1, cpu, "cpu", {"shares": 1}, "the minimum allowed cpu-shares is 2"),
        (1, cpu, "cpu", {"shares": 1 << 20}, "the maximum allowed cpu-shares is 262144"),
        (2, cpu, "cpu", {"realtimeRuntime": 5}, r"cpu\.realtimeRuntime: cgroup v2 has no limits"),
        (1, io, "blockIO", {"weight": 5}, r"blockIO\.weight must be 10 to 1000"),
        (1, io, "blockIO", {"weightDevice": {}}, r"blockIO\.weightDevice must be an array"),
        (1, io, "blockIO", {"weightDevice": ["x"]}, r"blockIO\.weightDevice\[0\] must be an object"),
        (2, io, "blockIO", {"throttleReadBpsDevice": [{"major": 8, "rate": 1}]}, r"Device\[0\]\.minor is missing"),
        (
            2,
            io,
            "blockIO",
            {"throttleReadBpsDevice": [{**DEVICE, "rate": "1"}]},
            r"Device\[0\]\.rate must be a whole",
        ),
    ],
)
def test_a_value_that_cannot_be_is_named(version: int, module: Any, key: str, table: Any, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        (module.v1 if version == 1 else module.v2)({key: table}, NEW)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"hugepageLimits": [{"limit": 1}]}, r"hugepageLimits\[0\]\.pageSize must be a size"),
        ({"hugepageLimits": [{"pageSize": "2MB"}]}, r"hugepageLimits\[0\]\.limit is missing"),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": -1}]}, r"limit must not be negative"),
    ],
)
def test_huge_pages_that_cannot_be_are_named(resources: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        hugetlb.v1(resources)


def test_check_before_update_refuses_what_would_kill() -> None:
    resources: dict[str, object] = {"memory": {"limit": M, "checkBeforeUpdate": True}}
    with pytest.raises(FailedPrecondition, match="is not above the usage of 1048577"):
        memory.v2(resources, files(memory_current=str(M + 1)))
    assert memory.v2(resources, files(memory_current=str(M - 1)))
    del resources["memory"]["checkBeforeUpdate"]  # type: ignore[attr-defined]
    assert memory.v2(resources, files(memory_current=str(M + 1)))


@pytest.mark.parametrize(("weight", "value"), [(10, 1), (100, 910), (500, 4950), (1000, 10000)])
def test_block_weights_map_onto_io_weights_in_a_straight_line(weight: int, value: int) -> None:
    assert io.io_weight(weight) == value


def test_counters_of_v1_in_whole() -> None:
    read = files(
        memory_memsw_usage_in_bytes="5\n",
        memory_memsw_max_usage_in_bytes="7\n",
        memory_memsw_limit_in_bytes="9\n",
        memory_memsw_failcnt="1\n",
        memory_stat="cache 3\n",
        cpuacct_usage_percpu="1 2 \n",
        cpuacct_usage_all="cpu user system\n0 10 20\n1 30 40\n",
        cpuset_cpus="0-1,3\n",
        cpuset_mems="0\n",
        cpuset_memory_migrate="1\n",
        cpuset_sched_relax_domain_level="-1\n",
        blkio_throttle_io_serviced_recursive="8:16 Read 4\n8:16 Write 5\n8:16 Total 9\nTotal 9\n",
    )
    stats = memory.stats_v1(read, True)
    assert (stats.swap.usage, stats.swap.max, stats.swap.limit, stats.swap.failcnt, stats.cache) == (5, 7, 9, 1, 3)
    processor = cpu.stats_v1(read, True)
    assert (processor.per_cpu, processor.per_cpu_user, processor.per_cpu_kernel) == ([1, 2], [10, 30], [20, 40])
    sets = cpuset.stats_v1(read)
    assert (sets.cpus, sets.mems, sets.flags["memory_migrate"]) == ([0, 1, 3], [0], 1)
    assert sets.sched_relax_domain_level == -1
    assert io.tables_v1(read) == {
        "ioServicedRecursive": [(8, 16, "Read", 4), (8, 16, "Write", 5), (8, 16, "Total", 9)]
    }


def test_counters_of_v2_in_whole() -> None:
    read = files(
        memory_current="10",
        memory_max="100",
        memory_swap_current="5",
        memory_swap_max="max",
        io_stat="8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
    )
    stats = memory.stats_v2(read, True)
    assert (stats.swap.usage, stats.swap.limit) == (15, 2**64 - 1)
    tables = io.tables_v2(read)
    assert tables["ioServiceBytesRecursive"] == [(8, 0, "Read", 1), (8, 0, "Write", 2)]
    assert tables["ioServicedRecursive"] == [(8, 0, "Read", 3), (8, 0, "Write", 4)]


def test_pressure() -> None:
    text = "some avg10=0.50 avg60=1.00 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    found = cpu.pressure(text)
    assert (found["some"].avg10, found["some"].total, found["full"].total) == (0.5, 42, 7)
    assert cpu.pressure("") == {}
