"""Making, filling, reading and removing a container's cgroups.

The lifecycle: ``create`` makes the directories, ``apply`` writes the limits, the container's first process
*enters by itself* (``tasks_files`` on v1, ``directory`` for CLONE_INTO_CGROUP on v2), ``delete`` removes all.
Nothing here ever writes a pid into ``cgroup.procs``: such a move waits 7 to 20 ms for an RCU grace period.
All of it is idempotent: a repeated create finds the directories, a repeated delete finds none.
"""

import errno
import os
from time import monotonic, sleep

from boxship.errors import FailedPrecondition, InvalidArgument, Unavailable

from . import cpu, devices, freezer, io, memory, pids
from .layout import Layout
from .writes import Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Manager(Protocol):
        """One container's cgroups on one kind of host; see the module for the lifecycle."""

        paths: dict[str, str]

        def create(self) -> None: ...
        def apply(self, resources: "dict[str, object]") -> None: ...
        def tasks_files(self) -> "list[str]": ...
        def directory(self) -> str: ...
        def procs(self) -> "list[int]": ...
        def freeze(self) -> None: ...
        def thaw(self) -> None: ...
        def frozen(self) -> bool: ...
        def kill(self, signal: int) -> None: ...
        def stats(self) -> "Stats": ...
        def delete(self) -> None: ...


class Stats:
    """One reading of a container's counters."""

    __slots__ = ("cpu", "io", "memory", "pids")

    def __init__(
        self,
        cpu: cpu.CpuStats,
        memory: memory.MemoryStats,
        pids: pids.PidsStats,
        io: "list[io.Entry]",
    ) -> None:
        self.cpu = cpu
        self.memory = memory
        self.pids = pids
        self.io = io


