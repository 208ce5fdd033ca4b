"""The laws of a plan: what must hold for every one, whatever the spec.

``check`` is run by tests over many specs (a compiled plan needs no check at run time), and by whoever writes plans
by hand.
"""

from boxship.errors import InvalidArgument

from .ops import (
    CWD,
    STDIO,
    AmbientSet,
    Await,
    CapSet,
    Clone,
    CloseOthers,
    Duplicate,
    Exec,
    FindProgram,
    Hook,
    MakeMount,
    Mkdir,
    Mknod,
    Mount,
    MoveMount,
    Op,
    Open,
    OpenTerminal,
    OpenTree,
    PivotRoot,
    Prctl,
    Seccomp,
    SetIds,
    SetMountAttributes,
    Symlink,
    Unmount,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PR_SET_DUMPABLE = 4
RESOLVE_IN_ROOT = 0x10
O_PATH = 0o10000000
# Fields that fill a slot; every other Slot field uses one.
FILLS = ("into", "master", "slave")
PRIVILEGED = (MakeMount, Mount, MoveMount, OpenTree, SetMountAttributes, Unmount, PivotRoot, Mknod, Mkdir, Symlink)


def _broken(step: int, op: Op, law: str) -> InvalidArgument:
    return InvalidArgument(f"step {step + 1}: {op!r}: {law}")


def check(plan: "Sequence[Op]", *, given: "Iterable[int]" = ()) -> None:
    """Raise InvalidArgument with the step and the law that it breaks.

    ``given`` are the slots that the creator fills with the handles that it sends with the plan.
    """
    _check_order(plan)
    _check_slots(plan, set(given))
    _check_lookups(plan)
    _check_old_root(plan)


def _check_order(plan: "Sequence[Op]") -> None:
    if not plan or not isinstance(plan[-1], Exec):
        raise InvalidArgument("a plan ends with Exec")
    first = plan[0]
    if not (isinstance(first, Prctl) and first.option == PR_SET_DUMPABLE):
        raise _broken(0, first, "a plan begins by making its process untraceable")
    traceable = True
    seen: dict[str, int] = {}
    for step, op in enumerate(plan):
        if isinstance(op, Prctl) and op.option == PR_SET_DUMPABLE:
            traceable = op.a != 0
        if isinstance(op, PRIVILEGED) and traceable:
            raise _broken(step, op, "nothing is mounted or made by a process that can be traced")
        if isinstance(op, Exec) and step != len(plan) - 1:
            raise _broken(step, op, "nothing comes after exec")
        if isinstance(op, (Clone, PivotRoot, Seccomp, FindProgram)) and op.NAME in seen:
            raise _broken(step, op, "happens once")
        if isinstance(op, PRIVILEGED) and "CapSet" in seen:
            raise _broken(step, op, "mounts and files are made before capabilities are dropped")
        if ("Seccomp" in seen or "SeccompNotify" in seen) and not isinstance(op, (CapSet, Hook, Duplicate, Exec)):
            raise _broken(step, op, "the filter is loaded last: only the last capability, hooks and exec may follow")
        if isinstance(op, AmbientSet) and "CapSet" not in seen:
            raise _broken(step, op, "ambient capabilities come after the permitted ones")
        if isinstance(op, Exec) and "FindProgram" not in seen:
            raise _broken(step, op, "the program is looked for before it is executed")
        if isinstance(op, SetIds) and "FindProgram" in seen:
            raise _broken(step, op, "the program is looked for by the user who runs it")
        seen.setdefault(op.NAME, step)


def _check_slots(plan: "Sequence[Op]", filled: "set[int]") -> None:
    for step, op in enumerate(plan):
        fields = list(zip(op.FIELDS, op.WIRE, op.args, strict=True))
        for name, kind, value in fields:
            if kind != "Slot" or name in FILLS or value == CWD or value in STDIO or value == -1:
                continue
            if value not in filled:
                raise _broken(step, op, f"slot {value} is empty")
        for name, kind, value in fields:
            if kind == "Slot" and name in FILLS and value >= 0:
                filled.add(value)
        if isinstance(op, CloseOthers):
            filled.intersection_update(range(op.last + 1))
        if isinstance(op, Await) and op.into >= 0:
            # How many handles come with the word is the creator's to know: as many as are used.
            filled.update(range(op.into, op.into + 64))


def _check_lookups(plan: "Sequence[Op]") -> None:
    """Inside the root every lookup is rooted; after the pivot nothing of the host's is used."""
    pivot = next((step for step, op in enumerate(plan) if isinstance(op, PivotRoot)), None)
    if pivot is None:
        return
    host: set[int] = set()
    for step, op in enumerate(plan):
        if isinstance(op, Open) and op.dir != CWD and step < pivot and not op.resolve & RESOLVE_IN_ROOT:
            raise _broken(step, op, "a lookup inside the root resolves within it")
        if isinstance(op, (Open, OpenTree)) and step < pivot:
            if op.dir == CWD:
                host.add(op.into)
            else:
                host.discard(op.into)
        elif isinstance(op, (MakeMount, OpenTerminal)):
            host.discard(op.into if isinstance(op, MakeMount) else op.slave)
        elif step > pivot and isinstance(op, (Open, OpenTree)):
            host.discard(op.into)
        if step > pivot:
            for name, kind, value in zip(op.FIELDS, op.WIRE, op.args, strict=True):
                if kind == "Slot" and name not in FILLS and value in host:
                    raise _broken(step, op, f"slot {value} is the host's, and this is after the pivot")


def _check_old_root(plan: "Sequence[Op]") -> None:
    """Nothing of the host's stays mounted: what was stacked on "/" is let go of after the pivot, the old root too.

    One that is forgotten covers the old root when that is unmounted; a lookup of ``..`` in the container's root
    directory then leads to the host.
    """
    pivot = next((step for step, op in enumerate(plan) if isinstance(op, PivotRoot)), None)
    if pivot is None:
        return
    stacked = [
        op
        for op in plan[:pivot]
        if (isinstance(op, MoveMount) and op.dir == CWD and op.path == "/")
        or (isinstance(op, Mount) and op.target == "/")
    ]
    for step in range(pivot + 1, pivot + 1 + len(stacked)):
        op = plan[step]
        if not (isinstance(op, Unmount) and op.path == "."):
            raise _broken(step, op, f"{len(stacked)} mounts were stacked on /: as many are unmounted after the pivot")
