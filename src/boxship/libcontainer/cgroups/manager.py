"""Making, filling, reading and removing a container's cgroups.

The lifecycle: ``create_target`` makes what the container's first process is cloned into, ``create`` the rest,
``apply`` writes the limits, the process *enters by itself* (``tasks_files`` on v1, ``directory`` for
CLONE_INTO_CGROUP on v2), ``delete`` removes all.
Nothing here ever writes a pid into ``cgroup.procs``: such a move waits 7 to 20 ms for an RCU grace period.
All of it is idempotent: a repeated create finds the directories, a repeated delete finds none.
Who makes a container says so with ``claim``: groups that exist already must then be empty and not frozen.
"""

import os
from time import monotonic, sleep

from boxship.errors import AlreadyExists, FailedPrecondition, InvalidArgument, Unavailable

from . import tree
from .layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from .cpu import CpuStats, Pressure
    from .cpuset import CpusetStats
    from .hugetlb import HugetlbStats
    from .io import Entry, Row
    from .memory import MemoryStats
    from .pids import PidsStats
    from .v1 import V1Manager
    from .v2 import V2Manager

    class Manager(Protocol):
        """One container's cgroups on one kind of host; see the module for the lifecycle."""

        @property
        def paths(self) -> "dict[str, str]": ...
        @property
        def unit(self) -> "dict[str, Any]": ...
        def claim(self) -> None: ...
        def create_target(self, pid: int = 0) -> bool: ...
        def create(self) -> None: ...
        def own(self, uid: int) -> None: ...
        def apply(self, resources: "dict[str, object]") -> None: ...
        def tasks_files(self, below: "dict[str, str] | None" = None) -> "list[str]": ...
        def directory(self) -> str: ...
        def exec_directory(self, init: int, below: "dict[str, str] | None" = None) -> str: ...
        def procs(self) -> "list[int]": ...
        def freeze(self) -> None: ...
        def thaw(self) -> None: ...
        def frozen(self) -> bool: ...
        def kill(self, signal: int) -> None: ...
        def stats(self, whole: bool = False) -> "Stats": ...
        def oom_directory(self) -> str: ...
        def delete(self) -> None: ...


class Stats:
    """One reading of a container's counters.

    The last five are filled by ``stats(whole=True)`` only: v1's cpusets, huge pages by size, rdma's current and
    highest numbers by device, runc's tables of block I/O, and pressure by controller.
    """

    __slots__ = ("cpu", "cpuset", "hugetlb", "io", "io_tables", "memory", "pids", "pressure", "rdma")

    def __init__(self, cpu: "CpuStats", memory: "MemoryStats", pids: "PidsStats", io: "list[Entry]") -> None:
        self.cpu = cpu
        self.memory = memory
        self.pids = pids
        self.io = io
        self.cpuset: CpusetStats | None = None
        self.hugetlb: dict[str, HugetlbStats] = {}
        self.rdma: dict[str, dict[str, dict[str, int]]] = {}
        self.io_tables: dict[str, list[Row]] = {}
        self.pressure: dict[str, dict[str, Pressure]] = {}


class BaseManager:
    """What v1 and v2 do alike, over ``paths`` (controller -> directory)."""

    def __init__(self, paths: "dict[str, str]") -> None:
        self.paths = paths
        self.unit: dict[str, Any] = {}

    def _text(self, controller: str, file: str) -> str:
        directory = self._directory(controller)
        return tree.read(directory + "/" + file) if directory else ""

    def _directory(self, controller: str) -> str:
        return self.paths.get(controller, "")

    def _main(self) -> str:
        """The directory whose processes are the container's."""
        raise NotImplementedError

    def frozen(self) -> bool:
        raise NotImplementedError

    def thaw(self) -> None:
        raise NotImplementedError

    def procs(self) -> "list[int]":
        return tree.processes(self._main())

    def claim(self) -> None:
        """Make sure that a group which exists already has no processes, as two containers would share their end.

        Raises AlreadyExists, FailedPrecondition.
        """
        main = self._main()
        # On v1 the freezer's group may be there alone; the first process would stop in it for ever.
        if self.frozen():
            raise FailedPrecondition(
                f"container's cgroup unexpectedly frozen: {main}", remedy="thaw it, or choose another cgroupsPath"
            )
        if not main or not os.path.isdir(main):
            return
        found = self.procs()
        if found:
            raise AlreadyExists(
                f"container's cgroup is not empty: {len(found)} process(es) found in {main}",
                remedy="choose another cgroupsPath",
            )

    def _wait_frozen(self) -> None:
        """Wait until every process of the group has stopped; after 2 s give up and let it go on."""
        deadline = monotonic() + 2
        while not self.frozen():
            if monotonic() > deadline:
                self.thaw()
                raise Unavailable(
                    f"freeze cgroup {self._main()}: not frozen after 2 s", remedy="a process may be in state D"
                )
            sleep(0.001)

    def delete(self) -> None:
        deadline = monotonic() + 2
        for directory in dict.fromkeys(self.paths.values()):
            tree.remove(directory, deadline)


