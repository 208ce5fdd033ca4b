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
from errno import ESRCH

from boxship.errors import BoxshipError, FailedPrecondition, InvalidArgument, NotFound
from boxship.libcontainer import state as store
from boxship.linux.abi.process import SIGKILL
from boxship.oci import cold_json

from .process import Process, Stdio, wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from boxship.libcontainer.cgroups.layout import Layout
    from boxship.libcontainer.cgroups.manager import Manager, Stats

    from .compile import Plan
    from .executor import Run
    from .host import Host
    from .process import Terminal

OCI_VERSION = "1.3.0"
CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"


class Container:
    """One container; made by ``create`` or found by ``load``."""

    def __init__(self, root: str, record: "dict[str, Any]", machine: "Host | None") -> None:
        self.root = root
        self.id: str = record["id"]
        self.bundle: str = record.get("bundle") or ""
        self.console = -1
        self.notes: list[str] = record.get("notes") or []
        self.times: list[int] = []
        self.plan: Plan | None = None
        self._record = record
        self._machine = machine
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
    def host(self) -> "Host":
        """The machine that it is on; looked at when first needed."""
        if self._machine is None:
            from .host import host

            self._machine = host()
        return self._machine

    @property
    def spec(self) -> "dict[str, Any]":
        """The parsed config.json; read again from the state or bundle after ``load``."""
        if self._spec is None:
            self._spec = read_spec(self.directory if self._record.get("own_config") else self.bundle)
        return self._spec

    @property
    def cgroups(self) -> "Manager":
        if self._groups is None:
            from boxship.libcontainer import cgroups

            paths = self._record.get("cgroups") or {}
            groups = cgroups.from_paths(self.host.cgroups, paths, self._record.get("unit"))
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
        from . import making  # who starts, signals or deletes a container needs no compiler

        return making.create(
            id,
            bundle,
            root=root,
            spec=spec,
            keep_spec=keep_spec,
            stdio=stdio or Stdio(),
            rootfs_mounts=rootfs_mounts,
            cgroup_manager=cgroup_manager,
            no_pivot=no_pivot,
            new_keyring=new_keyring,
            preserve_fds=preserve_fds,
            trace=trace,
            checked=checked,
            claimed=claimed,
            host=host,
        )

    # For the restoration of a checkpoint (restore.py), which makes the processes in another way.

    @property
    def layout(self) -> "Layout":
        """How this host mounts its cgroups."""
        return self.host.cgroups

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

    # ── Starting ──

    def start(self) -> None:
        """Let the created process execute its program; returns when it has.

        Raises FailedPrecondition when the container is not in the state created, StepFailed (CommandFailed for a
        missing program) when the program cannot be executed, NeverExecuted when the process was killed before it did;
        the container is stopped then.
        """
        if self._run is not None:
            run, self._run = self._run, None
            try:
                run.go(self._state_for("startContainer", CREATED))
                run.finish()
            except BaseException as error:
                run.abort()
                from . import failures

                failures.blame_memory(self, error)
                failures.keep(self, error)
                raise
            self.times = run.times or self.times
        else:
            from . import starting

            starting.start(self)
        try:
            os.unlink(self.directory + "/" + store.SOCKET)
        except FileNotFoundError:
            pass  # deleted meanwhile
        self._record["status"] = RUNNING
        try:
            self._run_hooks("poststart", RUNNING)
        except BoxshipError:
            self.delete(force=True)  # runtime-spec, lifecycle, step 9
            raise

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
        Raises FailedPrecondition when the container does not run, StepFailed, CommandFailed, NeverExecuted.
        """
        from .execute import execute

        return execute(
            self,
            process,
            stdio=stdio or Stdio(),
            preserve_fds=preserve_fds,
            sub_cgroups=sub_cgroups,
            ignore_paused=ignore_paused,
            trace=trace,
        )

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
        from .resources import for_update

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
        from . import ending  # who creates or starts one need not read it

        ending.delete(self, force=force)

    def _state_for(self, kind: str, status: str) -> bytes:
        """The state for the hooks of that kind; nothing where there are none."""
        return self.state_json(status) if (self._record.get("hooks") or {}).get(kind) else b""

    def _run_hooks(self, kind: str, status: str) -> None:
        """Those of the runtime's namespaces; a poststop hook that fails is only noted (runtime-spec, step 13)."""
        found = (self._record.get("hooks") or {}).get(kind)
        if found:
            from boxship.libcontainer import hooks

            hooks.run(
                kind,
                found,
                self.state_json(status),
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

    # ── Finding ──

    @classmethod
    def load(cls, id: str, *, root: str = store.DEFAULT_ROOT, host: "Host | None" = None) -> "Container":
        """The container of that id; raises NotFound."""
        return cls(root, store.read(root, id), host)

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
