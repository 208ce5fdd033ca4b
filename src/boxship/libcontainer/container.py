"""Containers: create, start, exec, signal, pause, inspect, delete.

Lifecycle (runtime-spec, runtime.md): creating -> created -> running (<-> paused) -> stopped, then deleted.
``create`` makes namespaces, mounts and cgroups, and leaves a process that waits; ``start`` lets it execute the
program.
The process is a child of the calling process, which reaps it; any process of the same user may ``load`` the
container by its id and do the rest.
Everything here is synchronous, uses no threads, and may be called from a process that has some.
``delete`` is idempotent and leaves nothing: no process, mount, cgroup or file.
"""

import os
from _signal import pidfd_send_signal  # type: ignore[import-not-found]  # signal imports enum
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socket
from errno import ECHILD, ECONNREFUSED, ENOENT, ESRCH
from time import monotonic, sleep

from boxship.errors import BoxshipError, FailedPrecondition, InvalidArgument, NotFound, StepFailed, Unavailable
from boxship.libcontainer import cgroups, validate
from boxship.libcontainer import state as store
from boxship.linux.abi.process import NAMESPACES, SIGKILL
from boxship.oci import cold_json

from .cgroups.freezer import thaw_process
from .compile import Plan, Request, compile_exec, compile_spec
from .compile import hooks as compile_hooks
from .compile.environment import has_home
from .compile.home import home
from .compile.namespaces import CGROUPS, IDS_MAPPED
from .compile.process import SECCOMP_AGENT
from .executor import Run, hook_ended
from .host import Host, host
from .idmap import host_id, write_maps
from .plan import codec
from .plan.ops import Await
from .process import Process, Stdio, Terminal, stdio_owners, wait
from .resources import before_entering, cgroup_owner, cgroup_path, for_cgroups, for_update

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from boxship.libcontainer.cgroups.layout import Layout
    from boxship.libcontainer.cgroups.manager import Manager, Stats

OCI_VERSION = "1.3.0"
CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"


