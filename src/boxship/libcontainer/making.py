"""Making a container: all of ``Container.create``, and what the restoration of a checkpoint shares with it.

The order is that of crash safety: a name is claimed before anything exists that outlives us, cgroups are written
down before they are made, the process while its owner is still at work; so ``delete`` finds everything, whenever the
creator is killed.
The executor is spawned at once. It is what all wait for at the end: the kernel makes the namespaces for it while the
rest is done here, the check of the whole configuration too.
"""

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socket
from _thread import allocate_lock, get_ident

from boxship.errors import AlreadyExists, InvalidArgument
from boxship.libcontainer import cgroups, validate
from boxship.libcontainer import state as store

from .compile import Plan, Request, compile_spec, soonest
from .compile import hooks as compile_hooks
from .compile.environment import has_home
from .compile.home import home
from .compile.namespaces import CGROUPS, IDS_MAPPED, NET_DEVICES
from .compile.process import SECCOMP_AGENT
from .container import CREATED, CREATING, OCI_VERSION, RUNNING, Container, read_spec
from .executor import Run
from .host import host as this_host
from .idmap import check_joined, host_id, write_maps
from .plan.ops import Await
from .process import Stdio, Terminal, stdio_owners
from .resources import before_entering, cgroup_owner, cgroup_path, for_cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Sequence
    from typing import Any

    from boxship.libcontainer.cgroups.manager import Manager

    from .host import Host


def create(
    id: str,
    bundle: str,
    *,
    root: str,
    spec: "dict[str, Any] | None",
    keep_spec: bool,
    stdio: "Stdio | Terminal",
    rootfs_mounts: "Sequence[tuple[str, str, Sequence[str]]]",
    cgroup_manager: str,
    no_pivot: bool,
    new_keyring: bool,
    preserve_fds: int,
    trace: bool,
    checked: bool,
    claimed: "Callable[[str], None] | None",
    host: "Host | None",
) -> Container:
    """`Container.create`, which has the words."""
    own_config = spec is not None and keep_spec
    if spec is None:
        spec = read_spec(os.path.abspath(bundle))
    host = host or this_host()
    container = None
    turn = _take_turn()
    try:
        run = Run(stdio=(-1, -1, -1) if isinstance(stdio, Terminal) else stdio.triple(), trace=trace)
        try:
            _set_out(run, spec, host)
            container = claim(id, bundle, root=root, spec=spec, keep_spec=own_config, checked=True, host=host)
        except BaseException:
            run.abort()
            raise
        container._run = run
        if claimed:
            claimed(container.directory)
        request = Request(
            spec,
            id=id,
            bundle=container.bundle,
            rootfs_mounts=rootfs_mounts,
            no_pivot=no_pivot,
            new_keyring=new_keyring,
            preserve_fds=preserve_fds,
            cache=root + "/.seccomp",
        )
        _make(container, run, stdio, request, cgroup_manager, checked)
    except BaseException as error:
        if container is not None:
            from . import failures

            failures.blame_memory(container, error)
            container.undo()
            failures.keep(container, error)
        raise
    finally:
        if turn is not None:
            turn.release()
    return container


def _set_out(run: Run, spec: "dict[str, Any]", host: "Host") -> None:
    """Spawn the executor, with the first of its work. Nothing is claimed yet: it ends when we do."""
    try:
        plan = soonest(spec, host)
    except Exception:
        validate.check(spec)
        raise
    run.extend(plan, last=False)


_turns = [allocate_lock() for _ in os.sched_getaffinity(0)]
# Another thread may have had one at a fork, and gives it back in the parent only.
os.register_at_fork(after_in_child=lambda: _turns.__setitem__(slice(None), [allocate_lock() for _ in _turns]))
_first = True


def _again() -> bool:
    """Whether this process has made a container before, and so may make one like it again."""
    global _first
    was, _first = _first, False
    return not was


PATIENCE = 0.1
"""Seconds after which a thread goes on without a turn: another may be waiting for a hook."""


