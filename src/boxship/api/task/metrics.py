"""The metrics messages in StatsResponse: one set for cgroup v1 (and hybrid) hosts, one for v2.

Only what our runtime measures is declared; other fields are kept as unknown.
Field numbers: github.com/containerd/cgroups cgroup1/stats/metrics.proto, cgroup2/stats/metrics.proto.
"""

from boxship.protobuf import Message, message, repeated, string, uint64


class PidsStat(Message, name="io.containerd.cgroups.v1.PidsStat"):
    """``limit`` 0 is none."""

    current: int = uint64(1)
    limit: int = uint64(2)


class CPUUsage(Message, name="io.containerd.cgroups.v1.CPUUsage"):
    """Nanoseconds."""

    total: int = uint64(1)
    kernel: int = uint64(2)
    user: int = uint64(3)


class Throttle(Message, name="io.containerd.cgroups.v1.Throttle"):
    """Times in nanoseconds."""

    periods: int = uint64(1)
    throttled_periods: int = uint64(2)
    throttled_time: int = uint64(3)


class CPUStat(Message, name="io.containerd.cgroups.v1.CPUStat"):
    usage: CPUUsage | None = message(1, CPUUsage)
    throttling: Throttle | None = message(2, Throttle)


class MemoryEntry(Message, name="io.containerd.cgroups.v1.MemoryEntry"):
    """Bytes."""

    limit: int = uint64(1)
    usage: int = uint64(2)
    max: int = uint64(3)
    failcnt: int = uint64(4)


class MemoryStat(Message, name="io.containerd.cgroups.v1.MemoryStat"):
    """Named as memory.stat of cgroup v1 names them."""

    cache: int = uint64(1)
    rss: int = uint64(2)
    rss_huge: int = uint64(3)
    mapped_file: int = uint64(4)
    dirty: int = uint64(5)
    writeback: int = uint64(6)
    pg_pg_in: int = uint64(7)
    pg_pg_out: int = uint64(8)
    pg_fault: int = uint64(9)
    pg_maj_fault: int = uint64(10)
    inactive_anon: int = uint64(11)
    active_anon: int = uint64(12)
    inactive_file: int = uint64(13)
    active_file: int = uint64(14)
    unevictable: int = uint64(15)
    hierarchical_memory_limit: int = uint64(16)
    hierarchical_swap_limit: int = uint64(17)
    total_cache: int = uint64(18)
    total_rss: int = uint64(19)
    total_inactive_file: int = uint64(29)
    total_active_file: int = uint64(30)
    usage: MemoryEntry | None = message(33, MemoryEntry)


class MemoryOomControl(Message, name="io.containerd.cgroups.v1.MemoryOomControl"):
    oom_kill_disable: int = uint64(1)
    under_oom: int = uint64(2)
    oom_kill: int = uint64(3)


class BlkIOEntry(Message, name="io.containerd.cgroups.v1.BlkIOEntry"):
    """``op`` is Read or Write."""

    op: str = string(1)
    device: str = string(2)
    major: int = uint64(3)
    minor: int = uint64(4)
    value: int = uint64(5)


class BlkIOStat(Message, name="io.containerd.cgroups.v1.BlkIOStat"):
    io_service_bytes_recursive: list[BlkIOEntry] = repeated(1, BlkIOEntry)
    io_serviced_recursive: list[BlkIOEntry] = repeated(2, BlkIOEntry)


class MetricsV1(Message, name="io.containerd.cgroups.v1.Metrics"):
    """What Stats answers on a cgroup v1 or hybrid host."""

    pids: PidsStat | None = message(2, PidsStat)
    cpu: CPUStat | None = message(3, CPUStat)
    memory: MemoryStat | None = message(4, MemoryStat)
    blkio: BlkIOStat | None = message(5, BlkIOStat)
    memory_oom_control: MemoryOomControl | None = message(9, MemoryOomControl)


class PidsStatV2(Message, name="io.containerd.cgroups.v2.PidsStat"):
    """``limit`` 0 is none."""

    current: int = uint64(1)
    limit: int = uint64(2)


class CPUStatV2(Message, name="io.containerd.cgroups.v2.CPUStat"):
    """Times in microseconds."""

    usage_usec: int = uint64(1)
    user_usec: int = uint64(2)
    system_usec: int = uint64(3)
    nr_periods: int = uint64(4)
    nr_throttled: int = uint64(5)
    throttled_usec: int = uint64(6)


class MemoryStatV2(Message, name="io.containerd.cgroups.v2.MemoryStat"):
    """Bytes; named as memory.stat of cgroup v2 names them."""

    anon: int = uint64(1)
    file: int = uint64(2)
    kernel_stack: int = uint64(3)
    slab: int = uint64(4)
    sock: int = uint64(5)
    shmem: int = uint64(6)
    file_mapped: int = uint64(7)
    file_dirty: int = uint64(8)
    file_writeback: int = uint64(9)
    inactive_anon: int = uint64(11)
    active_anon: int = uint64(12)
    inactive_file: int = uint64(13)
    active_file: int = uint64(14)
    unevictable: int = uint64(15)
    pgfault: int = uint64(18)
    pgmajfault: int = uint64(19)
    usage: int = uint64(32)
    usage_limit: int = uint64(33)
    max_usage: int = uint64(36)


class IOEntryV2(Message, name="io.containerd.cgroups.v2.IOEntry"):
    major: int = uint64(1)
    minor: int = uint64(2)
    rbytes: int = uint64(3)
    wbytes: int = uint64(4)
    rios: int = uint64(5)
    wios: int = uint64(6)


class IOStatV2(Message, name="io.containerd.cgroups.v2.IOStat"):
    usage: list[IOEntryV2] = repeated(1, IOEntryV2)


class MemoryEventsV2(Message, name="io.containerd.cgroups.v2.MemoryEvents"):
    low: int = uint64(1)
    high: int = uint64(2)
    max: int = uint64(3)
    oom: int = uint64(4)
    oom_kill: int = uint64(5)


class MetricsV2(Message, name="io.containerd.cgroups.v2.Metrics"):
    """What Stats answers on a cgroup v2 host."""

    pids: PidsStatV2 | None = message(1, PidsStatV2)
    cpu: CPUStatV2 | None = message(2, CPUStatV2)
    memory: MemoryStatV2 | None = message(4, MemoryStatV2)
    io: IOStatV2 | None = message(6, IOStatV2)
    memory_events: MemoryEventsV2 | None = message(8, MemoryEventsV2)