class Container:
    """One container; made by ``create`` or found by ``load``."""

    def __init__(self, root: str, record: "dict[str, Any]", machine: Host) -> None:
        self.root = root
        self.id: str = record["id"]
        self.bundle: str = record.get("bundle") or ""
        self.console = -1
        self.notes: list[str] = record.get("notes") or []
        self.times: list[int] = []
        self.plan: Plan | None = None
        self._record = record
        self._host = machine
        self._run: Run | None = None
        self._groups: Manager | None = None
        self._processes: list[Process] = []
        self._spec: dict[str, Any] | None = None

    @property
    def pid(self) -> int:
        """Init's pid as the creator sees it, 0 while there is none yet."""
        return int(self._record.get("pid") or 0)

    @property
    def directory(self) -> str:
        return self.root + "/" + self.id

    @property
    def spec(self) -> "dict[str, Any]":
        """The parsed config.json; read again from the state or bundle after ``load``."""
        if self._spec is None:
            self._spec = read_spec(self.directory if self._record.get("own_config") else self.bundle)
        return self._spec

    @property
    def cgroups(self) -> "Manager":
        if self._groups is None:
            paths = self._record.get("cgroups") or {}
            groups = cgroups.from_paths(self._host.cgroups, paths, self._record.get("unit"))
            if not paths:
                return groups  # they are not written down yet
            self._groups = groups
        return self._groups

    # ── Creating ──

    @classmethod
    def create(
        cls,
        id: str,
        bundle: str,
        *,
        root: str = store.DEFAULT_ROOT,
        spec: "dict[str, Any] | None" = None,
        keep_spec: bool = True,
        stdio: "Stdio | Terminal | None" = None,
        rootfs_mounts: "Sequence[tuple[str, str, Sequence[str]]]" = (),
        cgroup_manager: str = "cgroupfs",
        no_pivot: bool = False,
        new_keyring: bool = True,
        preserve_fds: int = 0,
        trace: bool = False,
        checked: bool = False,
        claimed: "Callable[[str], None] | None" = None,
        host: "Host | None" = None,
    ) -> "Container":
        """Make everything and stop right before the program; then ``start`` it.

        A ``spec`` that is given is kept with the state, for a later exec, unless ``keep_spec`` is False because the
        bundle holds the same.
        ``cgroup_manager`` is "cgroupfs", "systemd" (a scope asked for over D-Bus) or "none".
        ``preserve_fds`` hands the caller's descriptors 3, 4, ... to the program.
        ``checked`` says that `validate.check` has seen the spec already.
        ``claimed`` is called with the state directory as soon as that exists; what it makes there goes with it.
        With ``trace``, ``times`` has the clock (CLOCK_MONOTONIC nanoseconds) at each step of ``plan``.
        Raises InvalidArgument, AlreadyExists, StepFailed, or what the cgroups raise; nothing is left then.
        """
        container = cls.claim(id, bundle, root=root, spec=spec, keep_spec=keep_spec, checked=checked, host=host)
        spec = container.spec
        try:
            if claimed:
                claimed(container.directory)
            container._create(
                container.directory,
                spec,
                stdio or Stdio(),
                Request(
                    spec,
                    id=id,
                    bundle=container.bundle,
                    rootfs_mounts=rootfs_mounts,
                    no_pivot=no_pivot,
                    new_keyring=new_keyring,
                    preserve_fds=preserve_fds,
                    cache=root + "/.seccomp",
                ),
                cgroup_manager,
                trace,
            )
        except BaseException as error:
            container.undo()
            container._keep_failure(error)
            raise
        return container

    @classmethod
    def claim(
        cls,
        id: str,
        bundle: str,
        *,
        root: str = store.DEFAULT_ROOT,
        spec: "dict[str, Any] | None" = None,
        keep_spec: bool = True,
        checked: bool = False,
        host: "Host | None" = None,
    ) -> "Container":
        """A container of which there is only the name: the first step of ``create`` and of a restore."""
        machine = host or _host()
        own_config = spec is not None and keep_spec
        bundle = os.path.abspath(bundle)
        if spec is None:
            spec = read_spec(bundle)
        if not checked:
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
        container = cls(root, record, machine)
        container._spec = spec
        return container

    def _create(
        self,
        directory: str,
        spec: "dict[str, Any]",
        stdio: "Stdio | Terminal",
        request: Request,
        cgroup_manager: str,
        trace: bool,
    ) -> None:
        record = self._record
        triple = (-1, -1, -1) if isinstance(stdio, Terminal) else stdio.triple()
        # First of all the executor: it starts up while we find out what it shall do.
        run = self._run = Run(stdio=triple, trace=trace)
        record["rootfs"] = request.rootfs = _rootfs(self.bundle, spec, request.rootfs_mounts)
        if record["own_config"]:
            store.write(directory, store.CONFIG, spec)
        manager = self._manager(spec, cgroup_manager)
        manager.claim()
        tasks = manager.tasks_files()
        request.tasks = len(tasks)
        request.cgroup = manager.directory()
        request.cgroup_paths = manager.paths
        user = (spec.get("process") or {}).get("user") or {}
        uid = user.get("uid", 0)
        if isinstance(stdio, Terminal):
            request.terminal, request.relayed = True, stdio.relayed
            request.columns, request.rows = stdio.width, stdio.height
        else:
            request.stdio_owners = stdio_owners(triple, host_id(spec, uid))
        complete = False
        if request.cgroup or manager.unit:
            # The clone goes right into it: on v2 into the whole of it, on a hybrid host into the unified group.
            self._record_cgroups(manager, directory)
            complete = manager.create_target(run.stage)
        if complete:
            owner = cgroup_owner(spec)
            if owner:
                manager.own(owner)
            manager.apply(for_cgroups(spec.get("linux") or {}))

        def begin(plan: Plan) -> None:
            listener = _listen(directory)
            try:
                handles = [listener.fileno(), *range(3, 3 + request.preserve_fds)]
                run.extend(plan, handles, last=False)
            finally:
                listener.close()

        home = _home(spec, uid, record["rootfs"], request.rootfs_mounts)
        plan = compile_spec(request, self._host, home=home, begin=begin)
        self.plan = plan
        self.notes = record["notes"] = plan.notes
        record["after_start"] = _after_start(plan)
        run.extend(plan)
        if not complete:
            if not request.cgroup:
                self._record_cgroups(manager, directory)
            manager.create()
            manager.apply(before_entering(spec))
        if not manager.paths:
            limits = for_cgroups(spec.get("linux") or {})
            del limits["devices"]
            if cgroup_manager == "none" and any(limits.values()):
                plan.notes.append(f"linux.resources ({', '.join(limits)}): cgroups are disabled, no limit is set")
            elif cgroup_manager != "none":
                manager.apply(limits)  # refuses what it cannot do
        for op in plan.ops:
            if isinstance(op, Await):
                self._meet(op.name, run, tasks)
        self.console = run.handle_received
        run.handle_received = -1
        if (spec.get("linux") or {}).get("intelRdt") is not None:
            self._enter_rdt_class(directory, spec["linux"]["intelRdt"], run.pid)
        run.keep()
        self.times = run.times

    def _meet(self, name: str, run: Run, tasks: "list[str]") -> None:
        """What the creator does at a meeting point."""
        spec = self.spec
        if name == CGROUPS:
            files: list[int] = []
            resources = for_cgroups(spec.get("linux") or {})
            manager = self.cgroups
            if self.plan is not None and not self.plan.nodes_first:
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
            self._record_process(run.pid)
        run.until(name)
        if name == IDS_MAPPED:
            write_maps(run.pid, spec, self._host)
            run.go()
        elif name == compile_hooks.RUNTIME_HOOKS:
            text = self.state_json(CREATING)
            for kind in ("prestart", "createRuntime"):
                self._run_hooks(kind, text)
            run.go(text)
        elif name == "net-devices":
            from .netdevices import move

            move(spec["linux"]["netDevices"], run.pid)
            run.go()
        elif name == SECCOMP_AGENT:
            self._to_seccomp_agent(run, CREATED)

    def _exec_with_seccomp_agent(self, run: Run, plan: Plan, status: str) -> None:
        """The meeting point of an exec whose filter has a listener."""
        if not any(isinstance(op, Await) and op.name == SECCOMP_AGENT for op in plan.ops):
            return
        try:
            run.until_cloned()
            run.until(SECCOMP_AGENT)
            self._to_seccomp_agent(run, status)
        except BaseException:
            run.abort()
            raise

    def _to_seccomp_agent(self, run: Run, status: str) -> None:
        """Connect to the agent for the process of this run, which sends the message itself."""
        from .seccomp import agent

        seccomp = self.spec["linux"]["seccomp"]
        connection = agent.connect(seccomp["listenerPath"])
        try:
            metadata = seccomp.get("listenerMetadata") or ""
            text = agent.message(OCI_VERSION, run.pid, metadata, self.state(status))
            run.go(text, handles=(connection.fileno(),))
        finally:
            connection.close()

    def _record_process(self, pid: int) -> None:
        """Write down the pid while its owner is still at work.

        Who reads "created" too early loses nothing: a start waits in the socket's queue, and should the creator die
        the process ends by itself and the container is stopped.
        """
        self._record["pid"] = pid
        self._record["start_time"] = store.start_time(pid)[1]
        self._record["status"] = CREATED
        store.write(self.directory, store.STATE, self._record)

    def _manager(self, spec: "dict[str, Any]", kind: str) -> "Manager":
        if kind == "none":
            return cgroups.NoManager()
        path = (spec.get("linux") or {}).get("cgroupsPath") or ""
        if kind == "systemd":
            from .cgroups import systemd

            return systemd.manager(self._host.cgroups, self.id, path, spec)
        return cgroups.manager(self._host.cgroups, self.id, cgroup_path(path))

    def _record_cgroups(self, manager: "Manager", directory: str) -> None:
        """Write down which they are: before they are made."""
        self._groups = manager
        self._record["cgroups"] = manager.paths
        if manager.unit:
            self._record["unit"] = manager.unit
        store.write(directory, store.STATE, self._record)

    # For the restoration of a checkpoint (restore.py), which makes the processes in another way.

    @property
    def layout(self) -> "Layout":
        """How this host mounts its cgroups."""
        return self._host.cgroups

    def begin_restore(self) -> None:
        """Right after ``claim``: find the root file system, and write down what a later exec needs."""
        self._record["rootfs"] = _rootfs(self.bundle, self.spec, ())
        if self._record["own_config"]:
            store.write(self.directory, store.CONFIG, self.spec)

    def make_cgroups(self, kind: str, pid: int) -> "Manager":
        """The container's cgroups, for the process ``pid`` to enter; recorded before they are made."""
        manager = self._manager(self.spec, kind)
        manager.claim()
        self._record_cgroups(manager, self.directory)
        if not manager.create_target(pid):
            manager.create()
        return manager

    def restoring(self, pid: int) -> None:
        """The namespaces are there, with ``pid`` as their first process: the runtime's hooks."""
        self._record["pid"] = pid
        text = self.state_json(CREATING)
        for kind in ("prestart", "createRuntime"):
            self._run_hooks(kind, text)

    def restored(self, pid: int) -> None:
        """The processes are there, and go on when we return."""
        # criu puts a container into a time namespace, so that its clocks go on where they stood.
        self._record["own_time"] = os.readlink(f"/proc/{pid}/ns/time") != os.readlink("/proc/self/ns/time")
        self._record_process(pid)
        self._record["status"] = RUNNING

    def undo(self) -> None:
        """After a failed create: end what runs, remove what was made."""
        if self._run is not None:
            self._run.abort()
        if self.console >= 0:
            os.close(self.console)
        manager = self.cgroups
        manager.kill(SIGKILL)
        manager.delete()
        self._leave_rdt_class()
        store.remove(self.root, self.id)

    def _enter_rdt_class(self, directory: str, settings: "dict[str, Any]", pid: int) -> None:
        """linux.intelRdt: what is made is written down before the process is in it."""
        from . import rdt

        self._record["rdt"] = rdt.prepare(settings, self.id, self._host.mounts_of("resctrl"))
        store.write(directory, store.STATE, self._record)
        rdt.enter(self._record["rdt"], pid)

    def update_rdt(self, settings: "dict[str, Any]") -> None:
        """Change what runtime-spec's ``linux.intelRdt`` gave it; raises FailedPrecondition when it gave nothing."""
        if not self._record.get("rdt"):
            raise FailedPrecondition(
                f"update container {self.id!r}: it has no Intel RDT configuration",
                remedy="linux.intelRdt must be in config.json from the start",
            )
        from . import rdt

        rdt.change(self._record["rdt"], settings)

    def _leave_rdt_class(self) -> None:
        if self._record.get("rdt"):
            from . import rdt

            rdt.remove(self._record["rdt"])

    def _keep_failure(self, error: BaseException) -> None:
        """For ``explain``, which shows the plan with the step that failed."""
        if isinstance(error, StepFailed):
            from . import failures
            from .places import json_path

            purpose = self.plan.purpose(error.step - 1) if self.plan is not None and self.plan.ops else ""
            place = json_path(purpose or error.message.partition(": ")[2], self.spec)
            if place and error.message.startswith(("step ", "error running ")):
                error.message = f"{place}: {error.message}"
            failures.record(self.root, self.bundle, self.id, self.plan, error)

    # ── Starting ──

    def start(self) -> None:
        """Let the created process execute its program; returns when it has.

        Raises FailedPrecondition when the container is not in the state created, StepFailed (CommandFailed for a
        missing program) when the program cannot be executed; the container is stopped then.
        """
        if self._run is not None:
            run, self._run = self._run, None
            try:
                run.go(self.state_json(CREATED))
                run.finish()
            except BaseException as error:
                run.abort()
                self._keep_failure(error)
                raise
            self.times = run.times or self.times
        else:
            self._start_from_outside()
        try:
            os.unlink(self.directory + "/" + store.SOCKET)
        except FileNotFoundError:
            pass  # deleted meanwhile
        self._record["status"] = RUNNING
        try:
            self._run_hooks("poststart", self.state_json(RUNNING))
        except BoxshipError:
            self.delete(force=True)  # runtime-spec, lifecycle, step 9
            raise

    def _start_from_outside(self) -> None:
        """Start a container that another process created: through its socket."""
        status = self.status()
        if status != CREATED:
            raise FailedPrecondition(f"cannot start container {self.id!r}: it is {status}")
        connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
        try:
            directory = os.open(self.directory, os.O_PATH | os.O_CLOEXEC)
            try:
                connection.connect(f"/proc/self/fd/{directory}/{store.SOCKET}")
            except OSError as error:
                if error.errno in (ECONNREFUSED, ENOENT):
                    raise FailedPrecondition(
                        f"cannot start container {self.id!r}: it was started meanwhile, or has ended"
                    ) from error
                raise
            finally:
                os.close(directory)
            connection.sendall(b"g" + self.state_json(CREATED))
            hook = ""
            while True:
                data = connection.recv(65536)
                if not data:
                    return
                kind, step, value = codec.REPORT.unpack_from(data)
                if kind == codec.HOOK_ENDED:
                    hook = hook_ended(value, data[codec.REPORT.size :])
                if kind == codec.FAILED:
                    failure = self._failed_after_start(step, value, hook)
                    self._keep_failure(failure)
                    raise failure
        except ConnectionResetError as error:
            raise FailedPrecondition(f"cannot start container {self.id!r}: another start was faster") from error
        finally:
            connection.close()

    def _failed_after_start(self, step: int, number: int, hook: str) -> BoxshipError:
        recorded: tuple[int, dict[str, str]] = self._record.get("after_start") or (0, {})
        total, steps = recorded
        name = os.strerror(number).lower()
        purpose = steps.get(str(step), "")
        if hook:
            text = f"error running {purpose.removeprefix('run ')}"
            return StepFailed(text, step=step + 1, total=total, errno=number, cause=hook)
        return StepFailed(
            f"step {step + 1} of {total}: {purpose}", step=step + 1, total=total, errno=number, cause=name
        )

    def wait(self) -> int:
        """Wait for init and reap it: its exit code, or 128 + signal. Only in the process that created it."""
        return wait(self.pid)

    def detach(self) -> None:
        """Let go of a created container, so that another process can start it; closing twice is fine."""
        if self._run is not None:
            self._run.close()
            self._run = None

    # ── Running ──

    def exec(
        self,
        process: "dict[str, Any]",
        *,
        stdio: "Stdio | Terminal | None" = None,
        preserve_fds: int = 0,
        sub_cgroups: "dict[str, str] | None" = None,
        ignore_paused: bool = False,
        trace: bool = False,
    ) -> Process:
        """Run one more process, given as runtime-spec's ``process``; returns when it was executed.

        Capabilities and noNewPrivileges are the container's unless the process names its own.
        ``sub_cgroups`` are cgroups below the container's to run in, by v1 controller ("" for all of them, and v2).
        With ``ignore_paused`` it is put into a paused container, and returns when that is resumed.
        Raises FailedPrecondition when the container does not run, StepFailed, CommandFailed.
        """
        stdio = stdio or Stdio()
        status = self.status()
        if status not in (RUNNING, CREATED) and not (status == PAUSED and ignore_paused):
            remedy = "resume it first, or use --ignore-paused" if status == PAUSED else ""
            raise FailedPrecondition(f"cannot exec in a {status} container ({self.id!r})", remedy=remedy)
        spec = self.spec
        linux = spec.get("linux") or {}
        own = spec.get("process") or {}
        process = {
            **process,
            "capabilities": process.get("capabilities") or own.get("capabilities"),
            "noNewPrivileges": process.get("noNewPrivileges", own.get("noNewPrivileges")),
        }
        flags = 0
        for namespace in linux.get("namespaces") or ():
            flags |= NAMESPACES[namespace["type"]]
        if self._record.get("own_time"):
            flags |= NAMESPACES["time"]
        manager = self.cgroups
        tasks = manager.tasks_files(sub_cgroups)
        request = Request(
            {"process": process, "linux": linux},
            id=self.id,
            tasks=len(tasks),
            cgroup=manager.exec_directory(self.pid, sub_cgroups),
            preserve_fds=preserve_fds,
            cache=self.root + "/.seccomp",
        )
        uid = (process.get("user") or {}).get("uid", 0)
        triple = (-1, -1, -1)
        if isinstance(stdio, Terminal):
            request.terminal, request.relayed = True, stdio.relayed
            request.columns, request.rows = stdio.width, stdio.height
        else:
            triple = stdio.triple()
            request.stdio_owners = stdio_owners(triple, host_id(spec, uid))
        plan = compile_exec(
            request,
            self._host,
            namespaces_flags=flags,
            home=_home({"process": process}, uid, f"/proc/{self.pid}/root", ()),
        )
        handles = [self._pidfd()]
        try:
            handles += [os.dup(fd) for fd in range(3, 3 + preserve_fds)]
            handles += (os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in tasks)
            run = Run(stdio=triple, trace=trace)
            try:
                run.extend(plan, handles)
            except BaseException:
                run.abort()
                raise
        finally:
            for handle in handles:
                os.close(handle)
        if (linux.get("seccomp") or {}).get("listenerPath"):
            self._exec_with_seccomp_agent(run, plan, status)
        if self._record.get("rdt"):
            from . import rdt

            run.until_cloned()
            rdt.enter(self._record["rdt"], run.pid)
        run.finish()
        self.times, self.plan = run.times, plan
        started = Process(run.pid, run.handle_received)
        self._processes.append(started)
        return started

    def _pidfd(self) -> int:
        """A pidfd of init; raises FailedPrecondition when init is gone, also when its pid was given to another."""
        try:
            pidfd = os.pidfd_open(self.pid) if self.pid else -1
        except OSError as error:
            if error.errno != ESRCH:
                raise
            pidfd = -1
        # The start time is read after the open: while we hold the pidfd the pid cannot be reused unnoticed.
        if pidfd >= 0 and store.start_time(self.pid)[1] == self._record.get("start_time"):
            return pidfd
        if pidfd >= 0:
            os.close(pidfd)
        raise FailedPrecondition(f"container {self.id!r} not running", cause="its process has ended")

    def kill(self, signal: int, *, all: bool = False) -> None:
        """Send a signal to init, or with ``all`` to every process of the container.

        Raises FailedPrecondition when init has ended (not with ``all``).
        """
        if all or (signal == SIGKILL and self._shares_pids()):
            # With a pid namespace of its own the kernel ends all with init (pid_namespaces(7)); without, we do.
            manager = self.cgroups
            if all or (manager.paths and manager.procs()):
                manager.kill(signal)
                return
        status = self.status()
        if status == STOPPED:
            raise FailedPrecondition(f"container {self.id!r} not running")
        pidfd = self._pidfd()
        try:
            pidfd_send_signal(pidfd, signal)
            if signal == SIGKILL and status == PAUSED:
                self.cgroups.thaw()  # a frozen v1 cgroup would keep the signal waiting
        except ProcessLookupError as error:
            raise FailedPrecondition(f"container {self.id!r} not running", cause="ESRCH") from error
        finally:
            os.close(pidfd)

    def _shares_pids(self) -> bool:
        """Whether its processes live in a pid namespace that is not its own."""
        for namespace in (self.spec.get("linux") or {}).get("namespaces") or ():
            if namespace["type"] == "pid":
                return bool(namespace.get("path"))
        return True

    def pause(self) -> None:
        """Freeze every process of the container."""
        self._must_be(RUNNING, CREATED)
        self.cgroups.freeze()

    def resume(self) -> None:
        """Let a paused container go on."""
        self._must_be(PAUSED)
        self.cgroups.thaw()

    def _must_be(self, *wanted: str) -> None:
        status = self.status()
        if status not in wanted:
            raise FailedPrecondition(f"container {self.id!r} is {status}, not {' or '.join(wanted)}")

    def pids(self) -> "list[int]":
        """The pids of all processes of the container, as the host sees them."""
        manager = self.cgroups
        if manager.paths:
            return sorted(manager.procs())
        return [self.pid] if self.status() not in (STOPPED, CREATING) else []

    def stats(self, *, whole: bool = False) -> "Stats":
        """One reading of the cgroups' counters; ``whole`` reads the rarely wanted ones too."""
        return self.cgroups.stats(whole)

    def update(self, resources: "dict[str, Any]") -> None:
        """Change limits, given as runtime-spec's ``linux.resources``; what is not named stays as it is.

        Device rules replace those in force; what every container may use stays allowed.
        Raises InvalidArgument, FailedPrecondition.
        """
        self.cgroups.apply(for_update(resources))

    def status(self) -> str:
        """creating, created, running, paused or stopped, as it is now."""
        if self._record["status"] == CREATING:
            # A creator that died takes what it had begun with it: the executor ends when its socket does.
            return CREATING if self._creator_lives() else STOPPED
        letter, started = store.start_time(self.pid)
        if letter in ("", "Z", "X") or started != self._record["start_time"]:
            return STOPPED
        if os.path.exists(self.directory + "/" + store.SOCKET):
            return CREATED
        return PAUSED if self._record.get("cgroups") and self.cgroups.frozen() else RUNNING

    def state(self, status: str = "") -> "dict[str, Any]":
        """The state as runtime-spec has it (runtime.md, State)."""
        status = status or self.status()
        found: dict[str, Any] = {
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": status,
            "pid": 0 if status == STOPPED else self.pid,
            "bundle": self.bundle,
        }
        if self._record.get("annotations"):
            found["annotations"] = self._record["annotations"]
        return found

    def state_json(self, status: str = "") -> bytes:
        return cold_json.dumps(self.state(status)).encode()

    @property
    def created(self) -> str:
        """When it was created, as RFC 3339 text."""
        return str(self._record.get("created") or "")

    @property
    def rootfs(self) -> str:
        return str(self._record.get("rootfs") or "")

    def steps(self) -> "Iterator[tuple[str, int, int]]":
        """What the executor did and when, with ``trace``: (purpose, start, end) in CLOCK_MONOTONIC nanoseconds."""
        if self.plan is None or not self.times:
            return
        purposes = self.plan.purposes
        for n, (first, text) in enumerate(purposes):
            last = purposes[n + 1][0] if n + 1 < len(purposes) else len(self.plan.ops)
            if first < last < len(self.times):
                yield text, self.times[first], self.times[last]

    # ── Ending ──

    def delete(self, *, force: bool = False) -> None:
        """Remove everything; a running container only with ``force``. Deleting twice is fine."""
        status = self.status()
        if status in (RUNNING, PAUSED) and not force:
            raise FailedPrecondition(
                f"cannot delete container {self.id!r}: it is {status}", remedy="stop it first, or use --force"
            )
        if status == CREATING and not force:
            raise FailedPrecondition(f"cannot delete container {self.id!r}: it is being created")
        manager = self.cgroups
        if status != STOPPED:
            self._end_init()
        self.detach()
        # Without a pid namespace of its own the container's other processes outlive init.
        deadline = monotonic() + 10
        while manager.procs():
            manager.kill(SIGKILL)
            if monotonic() > deadline:
                raise Unavailable(f"delete container {self.id!r}: its processes do not end", remedy="state D?")
            sleep(0.001)
        manager.delete()
        self._leave_rdt_class()
        store.remove(self.root, self.id)
        self._run_hooks("poststop", self.state_json(STOPPED))

    def _run_hooks(self, kind: str, text: bytes) -> None:
        """Those of the runtime's namespaces; a poststop hook that fails is only noted (runtime-spec, step 13)."""
        found = compile_hooks.of(self._record, kind)
        if found:
            from boxship.libcontainer import hooks

            hooks.run(
                kind,
                found,
                text,
                bundle=self.bundle or "/",
                annotations=self._record.get("annotations"),
                warn=self.notes.append if kind == "poststop" else None,
            )

    @property
    def creator(self) -> "tuple[int, int]":
        """(pid, start time) of the process that created it, as the host sees them."""
        pid, started = self._record.get("creator") or (0, 0)
        return pid, started

    def _creator_lives(self) -> bool:
        pid, started = self.creator
        return bool(pid) and store.start_time(pid)[1] == started

    def _end_init(self) -> None:
        """Kill init and wait until it is gone; a child of ours is reaped by whoever waits for it."""
        try:
            pidfd = self._pidfd()
        except FailedPrecondition:
            return
        try:
            pidfd_send_signal(pidfd, SIGKILL)
            if self.cgroups.paths and self.cgroups.frozen():
                self.cgroups.thaw()
            # A pid namespace ends only when all that were in it are reaped; those that we started are ours to reap.
            deadline = monotonic() + 10
            thawed = monotonic() + 0.2
            while not _wait_for_end(pidfd, 20) and monotonic() < deadline:
                for process in self._processes:
                    process.reap()
                if thawed and monotonic() > thawed:
                    thawed = 0.0
                    thaw_process(self._host.cgroups, self.pid)
            if not _wait_for_end(pidfd, 0):
                raise Unavailable(f"delete container {self.id!r}: its init does not end", remedy="state D?")
        except ProcessLookupError:
            return
        finally:
            os.close(pidfd)
        try:
            os.waitpid(self.pid, os.WNOHANG)
        except OSError as error:
            if error.errno != ECHILD:  # not ours
                raise

    # ── Finding ──

    @classmethod
    def load(cls, id: str, *, root: str = store.DEFAULT_ROOT, host: "Host | None" = None) -> "Container":
        """The container of that id; raises NotFound."""
        return cls(root, store.read(root, id), host or _host())

    @classmethod
    def list(cls, *, root: str = store.DEFAULT_ROOT) -> "list[Container]":
        """All containers below ``root``, by id."""
        found = []
        for id in store.ids(root):
            try:
                found.append(cls.load(id, root=root))
            except NotFound:
                continue  # deleted meanwhile
        return found


