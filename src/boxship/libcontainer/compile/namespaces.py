"""Namespaces: which to join, which to make, and what a new one needs before it is used."""

from errno import EACCES, EPERM

from boxship.errors import InvalidArgument
from boxship.libcontainer.plan.ops import (
    CWD,
    Await,
    Clone,
    LoopbackUp,
    Open,
    Prctl,
    ResetSignals,
    Rlimit,
    SetDomainname,
    SetGroups,
    SetHostname,
    SetIds,
    SetNs,
    SetSession,
    Umask,
    Unshare,
    Write,
    WriteFile,
    WriteProc,
)
from boxship.linux.abi.mount import O_DIRECTORY
from boxship.linux.abi.process import (
    CAP_SYS_RESOURCE,
    CLONE_NEWCGROUP,
    CLONE_NEWTIME,
    CLONE_VM,
    NAMESPACES,
    PR_SET_DUMPABLE,
    RLIMITS,
)

from .context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Meeting points of the executor with the creator (plan.ops.Await)
IDS_MAPPED, CGROUPS, NET_DEVICES = "ids-mapped", "cgroups", "net-devices"


def check(c: Context) -> None:
    """What namespaces ask of the rest of the spec (as runc has it)."""
    for key in ("uidMappings", "gidMappings"):
        if c.linux.get(key) and not c.userns:
            raise InvalidArgument(
                f"linux.{key}: the container has no user namespace", remedy="add one to linux.namespaces"
            )
    offsets = c.linux.get("timeOffsets") or {}
    for clock in offsets:
        if clock not in ("monotonic", "boottime"):
            raise InvalidArgument(f"linux.timeOffsets: unknown clock {clock!r}", remedy="monotonic or boottime")
    if offsets and "time" not in c.created:
        raise InvalidArgument(
            "linux.timeOffsets: the container has no new time namespace",
            remedy="add one, without a path, to linux.namespaces",
        )


def begin(c: Context) -> None:
    """A process that nobody can trace, with clean signals: what it inherited from its creator is gone."""
    c.purpose("prepare the executor")
    # Without root the creator may write the id maps only of a process that it could trace: then a little later.
    c.add(Prctl(PR_SET_DUMPABLE, 0 if c.privileged else 1))
    c.add(ResetSignals())
    c.add(Umask(0))


# Where nothing is looked up by a path. What a user namespace shall own is made with it, by the clone.
_SOONEST = ("network", "ipc", "uts")


def unshare(c: Context) -> None:
    """New namespaces that need not wait for the clone: the kernel makes them while the plan is compiled."""
    if c.userns or not c.privileged:
        return
    c.unshared = [kind for kind in c.created if kind in _SOONEST]
    flags = 0
    for kind in c.unshared:
        flags |= c.created[kind]
    if flags:
        c.purpose(f"make the {', '.join(c.unshared)} namespaces")
        c.add(Unshare(flags))
    if "network" in c.unshared:
        _loopback_up(c)


def oom_score(c: Context) -> None:
    """process.oomScoreAdj.

    Without CAP_SYS_RESOURCE it goes no lower than what somebody who has that set last (proc_pid_oom_score_adj(5)),
    which nobody tells us: then it is tried, and what cannot be lowered stays.
    """
    wanted = c.process.get("oomScoreAdj")
    if wanted is None:
        return
    if wanted == c.host.oom_score_adj:
        return
    tried = wanted < c.host.oom_score_adj and not c.host.may(CAP_SYS_RESOURCE)
    if tried:
        c.note(
            f"process.oomScoreAdj {wanted} is lower than our own {c.host.oom_score_adj}, "
            "which may need CAP_SYS_RESOURCE: it is set if it can be"
        )
    c.purpose(f"set oom_score_adj to {wanted}")
    c.add(WriteFile(CWD, "/proc/self/oom_score_adj", str(wanted), tolerate=(EACCES,) if tried else ()))


def _limits(c: Context) -> "Iterator[tuple[int, int, int]]":
    """(resource, soft, hard) of process.rlimits, -1 for none, clamped to what we may set."""
    seen = set()
    for limit in c.process.get("rlimits") or ():
        name = limit.get("type", "")
        if name not in RLIMITS:
            raise InvalidArgument(f"process.rlimits: unknown type {name!r}")
        if name in seen:
            raise InvalidArgument(f"process.rlimits: {name} is there twice")
        seen.add(name)
        soft, hard = _signed(int(limit.get("soft", 0))), _signed(int(limit.get("hard", 0)))
        if not c.host.may(CAP_SYS_RESOURCE):
            ours = c.host.limits.get(RLIMITS[name], -1)
            if ours >= 0 and not 0 <= hard <= ours:
                text = f"{name} {hard} was lowered to {ours}: a higher hard limit needs CAP_SYS_RESOURCE"
                if text not in c.plan.notes:
                    c.note(text)
                hard = ours
                soft = min(soft, ours) if soft >= 0 else ours
        yield RLIMITS[name], soft, hard


