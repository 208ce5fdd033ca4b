"""The memory controller: runtime-spec ``linux.resources.memory`` and its counters.

Kernel: Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst, section Memory.
The spec's ``swap`` is memory and swap together, as on v1; v2 counts swap alone.
``kernel`` and ``kernelTCP`` are ignored: the kernel has no such limits any more (5.4, 5.11), and ``useHierarchy``
cannot be chosen any more either.
"""

from errno import ENOENT

from boxship.errors import FailedPrecondition, InvalidArgument

from .writes import UNLIMITED, Read, Write, cap, counter, number, pairs, table, truth

MAX = 2**63 - 1  # what "no limit" reads as on v1, rounded down to a page there


def v1(resources: "dict[str, object]", read: Read) -> "list[Write]":
    memory = table(resources, "memory")
    if not memory:
        return []
    limit = number(memory, "memory", "limit")
    swap = number(memory, "memory", "swap")
    if limit == -1 and not swap and read("memory", "memory.memsw.limit_in_bytes"):
        swap = -1  # no limit on memory, then none on both together
    _check_usage(memory, limit, None, read, "memory.usage_in_bytes")
    writes: list[Write] = []
    pair: list[Write] = []
    if limit:
        pair.append(("memory", "memory.limit_in_bytes", str(limit)))
    if swap:
        pair.append(("memory", "memory.memsw.limit_in_bytes", str(swap)))
    # memory <= memory+swap must hold after each write: a raised sum goes in before the limit.
    if len(pair) == 2 and swap and (swap == -1 or counter(read("memory", "memory.limit_in_bytes")) < swap):
        pair.reverse()
    writes += pair
    reservation = number(memory, "memory", "reservation")
    if reservation:
        writes.append(("memory", "memory.soft_limit_in_bytes", str(reservation)))
    swappiness = number(memory, "memory", "swappiness")
    if swappiness is not None and swappiness != -1:
        if not 0 <= swappiness <= 100:
            raise InvalidArgument(f"linux.resources.memory.swappiness must be 0 to 100, not {swappiness}")
        writes.append(("memory", "memory.swappiness", str(swappiness)))
    if truth(memory, "memory", "disableOOMKiller"):
        writes.append(("memory", "memory.oom_control", "1"))
    return writes


def _check_usage(memory: "dict[str, object]", limit: "int | None", swap: "int | None", read: Read, file: str) -> None:
    """checkBeforeUpdate: a limit below what is in use is refused, rather than met by killing."""
    if not truth(memory, "memory", "checkBeforeUpdate"):
        return
    used = counter(read("memory", file))
    for key, value in (("limit", limit), ("swap", swap)):
        if value is not None and 0 < value <= used:
            raise FailedPrecondition(
                f"linux.resources.memory.{key} {value} is not above the usage of {used}",
                remedy="free memory first, or leave checkBeforeUpdate out",
            )


def _swap_alone(limit: "int | None", swap: "int | None", read: Read) -> "int | None":
    """v2's swap limit: -1 for none, None to leave it as it is. What was not given is what is in force."""
    if not swap:
        if limit == -1:
            return -1
        sum_changes = limit and counter(read("memory", "memory.swap.max"), UNLIMITED)
        if not sum_changes or sum_changes == UNLIMITED:
            return None
        old = counter(read("memory", "memory.max"), UNLIMITED)
        swap = 0 if old == UNLIMITED else old + sum_changes  # the sum that was asked for stays
        if not swap:
            return None
    elif swap < 0 or limit == -1:
        return swap
    if not limit:
        limit = counter(read("memory", "memory.max"), UNLIMITED)
        if limit == UNLIMITED:
            raise InvalidArgument(
                "linux.resources.memory.swap: unable to set swap limit without memory limit",
                remedy="set linux.resources.memory.limit too",
            )
    if swap < limit:
        raise InvalidArgument(
            f"linux.resources.memory.swap {swap}: memory+swap limit should be >= memory limit, which is {limit}"
        )
    return swap - limit