def _write(directory: str, file: str, text: str) -> None:
    fd = os.open(directory + "/" + file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = []
            while part := os.read(fd, 65536):
                parts.append(part)
            return b"".join(parts).decode()
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return ""  # a counter that this kernel or controller does not have
        raise


def _tree(directory: str) -> "list[str]":
    """The directory and all below it, children first."""
    found: list[str] = []
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        return found
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found += _tree(entry.path)
    found.append(directory)
    return found


def _pids(directory: str, file: str) -> "list[int]":
    return [int(line) for sub in _tree(directory) for line in _read(sub + "/" + file).split()]


def _remove(directory: str, deadline: float) -> None:
    """Remove a cgroup and its children; a group whose last process is still being reaped is busy for a moment."""
    for sub in _tree(directory):
        while True:
            try:
                os.rmdir(sub)
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno == errno.ENOTEMPTY:
                    # A child appeared in between: start over below this one.
                    _remove(sub, deadline)
                    break
                if error.errno != errno.EBUSY or monotonic() > deadline:
                    raise FailedPrecondition(
                        f"remove cgroup {sub}",
                        cause=errno.errorcode.get(error.errno or 0, str(error)),
                        remedy="end the processes listed in its cgroup.procs first",
                    ) from error
                sleep(0.001)
            else:
                break


def _refused(controller: str, path: str, text: str, error: OSError) -> "FailedPrecondition | InvalidArgument":
    """What a failed write means to whoever asked for that limit."""
    name = errno.errorcode.get(error.errno or 0, str(error))
    message = f"write {text!r} to {path}"
    if error.errno == errno.ENOENT:
        return FailedPrecondition(
            message, cause=name, remedy=f"this kernel's {controller} controller has no such setting"
        )
    if error.errno in (errno.EINVAL, errno.ERANGE):
        return InvalidArgument(message, cause=name, remedy="the kernel refuses that value")
    if error.errno == errno.EBUSY:
        return FailedPrecondition(message, cause=name, remedy="the limit is below what is in use already")
    return FailedPrecondition(message, cause=name)


class _Manager:
    """What v1 and v2 do alike, over ``paths`` (controller -> directory)."""

    def __init__(self, paths: "dict[str, str]") -> None:
        self.paths = paths

    def _text(self, controller: str, file: str) -> str:
        directory = self._directory(controller)
        return _read(directory + "/" + file) if directory else ""

    def _directory(self, controller: str) -> str:
        return self.paths.get(controller, "")

    def _do(self, writes: "list[Write]") -> None:
        # Rules for one file follow each other (devices.allow): it is opened once for all of them.
        opened, fd = "", -1
        try:
            for controller, file, text in writes:
                directory = self._directory(controller)
                if not directory:
                    raise FailedPrecondition(
                        f"set {file} to {text}: this host has no {controller} cgroup controller",
                        remedy="mount it, or leave that limit out",
                    )
                path = directory + "/" + file
                try:
                    if path != opened:
                        if fd >= 0:
                            os.close(fd)
                            fd = -1
                        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                        opened = path
                    os.write(fd, text.encode())
                except OSError as error:
                    raise _refused(controller, path, text, error) from error
        finally:
            if fd >= 0:
                os.close(fd)

    def delete(self) -> None:
        deadline = monotonic() + 2
        for directory in dict.fromkeys(self.paths.values()):
            _remove(directory, deadline)


def _wait_frozen(manager: "V1Manager | V2Manager") -> None:
    """Wait until every process of the group has stopped; after 2 s give up and let it go on."""
    deadline = monotonic() + 2
    while not manager.frozen():
        if monotonic() > deadline:
            manager.thaw()
            where = next(iter(manager.paths.values()))
            raise Unavailable(f"freeze cgroup {where}: not frozen after 2 s", remedy="a process may be in state D")
        sleep(0.001)


class V1Manager(_Manager):
    """A container in each mounted v1 hierarchy (also the manager of hybrid hosts)."""

    def create(self) -> None:
        for controller, directory in self.paths.items():
            new = True
            try:
                os.mkdir(directory, 0o755)
            except FileExistsError:
                new = False  # a repeated create, or a group that the caller prepared
            except FileNotFoundError:
                os.makedirs(directory, 0o755, exist_ok=True)
            if controller == "cpuset":
                self._inherit_cpuset(directory, new=new)

    def _inherit_cpuset(self, directory: str, *, new: bool = False) -> None:
        """A ``new`` v1 cpuset is empty, and nothing can enter an empty one: fill it, parents first."""
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not new and _read(directory + "/" + file).strip():
                continue
            parent = os.path.dirname(directory)
            value = _read(parent + "/" + file).strip()
            if not value:
                self._inherit_cpuset(parent)
                value = _read(parent + "/" + file).strip()
            _write(directory, file, value)

    def apply(self, resources: "dict[str, object]") -> None:
        self._do(
            devices.v1(resources)
            + memory.v1(resources, self._text)
            + cpu.v1(resources, self._text)
            + pids.writes(resources, self._text)
        )

    def tasks_files(self) -> "list[str]":
        """The files that the container's first process writes ``0`` to, once for each hierarchy."""
        return [directory + "/tasks" for directory in dict.fromkeys(self.paths.values())]

    def directory(self) -> str:
        return ""

    def _directory_for_pids(self) -> str:
        for controller in ("devices", "pids", "freezer", "memory"):
            if controller in self.paths:
                return self.paths[controller]
        return next(iter(self.paths.values()), "")

    def procs(self) -> "list[int]":
        return _pids(self._directory_for_pids(), "cgroup.procs")

    def freeze(self) -> None:
        self._do([freezer.v1(True)])
        _wait_frozen(self)

    def thaw(self) -> None:
        self._do([freezer.v1(False)])

    def frozen(self) -> bool:
        return freezer.is_frozen_v1(self._text)

    def kill(self, signal: int) -> None:
        """Signal every process of the group; frozen meanwhile, so that none forks away from it."""
        can_freeze = "freezer" in self.paths and os.path.isdir(self.paths["freezer"])
        if can_freeze:
            self._do([freezer.v1(True)])
        try:
            for pid in self.procs():
                try:
                    os.kill(pid, signal)
                except ProcessLookupError:
                    continue
        finally:
            if can_freeze:
                self.thaw()

    def stats(self) -> Stats:
        read = self._text
        return Stats(cpu.stats_v1(read), memory.stats_v1(read), pids.stats(read), io.stats_v1(read))


class V2Manager(_Manager):
    """A container in the unified hierarchy; ``paths`` has the one key ""."""

    def __init__(self, paths: "dict[str, str]", mount: str) -> None:
        super().__init__(paths)
        self.mount = mount

    def _directory(self, controller: str) -> str:
        return self.paths[""]

    def create(self) -> None:
        path = self.paths[""]
        below = path[len(self.mount) :].strip("/").split("/")
        current = self.mount
        for name in below:
            self._enable_children(current)
            current += "/" + name
            try:
                os.mkdir(current, 0o755)
            except FileExistsError:
                continue

    def _enable_children(self, directory: str) -> None:
        """Hand every controller that the directory has on to its children (cgroup-v2.rst, Top-down Constraint)."""
        have = set(_read(directory + "/cgroup.controllers").split())
        on = set(_read(directory + "/cgroup.subtree_control").split())
        missing = sorted(have - on)
        if not missing:
            return
        try:
            _write(directory, "cgroup.subtree_control", " ".join("+" + name for name in missing))
        except OSError:
            # One refusal refuses the whole line; take what can be had. apply() names what a limit lacks.
            for name in missing:
                try:
                    _write(directory, "cgroup.subtree_control", "+" + name)
                except OSError:
                    continue

    def apply(self, resources: "dict[str, object]") -> None:
        have = set(_read(self.paths[""] + "/cgroup.controllers").split())
        writes = memory.v2(resources, self._text) + cpu.v2(resources, self._text) + pids.writes(resources, self._text)
        unified = resources.get("unified")
        if isinstance(unified, dict):
            for file, value in unified.items():
                if "/" in file or not isinstance(value, str):
                    raise InvalidArgument(f"linux.resources.unified[{file!r}] must name a file and hold a string")
                writes.append((file.split(".")[0], file, value))
        elif unified is not None:
            raise InvalidArgument("linux.resources.unified must be an object")
        for controller, file, text in writes:
            if controller not in have and controller != "cgroup":
                raise FailedPrecondition(
                    f"set {file} to {text}: the {controller} controller is not enabled in {self.paths['']}",
                    remedy="enable it in cgroup.subtree_control of the parents, which must hold no processes",
                )
        self._do(writes)

    def tasks_files(self) -> "list[str]":
        return []

    def directory(self) -> str:
        """The directory to open for CLONE_INTO_CGROUP (Linux 5.7)."""
        return self.paths[""]

    def procs(self) -> "list[int]":
        return _pids(self.paths[""], "cgroup.procs")

    def freeze(self) -> None:
        self._do([freezer.v2(True)])
        _wait_frozen(self)

    def thaw(self) -> None:
        self._do([freezer.v2(False)])

    def frozen(self) -> bool:
        return freezer.is_frozen_v2(self._text)

    def kill(self, signal: int) -> None:
        if signal == 9:
            try:
                _write(self.paths[""], "cgroup.kill", "1")  # Linux 5.14
                return
            except FileNotFoundError:
                pass  # an older kernel, or the group is gone: the loop below tells
        for pid in self.procs():
            try:
                os.kill(pid, signal)
            except ProcessLookupError:
                continue

    def stats(self) -> Stats:
        read = self._text
        return Stats(cpu.stats_v2(read), memory.stats_v2(read), pids.stats(read), io.stats_v2(read))


class NoManager:
    """A host, or a user, without cgroups: no limits can be set, nothing is counted."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}

    def create(self) -> None:
        return

    def apply(self, resources: "dict[str, object]") -> None:
        limits = sorted(key for key, value in resources.items() if value and key != "devices")
        if limits:
            raise FailedPrecondition(
                f"set limits ({', '.join(limits)}): no cgroup hierarchy is mounted",
                remedy="mount cgroup2 on /sys/fs/cgroup, or leave the limits out",
            )

    def tasks_files(self) -> "list[str]":
        return []

    def directory(self) -> str:
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

    def stats(self) -> Stats:
        def read(controller: str, file: str) -> str:
            return ""

        return Stats(cpu.stats_v1(read), memory.stats_v1(read), pids.stats(read), [])

    def delete(self) -> None:
        return


def _inside(name: str, path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidArgument(f"linux.cgroupsPath {path!r} of container {name!r} must not contain '..'")
    return "/".join(parts)


def manager(layout: Layout, id: str, cgroups_path: str = "") -> "Manager":
    """The manager of container ``id`` on this host.

    ``cgroups_path`` is ``linux.cgroupsPath``: absolute from the mount point, relative below the caller's own
    cgroup; without one the container gets ``/boxship/<id>`` (runtime-spec, Cgroups Path).
    Raises InvalidArgument for a path with ``..``.
    """
    path = _inside(id, cgroups_path) or "boxship/" + id
    below_own = bool(cgroups_path) and not cgroups_path.startswith("/")

    def full(mount: str, key: str) -> str:
        own = layout.own.get(key, "") if below_own else ""
        return "/".join(part for part in (mount, own, path) if part)

    if layout.mode in ("v1", "hybrid"):
        return V1Manager({key: full(mount, key) for key, mount in layout.v1.items()})
    if layout.mode == "v2":
        return V2Manager({"": full(layout.unified, "")}, layout.unified)
    return NoManager()


def from_paths(layout: Layout, paths: "dict[str, str]") -> "Manager":
    """The manager of a container that exists, from the ``paths`` that its state recorded."""
    if not paths:
        return NoManager()
    if "" in paths:
        return V2Manager(paths, layout.unified)
    return V1Manager(paths)
