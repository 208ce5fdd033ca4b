"""config.json and the facts of a host become a plan.

``compile_spec`` is how a container starts, on one screen: a flat list of passes in the order of the runtime-spec's
lifecycle.
Passes decide everything; the executor only carries out.
"""

from boxship.libcontainer.plan import codec

from . import affinity, cgroup_mounts, devices, hooks, masks, mounts, namespaces, process, rootfs
from .context import Context, Plan, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from boxship.libcontainer.host import Host

SCHEDULING = ("scheduler", "ioPriority")


def _scheduling(c: Context) -> None:
    """What few ask for is loaded when one does."""
    if any(c.process.get(key) for key in SCHEDULING) or "personality" in c.linux or "memoryPolicy" in c.linux:
        from .scheduling import scheduling

        scheduling(c)


__all__ = ["Context", "Plan", "Request", "compile_exec", "compile_spec", "soonest"]


def soonest(spec: "dict[str, Any]", host: "Host") -> Plan:
    """How every plan for this spec begins: with what asks for nothing but ``linux.namespaces``.

    The kernel needs a while for it, in which the rest of a request can be found out, and the plan compiled.
    """
    wanted = (spec.get("linux") or {}).get("namespaces") or ()
    key = host.user, host.capabilities, *[(each["type"], bool(each.get("path"))) for each in wanted]
    plan = _beginnings.get(key)
    if plan is None:
        c = Context(Request(spec), host)
        _begin(c)
        plan = c.plan
        plan.encoded.append((0, len(plan.ops), codec.encode(plan.ops, last=False)))
        if len(_beginnings) < MOST_BEGINNINGS:
            _beginnings[key] = plan
    return plan


_beginnings: "dict[tuple[object, ...], Plan]" = {}
MOST_BEGINNINGS = 64


def _begin(c: Context) -> None:
    namespaces.begin(c)
    namespaces.unshare(c)


def compile_spec(
    request: Request,
    host: "Host",
    *,
    begin: "Callable[[Plan], None] | None" = None,
    check: "Callable[[bool], None] | None" = None,
    go_on: "Callable[[Plan], None] | None" = None,
    again: bool = False,
) -> Plan:
    """The plan that makes a container and, once told to, starts it.

    Whoever is in a hurry has the executor work on what there is: ``begin`` is called with the plan up to the clone,
    ``go_on`` with what needs no cgroups. ``check`` is called in between: with True to check the whole
    configuration, with False when one was that differs in the program and its environment only.
    With ``again`` what a plan for the same configuration had behind the clone is taken over (again.py).
    Raises InvalidArgument for a spec that cannot be carried out; what was adapted is in the plan's ``notes``.
    """
    c = Context(request, host)
    c.number_slots()
    process.check(c)
    namespaces.check(c)
    _begin(c)

    # In the creator's mount namespace: everything that has a path on the host.
    namespaces.oom_score(c)
    namespaces.open_cgroup(c)
    if c.privileged:
        rootfs.open_rootfs(c)
        mounts.open_bind_sources(c)
        devices.open_device_sources(c)
    namespaces.join_namespaces(c)
    namespaces.time_offsets(c)
    namespaces.raise_limits(c)
    namespaces.join_mount_namespace(c)
    namespaces.clone(c)
    if begin:
        begin(c.plan)
    memory = kept = None
    if again and not c.spec.get("hooks"):  # those see the container's own state and environment
        from .again import Memory

        memory = Memory(c)
        kept = memory.recall(c)
    if check:
        check(kept is None)
    if kept:
        kept.append_to(c)
        return c.plan

    # In the container's first process.
    namespaces.become_root(c)
    rootfs.private_mounts(c)
    if not c.privileged:
        rootfs.open_rootfs(c)
        mounts.open_bind_sources(c)
        devices.open_device_sources(c)
    namespaces.network_up(c)
    if c.linux.get("netDevices"):
        from .netdevices import net_devices

        net_devices(c)
    devices.attach_nodes(c)
    rootfs.attach_rootfs(c)
    mounts.mounts(c)
    devices.devices(c)
    devices.terminal(c)
    process.make_cwd(c)
    cgroup_mounts.in_order(c)
    hooks.meet_runtime_hooks(c)
    hooks.create_container(c)
    namespaces.sysctls(c)
    masks.read_only_paths(c)
    masks.masked_paths(c)
    if go_on:
        go_on(c.plan)
    cgroup_mounts.at_last(c)
    rootfs.pivot(c)

    # In the container's root.
    rootfs.propagation(c)
    namespaces.names(c)
    mounts.read_only(c)
    rootfs.read_only(c)
    c.fresh(process.session_keyring)
    _scheduling(c)
    process.security_labels(c)
    process.credentials(c)
    c.fresh(process.find_program)
    hooks.meet_start(c)

    # Started.
    namespaces.limits(c)
    if not hooks.of(c.spec, "startContainer"):
        process.hand_on(c)
    process.load_filter(c)
    if hooks.of(c.spec, "startContainer"):
        hooks.start_container(c)  # under the filter, as the program is
        process.hand_on(c)
    c.fresh(process.execute)
    if memory:
        memory.remember(c)
    return c.plan


def compile_exec(request: Request, host: "Host", *, namespaces_flags: int) -> Plan:
    """The plan that runs one more process in a container.

    ``request.spec`` holds the process and the container's linux section.
    The first handle that the creator sends is a pidfd of the container's init; ``namespaces_flags`` are the
    namespaces of it to enter (setns(2) with a pidfd: Linux 5.8).
    """
    c = Context(request, host)
    c.number_slots()
    process.check(c)
    namespaces.begin(c)
    namespaces.oom_score(c)
    namespaces.open_cgroup(c)
    namespaces.raise_limits(c)
    affinity.before_cgroups(c)
    namespaces.enter_container(c, namespaces_flags)
    affinity.in_cgroups(c)
    process.session_keyring(c)
    _scheduling(c)
    devices.exec_terminal(c)
    process.security_labels(c)
    process.credentials(c)
    process.find_program(c)
    process.meet_seccomp_agent(c)
    namespaces.limits(c)
    process.hand_on(c)
    process.load_filter(c)
    process.execute(c)
    return c.plan
