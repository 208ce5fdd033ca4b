"""The pids controller: runtime-spec ``linux.resources.pids`` and its counters.

The file has the same name and meaning on v1 and v2 (admin-guide/cgroup-v1/pids.rst).
"""

from .writes import Read, Write, number, table


def writes(resources: "dict[str, object]", read: Read) -> "list[Write]":
    limit = number(table(resources, "pids"), "pids", "limit")
    if limit is None:
        return []
    # Below zero is no limit. 0 would forbid a first fork and systemd cannot say it: runc and we make it 1.
    return [("pids", "pids.max", "max" if limit < 0 else str(limit or 1))]


class PidsStats:
    """``current`` tasks, and the ``limit`` (0: none)."""

    __slots__ = ("current", "limit")

    def __init__(self, current: int, limit: int) -> None:
        self.current = current
        self.limit = limit


def stats(read: Read) -> PidsStats:
    current = read("pids", "pids.current").strip()
    limit = read("pids", "pids.max").strip()
    return PidsStats(int(current) if current.isdigit() else 0, int(limit) if limit.isdigit() else 0)