def v2(resources: "dict[str, object]", read: Read) -> "list[Write]":
    memory = table(resources, "memory")
    if not memory:
        return []
    limit = number(memory, "memory", "limit")
    swap = number(memory, "memory", "swap")
    reservation = number(memory, "memory", "reservation")
    _check_usage(memory, limit, swap, read, "memory.current")
    writes: list[Write] = []
    only = _swap_alone(limit, swap, read)
    if only is not None:
        # A kernel without swap accounting cannot swap the group out either: "none" is true there.
        tolerated = (ENOENT,) if only <= 0 else ()
        writes.append(("memory", "memory.swap.max", cap(only), tolerated))
    if limit:
        writes.append(("memory", "memory.max", cap(limit)))
    if reservation:
        writes.append(("memory", "memory.low", cap(reservation)))
    return writes


class Usage:
    """One account: bytes in use, the most there ever were, the limit, and how often that was hit."""

    __slots__ = ("failcnt", "limit", "max", "usage")

    def __init__(self, usage: int = 0, max: int = 0, limit: int = 0, failcnt: int = 0) -> None:
        self.usage = usage
        self.max = max
        self.limit = limit
        self.failcnt = failcnt


class MemoryStats:
    """Bytes, but for ``failcnt`` (times that the limit was hit) and ``oom_kill`` (processes killed).

    ``usage`` counts page cache; ``cache`` is that alone; ``detail`` is memory.stat as the kernel names it.
    ``swap`` is memory and swap together on v1 and v2 alike; ``kernel`` and ``kernel_tcp`` exist on v1 only.
    """

    __slots__ = ("cache", "detail", "failcnt", "kernel", "kernel_tcp", "limit", "max_usage", "oom_kill", "swap",
                 "usage")  # fmt: skip

    def __init__(self) -> None:
        self.usage = self.max_usage = self.failcnt = self.oom_kill = self.cache = 0
        self.limit = MAX
        self.detail: dict[str, int] = {}
        self.swap = self.kernel = self.kernel_tcp = Usage()


def _account(read: Read, name: str) -> Usage:
    return Usage(
        *(
            counter(read("memory", f"memory.{name}.{file}"))
            for file in ("usage_in_bytes", "max_usage_in_bytes", "limit_in_bytes", "failcnt")
        )
    )


def stats_v1(read: Read, whole: bool = False) -> MemoryStats:
    stats = MemoryStats()
    stats.usage = counter(read("memory", "memory.usage_in_bytes"))
    stats.max_usage = counter(read("memory", "memory.max_usage_in_bytes"))
    stats.failcnt = counter(read("memory", "memory.failcnt"))
    stats.limit = counter(read("memory", "memory.limit_in_bytes"), MAX)
    stats.detail = pairs(read("memory", "memory.stat"))
    stats.cache = stats.detail.get("cache", 0)
    stats.oom_kill = pairs(read("memory", "memory.oom_control")).get("oom_kill", 0)
    if whole:
        stats.swap, stats.kernel, stats.kernel_tcp = (_account(read, name) for name in ("memsw", "kmem", "kmem.tcp"))
    return stats


def stats_v2(read: Read, whole: bool = False) -> MemoryStats:
    stats = MemoryStats()
    stats.usage = counter(read("memory", "memory.current"))
    stats.max_usage = counter(read("memory", "memory.peak"))
    stats.limit = counter(read("memory", "memory.max"), UNLIMITED)
    stats.detail = pairs(read("memory", "memory.stat"))
    stats.cache = stats.detail.get("file", 0)
    events = pairs(read("memory", "memory.events"))
    stats.failcnt = events.get("max", 0)
    stats.oom_kill = events.get("oom_kill", 0)
    if whole:
        limit = counter(read("memory", "memory.swap.max"))
        if limit != UNLIMITED:
            limit = min(limit + stats.limit, UNLIMITED)
        stats.swap = Usage(counter(read("memory", "memory.swap.current")) + stats.usage, 0, limit)
    return stats
