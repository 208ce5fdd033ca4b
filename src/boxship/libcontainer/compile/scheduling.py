"""How the process is scheduled and where its memory comes from: process.scheduler, ioPriority;
linux.personality, memoryPolicy.

sched_setattr(2), ioprio_set(2), personality(2), set_mempolicy(2): all are kept over execve.
"""

from struct import pack

from boxship.errors import InvalidArgument
from boxship.libcontainer.plan.ops import IoPriority, MemoryPolicy, Personality, Scheduler
from boxship.linux.abi.process import (
    IO_PRIORITY_CLASSES,
    MEMORY_POLICIES,
    MEMORY_POLICY_FLAGS,
    PERSONALITIES,
    SCHED_FLAGS,
    SCHEDULERS,
)

from .context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def scheduling(c: Context) -> None:
    """All of it, for init and for exec."""
    if c.process.get("scheduler"):
        _scheduler(c, c.process["scheduler"])
    if c.process.get("ioPriority"):
        _io_priority(c, c.process["ioPriority"])
    if c.linux.get("personality"):
        _personality(c, c.linux["personality"])
    if c.linux.get("memoryPolicy") is not None:
        _memory_policy(c, c.linux["memoryPolicy"])


def _flags(words: "Iterable[str]", table: "dict[str, int]", where: str) -> int:
    flags = 0
    for word in words:
        if word not in table:
            raise InvalidArgument(f"{where}: {word!r} is unknown", remedy="one of " + ", ".join(table))
        flags |= table[word]
    return flags


def _scheduler(c: Context, scheduler: "dict[str, Any]") -> None:
    where = "process.scheduler"
    policy = scheduler.get("policy")
    if policy not in SCHEDULERS:
        raise InvalidArgument(f"{where}.policy: unknown value {policy!r}", remedy="one of " + ", ".join(SCHEDULERS))
    nice, priority = scheduler.get("nice") or 0, scheduler.get("priority") or 0
    times = [scheduler.get(key) or 0 for key in ("runtime", "deadline", "period")]
    real_time, deadline = policy in ("SCHED_FIFO", "SCHED_RR"), policy == "SCHED_DEADLINE"
    if not -20 <= nice <= 19:
        raise InvalidArgument(f"{where}.nice: must be from -20 to 19, not {nice}")
    if priority and not real_time:
        raise InvalidArgument(f"{where}.priority: only SCHED_FIFO and SCHED_RR have one, not {policy}")
    if any(times) and not deadline:
        raise InvalidArgument(f"{where}: runtime, deadline and period are of SCHED_DEADLINE, not of {policy}")
    if deadline:
        for key, value in zip(("runtime", "deadline"), times, strict=False):
            if value <= 0:
                raise InvalidArgument(f"{where}.{key}: SCHED_DEADLINE needs one that is greater than 0")
        limit = times[2] or times[1]
        if not 1024 <= times[0] <= times[1] <= limit < 1 << 63:
            raise InvalidArgument(
                f"{where}: {times[0]}, {times[1]}, {times[2]} ns: the kernel wants 1024 <= runtime <= deadline "
                "<= period < 2^63 (sched(7))"
            )
    flags = _flags(scheduler.get("flags") or (), SCHED_FLAGS, f"{where}.flags")
    cpus = ((c.linux.get("resources") or {}).get("cpu") or {}).get("cpus")
    why = " (process scheduler can't be used together with AllowedCPUs, of a cpuset)" if deadline and cpus else ""
    c.purpose(f"set the scheduler {policy}{why}")
    c.add(Scheduler(pack("<IIQiIQQQ", 48, SCHEDULERS[policy], flags, nice, priority, *times)))


def _io_priority(c: Context, priority: "dict[str, Any]") -> None:
    kind, level = priority.get("class"), priority.get("priority") or 0
    if kind not in IO_PRIORITY_CLASSES:
        raise InvalidArgument(
            f"process.ioPriority.class: unknown value {kind!r}", remedy="one of " + ", ".join(IO_PRIORITY_CLASSES)
        )
    if not 0 <= level <= 7:
        raise InvalidArgument(f"process.ioPriority.priority: must be from 0 to 7, not {level}")
    c.purpose(f"set the I/O priority {kind} {level}")
    c.add(IoPriority(IO_PRIORITY_CLASSES[kind] << 13 | level))


def _personality(c: Context, personality: "dict[str, Any]") -> None:
    domain = personality.get("domain")
    if domain not in PERSONALITIES:
        raise InvalidArgument(
            f"linux.personality.domain: unknown value {domain!r}", remedy="one of " + ", ".join(PERSONALITIES)
        )
    if personality.get("flags"):
        raise InvalidArgument("linux.personality.flags: no flags are defined", remedy="leave them away")
    c.purpose(f"set the personality {domain}")
    c.add(Personality(PERSONALITIES[domain]))


def _memory_policy(c: Context, policy: "dict[str, Any]") -> None:
    where = "linux.memoryPolicy"
    mode = policy.get("mode")
    if mode not in MEMORY_POLICIES:
        raise InvalidArgument(
            f"{where}.mode: invalid memory policy mode {mode!r}", remedy="one of " + ", ".join(MEMORY_POLICIES)
        )
    flags = _flags(policy.get("flags") or (), MEMORY_POLICY_FLAGS, f"{where}.flags: invalid memory policy flag")
    nodes = bits(policy.get("nodes") or "", f"{where}.nodes: invalid memory policy node")
    if nodes and mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
        raise InvalidArgument(f"{where}.nodes: the {mode} mode requires 0 nodes but got {nodes.bit_count()}")
    if not nodes and mode not in ("MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED"):
        raise InvalidArgument(f"{where}.nodes: the {mode} mode requires at least one node")
    size = (nodes.bit_length() + 63) // 64 * 8
    c.purpose(f"set the memory policy {mode}")
    # The kernel counts one bit more than it uses.
    c.add(MemoryPolicy(MEMORY_POLICIES[mode] | flags, nodes.to_bytes(size, "little"), size * 8 + 1 if size else 0))


def bits(text: str, where: str) -> int:
    """A list like ``0-3,7`` as a bit mask. Raises InvalidArgument naming ``where`` it stands."""
    mask = 0
    for part in text.replace(" ", "").split(",") if text else ():
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(last or first) >= 8192:
            raise InvalidArgument(f"{where}: {text!r} is not a list like 0-3,7 of numbers below 8192")
        if int(last or first) < int(first):
            raise InvalidArgument(f"{where}: {part!r} ends before it starts")
        mask |= (2 << int(last or first)) - (1 << int(first))
    return mask