def _take_turn() -> "LockType | None":
    """One of as many turns as there are CPUs; the caller releases it. None when none was given back in time.

    Threads of one process that all make containers at once take their interpreter's lock from each other at every
    system call: ten of them need a quarter more time for the same work than two.
    """
    for turn in _turns:
        if turn.acquire(False):
            return turn
    turn = _turns[(get_ident() >> 12) % len(_turns)]
    return turn if turn.acquire(True, PATIENCE) else None


def claim(
    id: str,
    bundle: str,
    *,
    root: str,
    spec: "dict[str, Any] | None" = None,
    keep_spec: bool = True,
    checked: bool = False,
    host: "Host | None" = None,
) -> Container:
    """A container of which there is only the name: the first step of ``create`` and of a restore."""
    own_config = spec is not None and keep_spec
    bundle = os.path.abspath(bundle)
    if spec is None:
        spec = read_spec(bundle)
    if not checked or not isinstance(spec, dict):
        validate.check(spec)
    store.claim(root, id)
    record: dict[str, Any] = {
        "id": id,
        "status": CREATING,
        "bundle": bundle,
        "pid": 0,
        "start_time": 0,
        "created": store.timestamp(),
        "own_config": own_config,
        "rootfs": "",
        "annotations": spec.get("annotations") or {},
        "hooks": spec.get("hooks") or {},
        "creator": store.this_process(),
        "cgroups": {},
    }
    container = Container(root, record, host)
    container._spec = spec
    return container


def _make(
    container: Container,
    run: Run,
    stdio: "Stdio | Terminal",
    request: Request,
    cgroup_manager: str,
    checked: bool,
) -> None:
    spec, directory = container.spec, container.directory

    def check(whole: bool = True) -> None:
        nonlocal checked
        if not checked:
            checked = True
            if whole:
                validate.check(spec)
            else:
                validate.check_program(spec["process"])

    try:
        plan, manager, complete = _begin(container, run, stdio, request, cgroup_manager, check)
    except Exception:
        check()  # what makes no sense was met before anybody looked for it, and has no name yet
        raise
    record = container._record
    container.plan = plan
    container.notes = record["notes"] = plan.notes
    record["after_start"] = _after_start(plan)
    listener = _listen(directory)
    try:
        run.extend(plan, (listener.fileno(), *range(3, 3 + request.preserve_fds)))
    finally:
        listener.close()
    tasks = manager.tasks_files()
    if not complete:
        if not request.cgroup:
            _record_cgroups(container, manager, directory)
        manager.create()
        manager.apply(before_entering(spec))
    if not manager.paths:
        limits = for_cgroups(spec.get("linux") or {})
        del limits["devices"]
        if cgroup_manager == "none" and any(limits.values()):
            plan.notes.append(f"linux.resources ({', '.join(limits)}): cgroups are disabled, no limit is set")
        elif cgroup_manager != "none":
            manager.apply(limits)  # refuses what it cannot do
    for meeting in plan.meetings():
        _meet(container, meeting.name, run, tasks)
    container.console = run.handle_received
    run.handle_received = -1
    container.times = run.times


def _begin(
    container: Container,
    run: Run,
    stdio: "Stdio | Terminal",
    request: Request,
    cgroup_manager: str,
    check: "Callable[[bool], None]",
) -> "tuple[Plan, Manager, bool]":
    """Compile the plan, which the executor gets as it grows: it, the cgroups, and whether those are complete.

    Until ``check`` was called the configuration may be anything.
    """
    spec, directory, record = container.spec, container.directory, container._record
    record["rootfs"] = request.rootfs = _rootfs(container.bundle, spec, request.rootfs_mounts)
    manager = _manager(container, spec, cgroup_manager)
    request.tasks = len(manager.tasks_files())
    request.cgroup = manager.directory()
    request.cgroup_paths = manager.paths
    uid = ((spec.get("process") or {}).get("user") or {}).get("uid", 0)
    request.home = home_of(spec, uid, request.rootfs, request.rootfs_mounts)
    if isinstance(stdio, Terminal):
        request.terminal, request.relayed = True, stdio.relayed
        request.columns, request.rows = stdio.width, stdio.height
    else:
        request.stdio_owners = stdio_owners(stdio.triple(), host_id(spec, uid))
    complete = False
    target = bool(request.cgroup or manager.unit)
    if target:
        # The clone goes right into it: on v2 into the whole of it, on a hybrid host into the unified group.
        check(True)
        manager.claim()
        _record_cgroups(container, manager, directory)
        complete = _create_target(container, manager, run.stage)
    if complete:
        owner = cgroup_owner(spec)
        if owner:
            manager.own(owner)
        manager.apply(for_cgroups(spec.get("linux") or {}))

    def begin(plan: Plan) -> None:
        run.extend(plan, last=False)

    def go_on(plan: Plan) -> None:
        # Where the executor waits for us it takes what comes next for the answer, so then the rest must be with it.
        if not plan.meetings(run.sent):
            run.extend(plan, last=False)

    plan = compile_spec(request, container.host, begin=begin, check=check, go_on=go_on, again=_again())
    if not target:
        manager.claim()
    if record["own_config"]:
        store.write(directory, store.CONFIG, spec)
    return plan, manager, complete


