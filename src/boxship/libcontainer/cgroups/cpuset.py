"""The counters of v1 cpusets, for ``events``; what is set is in ``cpu``, where the spec has it."""

from .writes import Read, counter

# As runc names them, with the file that each is in.
FLAGS = ("cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page",
         "memory_spread_slab", "memory_pressure", "sched_load_balance")  # fmt: skip


class CpusetStats:
    """The processors and memory nodes that may be used, and the group's switches by the names of ``FLAGS``."""

    __slots__ = ("cpus", "flags", "mems", "sched_relax_domain_level")

    def __init__(self) -> None:
        self.cpus: list[int] = []
        self.mems: list[int] = []
        self.flags: dict[str, int] = dict.fromkeys(FLAGS, 0)
        self.sched_relax_domain_level = 0


def numbers(ranges: str) -> "list[int]":
    """``0-2,5`` as numbers (cpuset(7), List format)."""
    found: list[int] = []
    for part in ranges.strip().split(","):
        first, _, last = part.strip().partition("-")
        if first:
            found += range(int(first), int(last or first) + 1)
    return found


def stats_v1(read: Read) -> CpusetStats:
    stats = CpusetStats()
    stats.cpus, stats.mems = (numbers(read("cpuset", "cpuset." + name)) for name in ("cpus", "mems"))
    for name in FLAGS:
        stats.flags[name] = counter(read("cpuset", "cpuset." + name))
    level = read("cpuset", "cpuset.sched_relax_domain_level").strip()
    stats.sched_relax_domain_level = int(level or 0)
    return stats
