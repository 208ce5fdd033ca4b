"""The cpu, cpuacct and cpuset controllers: runtime-spec ``linux.resources.cpu`` and the counters.

Kernel: scheduler/sched-bwc.rst, admin-guide/cgroup-v1/cpusets.rst, admin-guide/cgroup-v2.rst.
"""

from .writes import Read, Write, number, table, text

_V1_FILES = (
    # (spec key, file); the period goes in before the quota, which the kernel checks against it
    ("shares", "cpu.shares"),
    ("realtimePeriod", "cpu.rt_period_us"),
    ("realtimeRuntime", "cpu.rt_runtime_us"),
    ("period", "cpu.cfs_period_us"),
    ("quota", "cpu.cfs_quota_us"),
    ("burst", "cpu.cfs_burst_us"),
    ("idle", "cpu.idle"),
)


def v1(resources: "dict[str, object]", read: Read) -> "list[Write]":
    cpu = table(resources, "cpu")
    writes: list[Write] = []
    for key, file in _V1_FILES:
        value = number(cpu, "cpu", key)
        if value or (key == "idle" and value is not None):
            writes.append(("cpu", file, str(value)))
    for key in ("cpus", "mems"):
        value_text = text(cpu, "cpu", key)
        if value_text:
            writes.append(("cpuset", "cpuset." + key, value_text))
    return writes


def weight(shares: int) -> int:
    """v1 cpu.shares (2 to 262144, 1024 by default) as a v2 cpu.weight (1 to 10000, 100 by default).

    A quadratic through the three pairs (2, 1), (1024, 100), (262144, 10000) in logarithms, as runc 1.4 and
    crun 1.22 have it: the older straight line gave the default container 39 instead of 100.
    """
    from math import ceil, log2

    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    exponent = log2(shares)
    return ceil(10 ** ((exponent * exponent + 125 * exponent) / 612.0 - 7.0 / 34.0))


def v2(resources: "dict[str, object]", read: Read) -> "list[Write]":
    cpu = table(resources, "cpu")
    writes: list[Write] = []
    shares = number(cpu, "cpu", "shares")
    quota = number(cpu, "cpu", "quota")
    period = number(cpu, "cpu", "period")
    idle = number(cpu, "cpu", "idle")
    burst = number(cpu, "cpu", "burst")
    if idle is not None:
        writes.append(("cpu", "cpu.idle", str(idle)))
    if shares and not idle:  # an idle group has no weight to set
        writes.append(("cpu", "cpu.weight", str(weight(shares))))
    if quota or period:
        line = str(quota) if quota and quota > 0 else "max"
        writes.append(("cpu", "cpu.max", line + " " + str(period) if period else line))
    if burst:
        writes.append(("cpu", "cpu.max.burst", str(burst)))
    for key in ("cpus", "mems"):
        value_text = text(cpu, "cpu", key)
        if value_text:
            writes.append(("cpuset", "cpuset." + key, value_text))
    return writes


class CpuStats:
    """Nanoseconds of processor time, and the counts of periods in which the quota held the group back."""

    __slots__ = ("periods", "system", "throttled_periods", "throttled_time", "total", "user")

    def __init__(self) -> None:
        self.total = self.user = self.system = 0
        self.periods = self.throttled_periods = self.throttled_time = 0


def _pairs(text: str) -> "dict[str, int]":
    return {
        key: int(value)
        for key, _, value in (line.partition(" ") for line in text.splitlines())
        if value.strip().isdigit()
    }


def stats_v1(read: Read) -> CpuStats:
    stats = CpuStats()
    for attribute, file in (
        ("total", "cpuacct.usage"),
        ("user", "cpuacct.usage_user"),
        ("system", "cpuacct.usage_sys"),
    ):
        text_value = read("cpuacct", file).strip()
        if text_value.isdigit():
            setattr(stats, attribute, int(text_value))
    counts = _pairs(read("cpu", "cpu.stat"))
    stats.periods = counts.get("nr_periods", 0)
    stats.throttled_periods = counts.get("nr_throttled", 0)
    stats.throttled_time = counts.get("throttled_time", 0)
    return stats


def stats_v2(read: Read) -> CpuStats:
    counts = _pairs(read("cpu", "cpu.stat"))
    stats = CpuStats()
    stats.total = counts.get("usage_usec", 0) * 1000
    stats.user = counts.get("user_usec", 0) * 1000
    stats.system = counts.get("system_usec", 0) * 1000
    stats.periods = counts.get("nr_periods", 0)
    stats.throttled_periods = counts.get("nr_throttled", 0)
    stats.throttled_time = counts.get("throttled_usec", 0) * 1000
    return stats
