"""Which CPUs a process may run on: all that its cgroup allows, or for an exec what process.execCPUAffinity says.

A creator that is bound to some CPUs (taskset(1), a cpuset of its own) must not hand that on.
The kernel cuts a mask to what the cpuset allows, and widens it again when the cpuset grows (sched_setaffinity(2)), so
"all" is said by a mask of ones, once the cgroups are entered.
"""

from boxship.errors import InvalidArgument
from boxship.libcontainer.plan.ops import Affinity

from .context import Context

ALL = b"\xff" * 1024  # more CPUs than a kernel can be configured for


def everywhere(c: Context) -> None:
    """Run wherever the cgroup allows."""
    c.purpose("run on any CPU of the cgroup")
    c.add(Affinity(ALL))


def _wanted(c: Context, key: str) -> "bytes | None":
    given = c.process.get("execCPUAffinity") or {}
    if not isinstance(given, dict):
        raise InvalidArgument("process.execCPUAffinity must be an object")
    text = given.get(key)
    if not text:
        return None
    if not isinstance(text, str):
        raise InvalidArgument(f"process.execCPUAffinity.{key} must be a string, not {text!r}")
    mask = 0
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = (first, last) if dash else (first,)
        if not all(number.strip().isdigit() for number in numbers):
            raise InvalidArgument(
                f"process.execCPUAffinity.{key}: {text!r} is not a list of CPUs", remedy="like 0-3,7"
            )
        low, high = int(first), int(numbers[-1])
        if low > high or high >= 8 * len(ALL):
            raise InvalidArgument(f"process.execCPUAffinity.{key}: {text!r} has an impossible range")
        mask |= (1 << high + 1) - (1 << low)
    return mask.to_bytes((mask.bit_length() + 63) // 64 * 8, "little")


def before_cgroups(c: Context) -> None:
    """An exec before it is in the container's cgroups: ``initial``."""
    mask = _wanted(c, "initial")
    if mask:
        c.purpose(f"run on CPUs {c.process['execCPUAffinity']['initial']} at first")
        c.add(Affinity(mask))


def in_cgroups(c: Context) -> None:
    """An exec that is in the container's cgroups: ``final``; without any wish, all that they allow."""
    mask = _wanted(c, "final")
    if mask:
        c.purpose(f"run on CPUs {c.process['execCPUAffinity']['final']}")
        c.add(Affinity(mask))
    elif not _wanted(c, "initial"):
        everywhere(c)
