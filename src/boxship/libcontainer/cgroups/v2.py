"""Cgroups of v2 hosts: one directory in the unified hierarchy (kernel: admin-guide/cgroup-v2.rst)."""

import os
from errno import EACCES, ENOENT, EPERM, errorcode

from boxship.errors import FailedPrecondition, InvalidArgument

from . import cpu, freezer, io, memory, pids, tree
from .manager import BaseManager, Stats, sub_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .writes import Write

# What a delegate gets besides the directory when the kernel does not say (cgroups(7), before Linux 4.15).
DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")


# These share one group among threads, so a group may hand them on and have processes too (cgroup-v2.rst, Threads).
THREADED = {"cpu", "cpuset", "perf_event", "pids"}


def _hands_domains_on(directory: str) -> bool:
    return bool(set(tree.read(directory + "/cgroup.subtree_control").split()) - THREADED)


class V2Manager(BaseManager):
    """A container in the unified hierarchy; ``paths`` has the one key ""."""

    def __init__(self, paths: "dict[str, str]", mount: str) -> None:
        super().__init__(paths)
        self.mount = mount
        self._new = False

    def _directory(self, controller: str) -> str:
        return self.paths[""]

    def _main(self) -> str:
        return self.paths.get("", "")

    def create_target(self, pid: int = 0) -> bool:
        self.create()
        return True

    def create(self) -> None:
        path = self.paths[""]
        below = path[len(self.mount) :].strip("/").split("/")
        current = self.mount
        for name in below:
            self._enable_children(current)
            current += "/" + name
            try:
                os.mkdir(current, 0o755)
                self._new = True
            except FileExistsError:
                self._new = False
        if tree.read(current + "/cgroup.type").strip() == "domain invalid":
            # Below a threaded group: the threaded controllers (cpu, cpuset, pids) can be had, no others.
            tree.write(current, "cgroup.type", "threaded")

    def _enable_children(self, directory: str) -> None:
        """Hand every controller that the directory has on to its children (cgroup-v2.rst, Top-down Constraint)."""
        have = set(tree.read(directory + "/cgroup.controllers").split())
        on = set(tree.read(directory + "/cgroup.subtree_control").split())
        missing = sorted(have - on)
        if not missing:
            return
        try:
            tree.write(directory, "cgroup.subtree_control", " ".join("+" + name for name in missing))
        except OSError:
            # One refusal refuses the whole line; take what can be had. apply() names what a limit lacks.
            for name in missing:
                try:
                    tree.write(directory, "cgroup.subtree_control", "+" + name)
                except OSError:
                    continue

    def own(self, uid: int) -> None:
        """Delegate the group to a user of the host: the directory, and the files that the kernel names for it."""
        path = self.paths[""]
        files = tree.read("/sys/kernel/cgroup/delegate").split() or DELEGATED
        os.chown(path, uid, -1)
        for file in files:
            try:
                os.chown(path + "/" + file, uid, -1)
            except FileNotFoundError:
                continue  # a controller that is not enabled here

    def writes(self, resources: "dict[str, object]") -> "list[Write]":
        """What all limits but the device rules and ``unified`` become. Raises InvalidArgument naming the value."""
        read = self._text
        writes = (
            pids.writes(resources, read)
            + memory.v2(resources, read)
            + io.v2(resources, read)
            + cpu.v2(resources, read)
        )
        if resources.get("hugepageLimits"):
            from . import hugetlb

            writes += hugetlb.v2(resources)
        if resources.get("network"):
            from . import network

            writes += network.v2(resources)
        if resources.get("rdma"):
            from . import rdma

            writes += rdma.writes(resources)
        return writes

    def apply(self, resources: "dict[str, object]") -> None:
        writes = self.writes(resources)
        if writes:
            have = set(tree.read(self.paths[""] + "/cgroup.controllers").split())
            for controller, file, text, *tolerated in writes:
                if controller not in have and not (tolerated and ENOENT in tolerated[0]):
                    raise FailedPrecondition(
                        f"set {file} to {text}: the {controller} controller is not enabled in {self.paths['']}",
                        remedy="enable it in cgroup.subtree_control of the parents, which must hold no processes",
                    )
            tree.carry_out(writes, self._directory)
        rules = resources.get("devices")
        if rules is not None:
            from . import device_filter, devices

            device_filter.attach(self.paths[""], devices.rules(rules), new=self._new)
            self._new = False
        self._apply_unified(resources.get("unified"))

    def _apply_unified(self, unified: object) -> None:
        """``linux.resources.unified``: files by name, line by line; last, so that they win over the other words."""
        if unified is None:
            return
        if not isinstance(unified, dict):
            raise InvalidArgument("linux.resources.unified must be an object")
        for file, value in unified.items():
            where = f"linux.resources.unified[{file!r}]"
            if "/" in file or not isinstance(value, str):
                raise InvalidArgument(f"{where} must name a file and hold a string")
            controller, dot, _ = file.partition(".")
            if not dot:
                raise InvalidArgument(f"{where} must be in the form CONTROLLER.PARAMETER")
            for line in value.splitlines():
                try:
                    tree.write(self.paths[""], file, line)
                except OSError as error:
                    have = self._text("", "cgroup.controllers").split()
                    name = errorcode.get(error.errno or 0, str(error))
                    if error.errno in (ENOENT, EPERM, EACCES) and controller not in (*have, "cgroup"):
                        raise FailedPrecondition(
                            f"{where} can't be set: controller {controller!r} not available",
                            cause=name,
                            remedy="enable it in cgroup.subtree_control of the parents",
                        ) from error
                    raise tree.refused(controller, f"{self.paths['']}/{file} ({where})", line, error) from error

    def tasks_files(self, below: "dict[str, str] | None" = None) -> "list[str]":
        return []

    def directory(self) -> str:
        """The directory to open for CLONE_INTO_CGROUP (Linux 5.7)."""
        return self.paths[""]

    def exec_directory(self, init: int, below: "dict[str, str] | None" = None) -> str:
        """Where a further process goes: the group itself, one ``below`` it, or where init is.

        A group that hands domain controllers on can have no processes itself (No Internal Process Constraint); a
        container that did that to its own group has moved init further down.  Without a cgroup namespace of its own
        it can even have moved somewhere else, and the group be gone.
        Raises InvalidArgument for a controller's name: v2 has one tree.
        """
        path = self.paths[""]
        if below:
            for controller in below:
                if controller:
                    raise InvalidArgument(f"--cgroup: unknown controller {controller}: v2 has one path for all")
            sub = sub_group(path, below[""])
            if _hands_domains_on(sub):
                raise FailedPrecondition(
                    f"adding pid of the process to cgroups: {sub}: device or resource busy",
                    remedy="it hands controllers on to groups below it (cgroup.subtree_control); name one of those",
                )
            return sub
        if not _hands_domains_on(path) and os.path.isdir(path):
            return path
        for line in tree.read(f"/proc/{init}/cgroup").splitlines():
            if line.startswith("0::"):
                return self.mount + line[3:]
        return path

    def freeze(self) -> None:
        tree.carry_out([freezer.v2(True)], self._directory)
        self._wait_frozen()

    def thaw(self) -> None:
        tree.carry_out([freezer.v2(False)], self._directory)

    def frozen(self) -> bool:
        return freezer.is_frozen_v2(self._text)

    def kill(self, signal: int) -> None:
        if signal == 9:
            try:
                tree.write(self.paths[""], "cgroup.kill", "1")  # Linux 5.14
                return
            except OSError:
                pass  # an older kernel, a threaded group, or the group is gone: the loop below tells
        for pid in self.procs():
            try:
                os.kill(pid, signal)
            except ProcessLookupError:
                continue

    def stats(self, whole: bool = False) -> Stats:
        read = self._text
        stats = Stats(cpu.stats_v2(read, whole), memory.stats_v2(read, whole), pids.stats(read), io.stats_v2(read))
        if whole:
            from . import hugetlb, rdma

            stats.hugetlb = hugetlb.stats_v2(read)
            stats.rdma = {name: rdma.stats(read, "rdma." + name) for name in ("current", "max")}
            stats.io_tables = io.tables_v2(read)
            for name in ("cpu", "memory", "io"):
                found = cpu.pressure(read(name, name + ".pressure"))
                if found:
                    stats.pressure[name] = found
        return stats

    def oom_directory(self) -> str:
        return self.paths[""]
