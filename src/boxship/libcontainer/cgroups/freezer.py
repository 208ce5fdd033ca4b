"""The freezer: every process of a group stopped at once, without signals that it could see.

v1: freezer.state FROZEN or THAWED, with FREEZING on the way (admin-guide/cgroup-v1/freezer-subsystem.rst).
v2: cgroup.freeze 1 or 0, done when cgroup.events says ``frozen 1``.
"""

from .writes import Read, Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .layout import Layout


def v1(frozen: bool) -> Write:
    return ("freezer", "freezer.state", "FROZEN" if frozen else "THAWED")


def v2(frozen: bool) -> Write:
    return ("", "cgroup.freeze", "1" if frozen else "0")


def is_frozen_v1(read: Read) -> bool:
    """Whether all have stopped; FREEZING, on the way there, counts as not yet."""
    return read("freezer", "freezer.state").strip() == "FROZEN"


def is_frozen_v2(read: Read) -> bool:
    return "frozen 1" in read("", "cgroup.events")


def thaw_process(layout: "Layout", pid: int) -> None:
    """Thaw the group that a process is in, whoever has moved it there: a killed process ends only when it runs.

    Best effort: what cannot be thawed does not end, and that is reported by who waits for it.
    """
    try:
        with open(f"/proc/{pid}/cgroup") as f:
            groups = [line.rstrip("\n").split(":", 2) for line in f]
    except OSError:
        return  # it is gone
    for _, controllers, path in groups:
        if not controllers and layout.mode == "v2":
            file, text = f"{layout.unified}{path}/cgroup.freeze", "0"
        elif "freezer" in controllers.split(",") and "freezer" in layout.v1:
            file, text = f"{layout.v1['freezer']}{path}/freezer.state", "THAWED"
        else:
            continue
        try:
            with open(file, "w") as f:
                f.write(text)
        except OSError:
            continue  # not ours to thaw