def _meet(container: Container, name: str, run: Run, tasks: "list[str]") -> None:
    """What the creator does at a meeting point."""
    spec = container.spec
    if name == CGROUPS:
        files: list[int] = []
        resources = for_cgroups(spec.get("linux") or {})
        manager = container.cgroups
        if container.plan is not None and not container.plan.nodes_first:
            # Device rules start with "deny all": they must be complete before the executor makes nodes.
            manager.apply({"devices": resources.pop("devices")})
        try:
            files += (os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in tasks)
            run.go(ahead=CGROUPS, handles=files)
        finally:
            for file in files:
                os.close(file)
        # The limits are in force before the program is; the executor need not wait for them.
        manager.apply(resources)
        return
    if not run.pid:
        run.until_cloned()
        record_process(container, run.pid)
        check_joined(run.pid, spec)
    if name == compile_hooks.START:
        settings = (spec.get("linux") or {}).get("intelRdt")
        if settings is None:
            run.keep()  # before it gets there: it need not be woken for that
        run.until(name)
        if settings is not None:
            _enter_rdt_class(container, container.directory, settings, run.pid)
            run.keep()
        return
    run.until(name)
    if name == IDS_MAPPED:
        write_maps(run.pid, spec, container.host)
        run.go()
    elif name == compile_hooks.RUNTIME_HOOKS:
        for kind in ("prestart", "createRuntime"):
            container._run_hooks(kind, CREATING)
        run.go(container.state_json(CREATING))
    elif name == NET_DEVICES:
        from .netdevices import move

        move(spec["linux"]["netDevices"], run.pid)
        run.go()
    elif name == SECCOMP_AGENT:
        to_seccomp_agent(container, run, CREATED)
    elif container.plan is not None and name in container.plan.mapped_sources:
        from .mapped_source import map_ids

        map_ids(run, container.plan.mapped_sources[name])


def to_seccomp_agent(container: Container, run: Run, status: str) -> None:
    """Connect to the agent for the process of this run, which sends the message itself."""
    from .seccomp import agent

    seccomp = container.spec["linux"]["seccomp"]
    connection = agent.connect(seccomp["listenerPath"])
    try:
        metadata = seccomp.get("listenerMetadata") or ""
        text = agent.message(OCI_VERSION, run.pid, metadata, container.state(status))
        run.go(text, handles=(connection.fileno(),))
    finally:
        connection.close()


def record_process(container: Container, pid: int) -> None:
    """Write down the pid while its owner is still at work.

    Who reads "created" too early loses nothing: a start waits in the socket's queue, and should the creator die
    the process ends by itself and the container is stopped.
    """
    container._record["pid"] = pid
    container._record["start_time"] = store.start_time(pid)[1]
    container._record["status"] = CREATED
    store.write(container.directory, store.STATE, container._record)


def _manager(container: Container, spec: "dict[str, Any]", kind: str) -> "Manager":
    if kind == "none":
        return cgroups.NoManager()
    path = (spec.get("linux") or {}).get("cgroupsPath") or ""
    if kind == "systemd":
        from .cgroups import systemd

        return systemd.manager(container.host.cgroups, container.id, path, spec)
    return cgroups.manager(container.host.cgroups, container.id, cgroup_path(path))


