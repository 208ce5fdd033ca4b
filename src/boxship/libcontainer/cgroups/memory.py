"""The memory controller: runtime-spec ``linux.resources.memory`` and its counters.

Kernel: Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst, section Memory.
"""

from .writes import Read, Write, cap, number, table

MAX = 2**63 - 1  # what "no limit" reads as on v1, rounded down to a page there


def v1(resources: "dict[str, object]", read: Read) -> "list[Write]":
    memory = table(resources, "memory")
    limit = number(memory, "memory", "limit")
    swap = number(memory, "memory", "swap")
    writes: list[Write] = []
    pair: list[Write] = []
    if limit:
        pair.append(("memory", "memory.limit_in_bytes", str(limit)))
    if swap:
        pair.append(("memory", "memory.memsw.limit_in_bytes", str(swap)))
    # memory <= memory+swap must hold after each write: a raised limit goes in after the raised sum.
    if len(pair) == 2 and limit:
        current = read("memory", "memory.memsw.limit_in_bytes").strip()
        if current.isdigit() and (limit > int(current) or limit == -1):
            pair.reverse()
    writes += pair
    for key, file in (
        ("reservation", "memory.soft_limit_in_bytes"),
        ("kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
    ):
        value = number(memory, "memory", key)
        if value:
            writes.append(("memory", file, str(value)))
    swappiness = number(memory, "memory", "swappiness")
    if swappiness is not None:
        writes.append(("memory", "memory.swappiness", str(swappiness)))
    if memory.get("disableOOMKiller") is True:
        writes.append(("memory", "memory.oom_control", "1"))
    return writes


def v2(resources: "dict[str, object]", read: Read) -> "list[Write]":
    memory = table(resources, "memory")
    limit = number(memory, "memory", "limit")
    swap = number(memory, "memory", "swap")
    reservation = number(memory, "memory", "reservation")
    writes: list[Write] = []
    if swap:
        # The spec's swap is memory plus swap, v2's is swap alone.
        if swap < 0:
            only = "max"
        elif limit and limit > 0 and swap >= limit:
            only = str(swap - limit)
        else:
            only = ""  # a sum without its first term says nothing on v2
        if only:
            writes.append(("memory", "memory.swap.max", only))
    if limit:
        writes.append(("memory", "memory.max", cap(limit)))
    if reservation:
        writes.append(("memory", "memory.low", cap(reservation)))
    return writes


class MemoryStats:
    """Bytes, but for ``failcnt`` (times that the limit was hit) and ``oom_kill`` (processes killed).

    ``usage`` counts page cache; ``detail`` is memory.stat as the kernel names it.
    """

    __slots__ = ("detail", "failcnt", "limit", "max_usage", "oom_kill", "usage")

    def __init__(self) -> None:
        self.usage = self.max_usage = self.failcnt = self.oom_kill = 0
        self.limit = MAX
        self.detail: dict[str, int] = {}


def _number(text: str, otherwise: int = 0) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else otherwise


def _pairs(text: str) -> "dict[str, int]":
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            found[key] = int(value)
    return found


def stats_v1(read: Read) -> MemoryStats:
    stats = MemoryStats()
    stats.usage = _number(read("memory", "memory.usage_in_bytes"))
    stats.max_usage = _number(read("memory", "memory.max_usage_in_bytes"))
    stats.failcnt = _number(read("memory", "memory.failcnt"))
    stats.limit = _number(read("memory", "memory.limit_in_bytes"), MAX)
    stats.detail = _pairs(read("memory", "memory.stat"))
    stats.oom_kill = _pairs(read("memory", "memory.oom_control")).get("oom_kill", 0)
    return stats


def stats_v2(read: Read) -> MemoryStats:
    stats = MemoryStats()
    stats.usage = _number(read("memory", "memory.current"))
    stats.max_usage = _number(read("memory", "memory.peak"))
    stats.limit = _number(read("memory", "memory.max"), MAX)
    stats.detail = _pairs(read("memory", "memory.stat"))
    events = _pairs(read("memory", "memory.events"))
    stats.failcnt = events.get("max", 0)
    stats.oom_kill = events.get("oom_kill", 0)
    return stats
