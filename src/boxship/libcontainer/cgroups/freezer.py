"""The freezer: every process of a group stopped at once, without signals that it could see.

v1: freezer.state FROZEN or THAWED, with FREEZING on the way (admin-guide/cgroup-v1/freezer-subsystem.rst).
v2: cgroup.freeze 1 or 0, done when cgroup.events says ``frozen 1``.
"""

from .writes import Read, Write


def v1(frozen: bool) -> Write:
    return ("freezer", "freezer.state", "FROZEN" if frozen else "THAWED")


def v2(frozen: bool) -> Write:
    return ("", "cgroup.freeze", "1" if frozen else "0")


def is_frozen_v1(read: Read) -> bool:
    """Whether all have stopped; FREEZING, on the way there, counts as not yet."""
    return read("freezer", "freezer.state").strip() == "FROZEN"


def is_frozen_v2(read: Read) -> bool:
    return "frozen 1" in read("", "cgroup.events")
