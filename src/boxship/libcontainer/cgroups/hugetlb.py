"""The hugetlb controller: runtime-spec ``linux.resources.hugepageLimits`` and its counters.

A page size is written as the kernel writes it in its files' names, like 2MB (cgroup-v1/hugetlb.rst).
Reservations have limits of their own since Linux 5.7; both get the same value, as runc does.
"""

import os
from errno import ENOENT

from boxship.errors import InvalidArgument

from .writes import Read, Write, counter, needed, objects, pairs, text


def _writes(resources: "dict[str, object]", suffix: str) -> "list[Write]":
    writes: list[Write] = []
    for path, rule in objects(resources.get("hugepageLimits"), "hugepageLimits"):
        size = text(rule, path, "pageSize")
        if not size or "/" in size:
            raise InvalidArgument(f"linux.resources.{path}.pageSize must be a size like 2MB, not {size!r}")
        limit = str(needed(rule, path, "limit"))
        writes.append(("hugetlb", f"hugetlb.{size}.{suffix}", limit))
        writes.append(("hugetlb", f"hugetlb.{size}.rsvd.{suffix}", limit, (ENOENT,)))
    return writes


def v1(resources: "dict[str, object]") -> "list[Write]":
    return _writes(resources, "limit_in_bytes")


def v2(resources: "dict[str, object]") -> "list[Write]":
    return _writes(resources, "max")


def page_sizes(directory: str = "/sys/kernel/mm/hugepages") -> "list[str]":
    """The sizes that this kernel has, as its control files spell them."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    sizes = []
    for name in names:  # hugepages-2048kB
        size = int(name.removeprefix("hugepages-").removesuffix("kB"))
        unit = 0
        while size >= 1024 and unit < 2:
            size //= 1024
            unit += 1
        sizes.append(f"{size}{('KB', 'MB', 'GB')[unit]}")
    return sorted(sizes)


class HugetlbStats:
    """Bytes in use, the most there ever were (v1), and how often the limit was hit."""

    __slots__ = ("failcnt", "max", "usage")

    def __init__(self, usage: int, max: int, failcnt: int) -> None:
        self.usage = usage
        self.max = max
        self.failcnt = failcnt


def stats_v1(read: Read) -> "dict[str, HugetlbStats]":
    found = {}
    for size in page_sizes():
        for prefix in (f"hugetlb.{size}.rsvd", f"hugetlb.{size}"):
            usage = read("hugetlb", prefix + ".usage_in_bytes")
            if usage:
                found[size] = HugetlbStats(
                    counter(usage),
                    counter(read("hugetlb", prefix + ".max_usage_in_bytes")),
                    counter(read("hugetlb", prefix + ".failcnt")),
                )
                break
    return found


def stats_v2(read: Read) -> "dict[str, HugetlbStats]":
    found = {}
    for size in page_sizes():
        usage = read("hugetlb", f"hugetlb.{size}.rsvd.current") or read("hugetlb", f"hugetlb.{size}.current")
        if usage:
            events = pairs(read("hugetlb", f"hugetlb.{size}.events"))
            found[size] = HugetlbStats(counter(usage), 0, events.get("max", 0))
    return found