def raise_limits(c: Context) -> None:
    """Hard limits above the inherited ones, while we still have the creator's capabilities."""
    for resource, _, hard in _limits(c):
        ours = c.host.limits.get(resource, -1)
        if ours >= 0 and not 0 <= hard <= ours:
            c.purpose("raise resource limits")
            c.add(Rlimit(resource, hard, hard))


def limits(c: Context) -> None:
    """process.rlimits as they are to be: late, because a limit on open files would be ours too."""
    for resource, soft, hard in _limits(c):
        c.purpose("set resource limits")
        c.add(Rlimit(resource, soft, hard))


def _signed(value: int) -> int:
    """RLIM_INFINITY is all ones; the wire carries signed numbers."""
    return value - (1 << 64) if value >= 1 << 63 else value


def open_cgroup(c: Context) -> None:
    """v2: the container's directory, for the clone that goes right into it."""
    if c.request.cgroup:
        c.purpose("open the container's cgroup")
        c.cgroup_slot = c.slot()
        c.add(Open(c.cgroup_slot, CWD, c.request.cgroup, O_DIRECTORY))


def join_namespaces(c: Context) -> None:
    """Namespaces given by path. The user namespace comes last where we may enter the others as we are."""
    if not c.joined:
        return
    kinds = sorted(c.joined, key=lambda kind: (kind == "user") == c.privileged)
    slots = {}
    for kind in kinds:
        c.purpose(f"open the {kind} namespace {c.joined[kind]}")
        slots[kind] = c.slot()
        c.add(Open(slots[kind], CWD, c.joined[kind], 0))
    for kind in kinds:
        if kind == "mount":
            c.mount_namespace = slots[kind]  # the last: from then on the host's paths are out of reach
            continue
        c.purpose(f"join the {kind} namespace {c.joined[kind]}")
        c.add(SetNs(slots[kind], NAMESPACES[kind]))


def join_mount_namespace(c: Context) -> None:
    """A mount namespace given by path: what is mounted for the container is seen by those who are in it, too."""
    if c.mount_namespace >= 0:
        c.purpose(f"join the mount namespace {c.joined['mount']}")
        c.add(SetNs(c.mount_namespace, NAMESPACES["mount"]))


def time_offsets(c: Context) -> None:
    """A time namespace is made by unshare; its offsets must be set before the first process is in it."""
    if "time" not in c.created:
        return
    c.purpose("make the time namespace")
    c.add(Unshare(CLONE_NEWTIME))
    lines = "".join(
        f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n"
        for clock, offset in (c.linux.get("timeOffsets") or {}).items()
    )
    if lines:
        c.add(WriteFile(CWD, "/proc/self/timens_offsets", lines))


def clone(c: Context) -> None:
    """From here on the plan runs in the container's first process, a child of the creator."""
    # cgroup and time are made where their content is right
    kinds = [kind for kind in c.created if kind not in ("cgroup", "time", *c.unshared)]
    flags = _shared_memory("time" in c.created or "time" in c.joined)
    for kind in kinds:
        flags |= c.created[kind]
    c.purpose(f"make the container's first process, and its {', '.join(kinds) or 'no'} namespaces")
    c.add(Clone(flags, c.cgroup_slot))
    c.add(SetSession())


def _shared_memory(other_clocks: bool) -> int:
    """CLONE_VM: the executor's memory need not be copied for a process that soon exits.

    Not into another time namespace, whose clocks are mapped into the memory of those who read them (EINVAL).
    """
    return 0 if other_clocks else CLONE_VM


def become_root(c: Context) -> None:
    """In a user namespace: wait for the id maps (written from outside, user_namespaces(7)), then be its root."""
    if not c.userns:
        return
    if "user" in c.created:
        c.purpose("wait for the id maps")
        c.add(Await(IDS_MAPPED))
    c.purpose("become root of the user namespace")
    c.add(SetIds(0, 0))
    if c.privileged:
        c.add(SetGroups(b"", tolerate=(EPERM,)))  # a joined namespace may deny setgroups
    c.add(Prctl(PR_SET_DUMPABLE, 0))  # a change of ids may have set it again