_host = host


def _wait_for_end(pidfd: int, milliseconds: int) -> bool:
    from select import poll

    poller = poll()
    poller.register(pidfd, 1)
    return bool(poller.poll(milliseconds))


def read_spec(bundle: str, file: str = "") -> "dict[str, Any]":
    """config.json of a bundle, or another ``file`` instead; raises NotFound, InvalidArgument."""
    path = file or bundle + "/config.json"
    try:
        with open(path, "rb", buffering=0) as f:
            spec = cold_json.loads(f.read(), path)
    except FileNotFoundError as error:
        what = f"{file} not found" if file else f"config.json not found in {bundle}"
        raise NotFound(f"JSON specification file {what}", remedy="make one with boxship-runc spec") from error
    if not isinstance(spec, dict):
        raise InvalidArgument(f"{path}: must be a JSON object")
    return spec


def _rootfs(bundle: str, spec: "dict[str, Any]", mounts: "Sequence[tuple[str, str, Sequence[str]]]") -> str:
    path = (spec.get("root") or {}).get("path") or ("rootfs" if mounts else "")
    if not path:
        raise InvalidArgument("root.path is missing")
    full = path if path.startswith("/") else bundle + "/" + path
    if not mounts and not os.path.isdir(full):
        raise InvalidArgument(f"root.path {full}: no such directory")
    # Where hooks run before the pivot it is attached at its path, and mounts are not moved onto links.
    return os.path.realpath(full) if os.path.islink(full) else os.path.normpath(full)


def _home(spec: "dict[str, Any]", uid: int, rootfs: str, mounts: "Sequence[tuple[str, str, Sequence[str]]]") -> str:
    if has_home((spec.get("process") or {}).get("env") or ()):
        return ""
    return home(uid, rootfs, mounts)


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
