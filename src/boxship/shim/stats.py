"""A container's counters as containerd's metrics messages, v1 for v1 and hybrid hosts, v2 for v2.

memory.stat has the same names as the message's fields, up to a few underscores, so they are copied by name.
"""

from ..api.task.metrics import (
    BlkIOEntry,
    BlkIOStat,
    CPUStat,
    CPUStatV2,
    CPUUsage,
    IOEntryV2,
    IOStatV2,
    MemoryEntry,
    MemoryEventsV2,
    MemoryOomControl,
    MemoryStat,
    MemoryStatV2,
    MetricsV1,
    MetricsV2,
    PidsStat,
    PidsStatV2,
    Throttle,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..libcontainer.cgroups import Stats
    from ..protobuf import Message

# memory.stat's word -> the message's, where they differ (cgroup v1).
V1_WORDS = {
    "pgpgin": "pg_pg_in",
    "pgpgout": "pg_pg_out",
    "pgfault": "pg_fault",
    "pgmajfault": "pg_maj_fault",
    "hierarchical_memsw_limit": "hierarchical_swap_limit",
}
UNLIMITED = (1 << 64) - 1


def _fill(message: "Message", detail: "dict[str, int]", words: "dict[str, str]") -> None:
    for word, value in detail.items():
        name = words.get(word, word)
        if name in message.fields_by_name:
            setattr(message, name, value)


def metrics_v1(stats: "Stats") -> MetricsV1:
    memory = MemoryStat(
        usage=MemoryEntry(
            limit=min(stats.memory.limit, UNLIMITED),
            usage=stats.memory.usage,
            max=stats.memory.max_usage,
            failcnt=stats.memory.failcnt,
        )
    )
    _fill(memory, stats.memory.detail, V1_WORDS)
    blkio = BlkIOStat()
    for major, minor, read_bytes, write_bytes, reads, writes in stats.io:
        for op, size, count in (("Read", read_bytes, reads), ("Write", write_bytes, writes)):
            blkio.io_service_bytes_recursive.append(BlkIOEntry(op=op, major=major, minor=minor, value=size))
            blkio.io_serviced_recursive.append(BlkIOEntry(op=op, major=major, minor=minor, value=count))
    cpu = stats.cpu
    return MetricsV1(
        pids=PidsStat(current=stats.pids.current, limit=stats.pids.limit),
        cpu=CPUStat(
            usage=CPUUsage(total=cpu.total, kernel=cpu.system, user=cpu.user),
            throttling=Throttle(
                periods=cpu.periods,
                throttled_periods=cpu.throttled_periods,
                throttled_time=cpu.throttled_time,
            ),
        ),
        memory=memory,
        blkio=blkio,
        memory_oom_control=MemoryOomControl(oom_kill=stats.memory.oom_kill),
    )


def metrics_v2(stats: "Stats") -> MetricsV2:
    memory = MemoryStatV2(
        usage=stats.memory.usage,
        usage_limit=min(stats.memory.limit, UNLIMITED),
        max_usage=stats.memory.max_usage,
    )
    _fill(memory, stats.memory.detail, {})
    cpu = stats.cpu
    return MetricsV2(
        pids=PidsStatV2(current=stats.pids.current, limit=stats.pids.limit),
        cpu=CPUStatV2(
            usage_usec=cpu.total // 1000, user_usec=cpu.user // 1000, system_usec=cpu.system // 1000,
            nr_periods=cpu.periods, nr_throttled=cpu.throttled_periods,
            throttled_usec=cpu.throttled_time // 1000,
        ),
        memory=memory,
        io=IOStatV2(
            usage=[
                IOEntryV2(
                    major=major, minor=minor, rbytes=read_bytes, wbytes=write_bytes, rios=reads, wios=writes
                )
                for major, minor, read_bytes, write_bytes, reads, writes in stats.io
            ]
        ),
        memory_events=MemoryEventsV2(oom_kill=stats.memory.oom_kill),
    )  # fmt: skip


def metrics(stats: "Stats") -> "Message":
    """In the form of this host's cgroup version."""
    from ..libcontainer.cgroups import detect

    return metrics_v2(stats) if detect().mode == "v2" else metrics_v1(stats)