class NoManager:
    """A host, or a user, without cgroups: no limits can be set, nothing is counted."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}
        self.unit: dict[str, Any] = {}

    def claim(self) -> None:
        return

    def create_target(self, pid: int = 0) -> bool:
        return False

    def create(self) -> None:
        return

    def own(self, uid: int) -> None:
        return

    def apply(self, resources: "dict[str, object]") -> None:
        limits = sorted(key for key, value in resources.items() if value and key != "devices")
        if limits:
            raise FailedPrecondition(
                f"set limits ({', '.join(limits)}): no cgroup hierarchy is mounted",
                remedy="mount cgroup2 on /sys/fs/cgroup, or leave the limits out",
            )

    def tasks_files(self, below: "dict[str, str] | None" = None) -> "list[str]":
        return []

    def directory(self) -> str:
        return ""

    def exec_directory(self, init: int, below: "dict[str, str] | None" = None) -> str:
        return ""

    def procs(self) -> "list[int]":
        return []

    def freeze(self) -> None:
        raise FailedPrecondition("pause a container: no cgroup hierarchy is mounted")

    thaw = freeze

    def frozen(self) -> bool:
        return False

    def kill(self, signal: int) -> None:
        return

    def stats(self, whole: bool = False) -> Stats:
        from . import cpu, memory, pids

        def read(controller: str, file: str) -> str:
            return ""

        return Stats(cpu.stats_v1(read), memory.stats_v1(read), pids.stats(read), [])

    def oom_directory(self) -> str:
        return ""

    def delete(self) -> None:
        return


def sub_group(directory: str, path: str) -> str:
    """A group below the container's own, where a process shall go. Raises InvalidArgument, FailedPrecondition."""
    try:
        inside = clean("--cgroup", path)
    except InvalidArgument as error:
        raise InvalidArgument(f"bad sub cgroup path: {path}", remedy="it must be below the container's") from error
    found = f"{directory}/{inside}" if inside else directory
    if not os.path.isdir(found):
        raise FailedPrecondition(f"adding pid of the process to cgroups: {found}: no such file or directory")
    return found


def clean(name: str, path: str) -> str:
    """A cgroup path without ``.`` and doubled slashes, relative; raises InvalidArgument for one that climbs."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidArgument(f"{name} {path!r} must not contain '..'")
    return "/".join(parts)


def manager(layout: Layout, id: str, cgroups_path: str = "") -> "Manager":
    """The manager of container ``id`` on this host.

    ``cgroups_path`` is ``linux.cgroupsPath``: absolute from the mount point, relative below the caller's own
    cgroup (on v2 beside it, because a group with processes cannot hand controllers on); without one the container
    gets ``/boxship/<id>`` (runtime-spec, Cgroups Path).
    Raises InvalidArgument for a path with ``..``.
    """
    path = clean(f"linux.cgroupsPath of container {id!r}:", cgroups_path) or "boxship/" + id
    below_own = bool(cgroups_path) and not cgroups_path.startswith("/")

    def full(mount: str, key: str) -> str:
        own = layout.own.get(key, "") if below_own else ""
        if not key:
            own = own.rpartition("/")[0]
        return "/".join(part for part in (mount, own, path) if part)

    if layout.mode in ("v1", "hybrid"):
        from .v1 import V1Manager

        paths = {key: full(mount, key) for key, mount in layout.v1.items()}
        if layout.unified and cgroups_path:
            # Beside v1 the unified tree is for who looks containers up in it, as callers who name a path do.
            paths[""] = full(layout.unified, "")
        return V1Manager(paths)
    if layout.mode == "v2":
        from .v2 import V2Manager

        return V2Manager({"": full(layout.unified, "")}, layout.unified)
    return NoManager()


def from_paths(layout: Layout, paths: "dict[str, str]", unit: "dict[str, Any] | None" = None) -> "Manager":
    """The manager of a container that exists, from what its state recorded: ``paths`` and systemd's ``unit``."""
    if not paths:
        return NoManager()
    if [*paths] == [""]:
        from .v2 import V2Manager

        v2 = V2Manager(paths, layout.unified)
        return _with_unit(v2, unit) if unit else v2
    from .v1 import V1Manager

    v1 = V1Manager(paths)
    return _with_unit(v1, unit) if unit else v1


def _with_unit(inner: "V1Manager | V2Manager", unit: "dict[str, Any]") -> "Manager":
    from .systemd import SystemdManager

    return SystemdManager(inner, unit)
