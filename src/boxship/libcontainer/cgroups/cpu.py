"""The cpu and cpuacct controllers: runtime-spec ``linux.resources.cpu`` and the counters; cpuset's settings too.

Kernel: scheduler/sched-bwc.rst, admin-guide/cgroup-v1/cpusets.rst, admin-guide/cgroup-v2.rst.
Quota, period and burst are checked against each other and against the parent's at each write, so which order works
depends on the old values: what goes in first may be refused (EINVAL), and is written again behind the quota.
"""

from errno import EINVAL, ENOENT

from boxship.errors import InvalidArgument

from .writes import Read, Write, number, pairs, table, text

LEAST_SHARES, MOST_SHARES = 2, 262144  # kernel/sched/sched.h: MIN_SHARES, MAX_SHARES


def _realtime(cpu: "dict[str, object]") -> "list[Write]":
    period = number(cpu, "cpu", "realtimePeriod")
    runtime = number(cpu, "cpu", "realtimeRuntime")
    writes: list[Write] = []
    if period:
        writes.append(("cpu", "cpu.rt_period_us", str(period), (EINVAL,) if runtime else ()))
    if runtime:
        writes.append(("cpu", "cpu.rt_runtime_us", str(runtime)))
        if period:
            writes.append(("cpu", "cpu.rt_period_us", str(period)))
    return writes


def _sets(cpu: "dict[str, object]") -> "list[Write]":
    values = [(key, text(cpu, "cpu", key)) for key in ("cpus", "mems")]
    return [("cpuset", "cpuset." + key, value) for key, value in values if value]


def v1(resources: "dict[str, object]", read: Read) -> "list[Write]":
    cpu = table(resources, "cpu")
    if not cpu:
        return []
    writes: list[Write] = []
    shares = number(cpu, "cpu", "shares")
    period = number(cpu, "cpu", "period")
    quota = number(cpu, "cpu", "quota")
    burst = number(cpu, "cpu", "burst")
    idle = number(cpu, "cpu", "idle")
    if shares:
        # The kernel takes the nearest value that it can; nobody would learn that it is another one.
        if shares < LEAST_SHARES:
            raise InvalidArgument(f"linux.resources.cpu.shares: the minimum allowed cpu-shares is {LEAST_SHARES}")
        if shares > MOST_SHARES:
            raise InvalidArgument(f"linux.resources.cpu.shares: the maximum allowed cpu-shares is {MOST_SHARES}")
        writes.append(("cpu", "cpu.shares", str(shares)))
    if period:
        writes.append(("cpu", "cpu.cfs_period_us", str(period), (EINVAL,) if quota else ()))
    if burst is not None:
        # Linux 5.14 has it; without it there is nothing that a burst of 0 would have to forbid.
        writes.append(("cpu", "cpu.cfs_burst_us", str(burst), (ENOENT, EINVAL) if quota else (ENOENT,)))
    if quota:
        writes.append(("cpu", "cpu.cfs_quota_us", str(quota)))
        if period:
            writes.append(("cpu", "cpu.cfs_period_us", str(period)))
        if burst:
            writes.append(("cpu", "cpu.cfs_burst_us", str(burst), (ENOENT,)))
    if idle is not None:
        writes.append(("cpu", "cpu.idle", str(idle)))
    return writes + _realtime(cpu) + _sets(cpu)


def weight(shares: int) -> int:
    """v1 cpu.shares (2 to 262144, 1024 by default) as a v2 cpu.weight (1 to 10000, 100 by default).

    A quadratic through the three pairs (2, 1), (1024, 100), (262144, 10000) in logarithms, as runc 1.4 and
    crun 1.22 have it: the older straight line gave the default container 39 instead of 100.
    """
    from math import ceil, log2

    if shares <= LEAST_SHARES:
        return 1
    if shares >= MOST_SHARES:
        return 10000
    exponent = log2(shares)
    return ceil(10 ** ((exponent * exponent + 125 * exponent) / 612.0 - 7.0 / 34.0))


