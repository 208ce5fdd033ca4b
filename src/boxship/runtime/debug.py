"""``--debug``: what the executor did, one line for each stretch of the plan, and the milestones between them.

The milestones have runc's words, so that who reads its logs, or greps them, finds the same places in ours: the first
stage, the CPUs it runs on, the child, the filter's flags, the end of creation or the start of the program.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from boxship.libcontainer.compile import Plan
    from boxship.libcontainer.plan.ops import Op

    from .report import Log


def _affinity(op: "Op") -> str:
    mask = op.args[0]
    assert isinstance(mask, bytes)
    if mask.strip(b"\xff") == b"":
        return "nsexec: affinity: all"
    return f"nsexec: affinity: {int.from_bytes(mask, 'little'):#x}"


def _flags(op: "Op") -> str:
    return f"seccomp filter flags: {op.args[0]}"


MILESTONES: "dict[str, Callable[[Op], str]]" = {
    "ResetSignals": lambda op: "=> nsexec container setup",
    "Affinity": _affinity,
    "Clone": lambda op: "child process in init()",
    "Seccomp": _flags,
    "SeccompNotify": _flags,
}
CREATED = "init: closing the pipe to signal completion"
EXECUTED = "setns_init: about to exec"


def debug_plan(log: "Log", plan: "Plan", *, entered: bool) -> None:
    """Log the plan as it was carried out; ``entered`` is for a process that entered a container (exec)."""
    total = len(plan.ops)
    purposes = dict(plan.purposes)
    for step, op in enumerate(plan.ops):
        if step in purposes:
            log.debug(f"step {step + 1} of {total}: {purposes[step]}")
        milestone = MILESTONES.get(op.NAME)
        if milestone:
            log.debug(milestone(op))
        elif op.NAME == "Await" and step and plan.purpose(step) == "wait for start":
            log.debug(CREATED)
        elif op.NAME == "Exec" and entered:
            log.debug(EXECUTED)