def _record_cgroups(container: Container, manager: "Manager", directory: str) -> None:
    """Write down which they are: before they are made."""
    container._groups = manager
    container._record["cgroups"] = manager.paths
    if manager.unit:
        container._record["unit"] = manager.unit
    store.write(directory, store.STATE, container._record)


def _enter_rdt_class(container: Container, directory: str, settings: "dict[str, Any]", pid: int) -> None:
    """linux.intelRdt: what is made is written down before the process is in it."""
    from . import rdt

    container._record["rdt"] = rdt.prepare(settings, container.id, container.host.mounts_of("resctrl"))
    store.write(directory, store.STATE, container._record)
    rdt.enter(container._record["rdt"], pid)


def _rootfs(bundle: str, spec: "dict[str, Any]", mounts: "Sequence[tuple[str, str, Sequence[str]]]") -> str:
    path = (spec.get("root") or {}).get("path") or ("rootfs" if mounts else "")
    if not path:
        raise InvalidArgument("root.path is missing")
    full = path if path.startswith("/") else bundle + "/" + path
    if not mounts and not os.path.isdir(full):
        raise InvalidArgument(f"root.path {full}: no such directory")
    # Where hooks run before the pivot it is attached at its path, and mounts are not moved onto links.
    return os.path.realpath(full) if os.path.islink(full) else os.path.normpath(full)


def _listen(directory: str) -> socket:
    """The socket where the created container listens; bound by descriptor, for paths longer than 107 bytes."""
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
    fd = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{fd}/{store.SOCKET}")
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(fd)
    return listener


def _after_start(plan: Plan) -> "tuple[int, dict[str, str]]":
    """What the steps behind the start are for: whoever starts the container does not have the plan."""
    total = len(plan.ops)
    steps: dict[str, str] = {}
    for index in range(total - 1, -1, -1):
        op = plan.ops[index]
        if isinstance(op, Await) and op.name == compile_hooks.START:
            break
        steps[str(index)] = plan.purpose(index)
    return total, steps


def home_of(spec: "dict[str, Any]", uid: int, rootfs: str, mounts: "Sequence[tuple[str, str, Sequence[str]]]") -> str:
    if has_home((spec.get("process") or {}).get("env") or ()):
        return ""
    return home(uid, rootfs, mounts)


def _create_target(container: Container, manager: "Manager", pid: int) -> bool:
    try:
        return manager.create_target(pid)
    except AlreadyExists:
        # It is another container's: undoing ours must not end that.
        container._groups, container._record["cgroups"] = None, {}
        raise


# ── For the restoration of a checkpoint (restore.py), which makes the processes in another way ──


def begin_restore(container: Container) -> None:
    """Right after ``claim``: find the root file system, and write down what a later exec needs."""
    container._record["rootfs"] = _rootfs(container.bundle, container.spec, ())
    if container._record["own_config"]:
        store.write(container.directory, store.CONFIG, container.spec)


def make_cgroups(container: Container, kind: str, pid: int) -> "Manager":
    """The container's cgroups, for the process ``pid`` to enter; recorded before they are made."""
    manager = _manager(container, container.spec, kind)
    manager.claim()
    _record_cgroups(container, manager, container.directory)
    if not _create_target(container, manager, pid):
        manager.create()
    return manager


def restoring(container: Container, pid: int) -> None:
    """The namespaces are there, with ``pid`` as their first process: the runtime's hooks."""
    container._record["pid"] = pid
    for kind in ("prestart", "createRuntime"):
        container._run_hooks(kind, CREATING)


def restored(container: Container, pid: int) -> None:
    """The processes are there, and go on when we return."""
    # criu puts a container into a time namespace, so that its clocks go on where they stood.
    container._record["own_time"] = os.readlink(f"/proc/{pid}/ns/time") != os.readlink("/proc/self/ns/time")
    record_process(container, pid)
    container._record["status"] = RUNNING