def v2(resources: "dict[str, object]", read: Read) -> "list[Write]":
    cpu = table(resources, "cpu")
    if not cpu:
        return []
    writes: list[Write] = []
    shares = number(cpu, "cpu", "shares")
    quota = number(cpu, "cpu", "quota")
    period = number(cpu, "cpu", "period")
    idle = number(cpu, "cpu", "idle")
    burst = number(cpu, "cpu", "burst")
    realtime = {key: number(cpu, "cpu", key) for key in ("realtimePeriod", "realtimeRuntime")}
    if idle is not None:
        writes.append(("cpu", "cpu.idle", str(idle)))
    if shares and not idle:  # an idle group has no weight to set
        writes.append(("cpu", "cpu.weight", str(weight(shares))))
    if burst is not None:
        writes.append(("cpu", "cpu.max.burst", str(burst), (ENOENT, EINVAL) if quota else (ENOENT,)))
    if quota or period:
        # A word alone changes the quota and leaves the period; a period needs the quota that is in force beside it.
        line = str(quota) if quota and quota > 0 else "max"
        if not quota:
            line = read("cpu", "cpu.max").split(" ")[0].strip() or "max"
        writes.append(("cpu", "cpu.max", f"{line} {period}" if period else line))
        if burst:
            writes.append(("cpu", "cpu.max.burst", str(burst), (ENOENT,)))
    for key, value in realtime.items():
        if value:
            raise InvalidArgument(
                f"linux.resources.cpu.{key}: cgroup v2 has no limits on realtime processes", remedy="leave it out"
            )
    return writes + _sets(cpu)


class Pressure:
    """How long processes had to wait (PSI, accounting/psi.rst): percentages, and microseconds in all."""

    __slots__ = ("avg10", "avg60", "avg300", "total")

    def __init__(self, avg10: float, avg60: float, avg300: float, total: int) -> None:
        self.avg10 = avg10
        self.avg60 = avg60
        self.avg300 = avg300
        self.total = total


def pressure(text: str) -> "dict[str, Pressure]":
    """``some`` and ``full`` of a pressure file; empty when this kernel keeps none."""
    found = {}
    for line in text.splitlines():
        kind, *words = line.split()
        values = dict(word.split("=", 1) for word in words if "=" in word)
        if kind in ("some", "full"):
            found[kind] = Pressure(
                float(values.get("avg10", 0)), float(values.get("avg60", 0)), float(values.get("avg300", 0)),
                int(values.get("total", 0)),
            )  # fmt: skip
    return found


class CpuStats:
    """Nanoseconds of processor time, and the counts of periods in which the quota held the group back.

    ``per_cpu``, ``per_cpu_kernel`` and ``per_cpu_user`` are nanoseconds by processor, v1 only; with v2 ``bursts`` and
    ``burst_time`` count the periods in which the quota was exceeded by saved time.
    """

    __slots__ = ("burst_time", "bursts", "per_cpu", "per_cpu_kernel", "per_cpu_user", "periods", "system",
                 "throttled_periods", "throttled_time", "total", "user")  # fmt: skip

    def __init__(self) -> None:
        self.total = self.user = self.system = 0
        self.periods = self.throttled_periods = self.throttled_time = 0
        self.bursts = self.burst_time = 0
        self.per_cpu: list[int] = []
        self.per_cpu_kernel: list[int] = []
        self.per_cpu_user: list[int] = []


def stats_v1(read: Read, whole: bool = False) -> CpuStats:
    stats = CpuStats()
    for attribute, file in (
        ("total", "cpuacct.usage"),
        ("user", "cpuacct.usage_user"),
        ("system", "cpuacct.usage_sys"),
    ):
        text_value = read("cpuacct", file).strip()
        if text_value.isdigit():
            setattr(stats, attribute, int(text_value))
    counts = pairs(read("cpu", "cpu.stat"))
    stats.periods = counts.get("nr_periods", 0)
    stats.throttled_periods = counts.get("nr_throttled", 0)
    stats.throttled_time = counts.get("throttled_time", 0)
    if whole:
        stats.per_cpu = [int(value) for value in read("cpuacct", "cpuacct.usage_percpu").split()]
        for line in read("cpuacct", "cpuacct.usage_all").splitlines()[1:]:
            _, user, system = line.split()
            stats.per_cpu_user.append(int(user))
            stats.per_cpu_kernel.append(int(system))
    return stats


def stats_v2(read: Read, whole: bool = False) -> CpuStats:
    counts = pairs(read("cpu", "cpu.stat"))
    stats = CpuStats()
    stats.total = counts.get("usage_usec", 0) * 1000
    stats.user = counts.get("user_usec", 0) * 1000
    stats.system = counts.get("system_usec", 0) * 1000
    stats.periods = counts.get("nr_periods", 0)
    stats.throttled_periods = counts.get("nr_throttled", 0)
    stats.throttled_time = counts.get("throttled_usec", 0) * 1000
    stats.bursts = counts.get("nr_bursts", 0)
    stats.burst_time = counts.get("burst_usec", 0) * 1000
    return stats