def enter_cgroups(c: Context) -> None:
    """v1: write 0 to each tasks file; a single thread moves itself without an RCU grace period.

    Only then is the cgroup namespace made, so that its root is the container's cgroup (cgroup_namespaces(7)).
    As late as it can be, right before the first mount of cgroups: the creator makes the groups meanwhile, and hands
    the open files over (the kernel checks who opened them, so a user namespace is no obstacle).
    ``Plan.nodes_first`` says whether device nodes were made before: then no device rule is in their way.
    """
    if c.entered_cgroups:
        return
    c.entered_cgroups = True
    _write_tasks(c, Await(CGROUPS, c.tasks))
    if "cgroup" in c.created:
        c.purpose("make the cgroup namespace")
        c.add(Unshare(CLONE_NEWCGROUP))


def _write_tasks(c: Context, meet: "Await | None") -> None:
    if not c.request.tasks:
        return
    if meet:
        c.purpose("wait for the cgroups")
        c.add(meet)
    c.purpose("enter the container's cgroups")
    for n in range(c.request.tasks):
        c.add(Write(c.tasks + n, "0"))


def enter_container(c: Context, flags: int) -> None:
    """Into a running container: all of its namespaces at once, then a child that is inside, and in its cgroups.

    But with v2 the cgroup namespace comes last: where it is a boundary (the mount option nsdelegate, which systemd
    uses), nobody in it can be moved or cloned into a group from one outside of it (cgroup-v2.rst, Delegation
    Containment).
    """
    late = flags & CLONE_NEWCGROUP if c.cgroup_slot >= 0 else 0
    c.purpose("enter the container's namespaces")
    c.add(SetNs(c.listener, flags & ~late))
    c.purpose("make the process")
    c.add(Clone(_shared_memory(bool(flags & CLONE_NEWTIME)), c.cgroup_slot))
    c.add(SetSession())
    _write_tasks(c, None)
    if late:
        c.purpose("enter the cgroup namespace")
        c.add(SetNs(c.listener, late))
    if c.userns:
        c.purpose("become root of the user namespace")
        c.add(SetIds(0, 0))
        c.add(Prctl(PR_SET_DUMPABLE, 0))


def network_up(c: Context) -> None:
    """The loopback interface of a new network namespace."""
    if "network" in c.created and "network" not in c.unshared:
        _loopback_up(c)


def _loopback_up(c: Context) -> None:
    c.purpose("set the loopback interface up")
    c.add(LoopbackUp())


def names(c: Context) -> None:
    """hostname and domainname; without a UTS namespace of its own the container may not rename the host."""
    for key, op in (("hostname", SetHostname), ("domainname", SetDomainname)):
        value = c.spec.get(key)
        if not value:
            continue
        if "uts" not in c.created and "uts" not in c.joined:
            raise InvalidArgument(f"{key} is set, but the container has no uts namespace of its own")
        c.purpose(f"set the {key}")
        c.add(op(value))


# A sysctl belongs to a namespace; one that does not would change the host.
_IPC_SYSCTLS = ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
                "kernel.shmmni", "kernel.shm_rmid_forced")  # fmt: skip


def sysctl_path(key: str) -> str:
    """The path below /proc/sys; the first separator decides which of ``.`` and ``/`` separates (sysctl(8))."""
    dot, slash = key.find("."), key.find("/")
    if slash >= 0 and (dot < 0 or slash < dot):
        return key
    return key.replace("/", "\0").replace(".", "/").replace("\0", ".")


def sysctls(c: Context) -> None:
    """linux.sysctl, written through the container's own /proc before it is read-only; only namespaced ones."""
    for key, value in (c.linux.get("sysctl") or {}).items():
        path = sysctl_path(key)
        dotted = path.replace("/", ".")
        if dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
            needs = "ipc"
        elif dotted.startswith("net."):
            needs = "network"
        elif dotted == "kernel.domainname" and c.spec.get("domainname") in (None, "", str(value)):
            needs = "uts"
        elif dotted in ("kernel.hostname", "kernel.domainname"):
            field = dotted.partition(".")[2]
            raise InvalidArgument(f"linux.sysctl: {key} is what {field} says", remedy=f"use {field}")
        elif dotted.startswith("user."):
            needs = "user"
        else:
            raise InvalidArgument(f"linux.sysctl: {key} is not namespaced: it would change the host")
        if needs not in c.created and needs not in c.joined:
            raise InvalidArgument(f"linux.sysctl: {key} needs a {needs} namespace of the container's own")
        if needs == "network" and needs in c.joined and c.host_now.same_namespace(c.joined[needs], "net"):
            raise InvalidArgument(f"linux.sysctl: {key}: the network namespace {c.joined[needs]} is the host's")
        if ".." in path.split("/"):
            raise InvalidArgument(f"linux.sysctl: {key} is not a name")
        c.purpose(f"set sysctl {key}")
        c.add(WriteProc(c.root, "sys/" + path, str(value)))
