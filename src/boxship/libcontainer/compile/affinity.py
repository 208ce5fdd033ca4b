"""Which CPUs a process may run on: all that its cgroup allows, or for an exec what process.execCPUAffinity says.

A creator that is bound to some CPUs (taskset(1), a cpuset of its own) must not hand that on.
The kernel cuts a mask to what the cpuset allows, and widens it again when the cpuset grows (sched_setaffinity(2)), so
"all" is said by a mask of ones, once the cgroups are entered.
``process.execCPUAffinity`` "is not applicable to the container's init process" (runtime-spec 1.3, config.md): the one
in config.json is for execs that name none.
"""

from boxship.errors import InvalidArgument
from boxship.libcontainer.plan.ops import Affinity

from .context import Context

ALL = b"\xff" * 1024  # more CPUs than a kernel can be configured for


def everywhere(c: Context) -> None:
    """Run wherever the cgroup allows."""
    c.purpose("run on any CPU of the cgroup")
    c.add(Affinity(ALL))


def mask(text: str, where: str) -> bytes:
    """A list of CPUs, like 0-3,7, as sched_setaffinity(2) takes it. Raises InvalidArgument naming ``where``."""
    found = 0
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = (first, last) if dash else (first,)
        if not first and not dash:
            continue  # as runc has it: commas too many
        if not all(number.strip().isdigit() for number in numbers):
            raise InvalidArgument(f"{where}: {text!r} is not a list of CPUs", remedy="like 0-3,7")
        low, high = int(first), int(numbers[-1])
        if low > high or high >= 8 * len(ALL):
            raise InvalidArgument(f"{where}: {text!r} has an impossible range")
        found |= (1 << high + 1) - (1 << low)
    if not found:
        raise InvalidArgument(f"{where}: {text!r} names no CPU", remedy="like 0-3,7")
    return found.to_bytes((found.bit_length() + 63) // 64 * 8, "little")


def _wanted(c: Context, key: str) -> "bytes | None":
    text = (c.process.get("execCPUAffinity") or {}).get(key)
    return mask(text, f"process.execCPUAffinity.{key}") if text else None


def before_cgroups(c: Context) -> None:
    """An exec before it is in the container's cgroups: ``initial``."""
    wanted = _wanted(c, "initial")
    if wanted:
        c.purpose(f"run on CPUs {c.process['execCPUAffinity']['initial']} at first")
        c.add(Affinity(wanted))


def in_cgroups(c: Context) -> None:
    """An exec that is in the container's cgroups: ``final``; without any wish, all that they allow."""
    wanted = _wanted(c, "final")
    if wanted:
        c.purpose(f"run on CPUs {c.process['execCPUAffinity']['final']}")
        c.add(Affinity(wanted))
    elif not _wanted(c, "initial"):
        everywhere(c)
