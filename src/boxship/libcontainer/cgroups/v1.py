"""Cgroups of v1 and hybrid hosts: one directory in each mounted hierarchy."""

import os

from boxship.errors import InvalidArgument

from . import cpu, devices, freezer, memory, pids, tree
from .manager import BaseManager, Stats, sub_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .writes import Write


class V1Manager(BaseManager):
    """A container in each mounted v1 hierarchy; on a hybrid host ``paths`` may have the unified one too, as ""."""

    def __init__(self, paths: "dict[str, str]") -> None:
        super().__init__(paths)
        self._new_devices = False

    def create_target(self, pid: int = 0) -> bool:
        """The unified group of a hybrid host; the others are not there yet."""
        if "" in self.paths:
            os.makedirs(self.paths[""], 0o755, exist_ok=True)
        return False

    def create(self) -> None:
        for controller, directory in self.paths.items():
            new = True
            try:
                os.mkdir(directory, 0o755)
            except FileExistsError:
                new = False  # a repeated create, or a group that the caller prepared
            except FileNotFoundError:
                os.makedirs(directory, 0o755, exist_ok=True)
            if controller == "devices":
                self._new_devices = new
            elif controller == "cpuset":
                self._inherit_cpuset(directory)

    def _inherit_cpuset(self, directory: str) -> None:
        """A new v1 cpuset is empty, and nothing can enter an empty one: fill it, parents first.

        A parent that had to be filled hands on what it has by itself from now on (cgroup.clone_children).
        """
        parent = os.path.dirname(directory)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if tree.read(directory + "/" + file).strip():
                continue
            value = tree.read(parent + "/" + file).strip()
            if not value:
                self._inherit_cpuset(parent)
                tree.write(parent, "cgroup.clone_children", "1")
                value = tree.read(parent + "/" + file).strip()
            tree.write(directory, file, value)

    def own(self, uid: int) -> None:
        """v1 groups are not delegated (cgroups(7), Cgroups delegation): nothing changes hands."""

    def writes(self, resources: "dict[str, object]") -> "list[Write]":
        """What all limits but the device rules become. Raises InvalidArgument naming the value."""
        if resources.get("unified"):
            raise InvalidArgument(
                "invalid configuration: linux.resources.unified is for cgroup v2, and this host has v1",
                remedy="use memory, cpu, pids, blockIO",
            )
        writes = memory.v1(resources, self._text) + cpu.v1(resources, self._text) + pids.writes(resources, self._text)
        if resources.get("blockIO"):
            from . import io

            writes += io.v1(resources, self._text)
        if resources.get("hugepageLimits"):
            from . import hugetlb

            writes += hugetlb.v1(resources)
        if resources.get("network"):
            from . import network

            writes += network.v1(resources)
        if resources.get("rdma"):
            from . import rdma

            writes += rdma.writes(resources)
        return writes

    def apply(self, resources: "dict[str, object]") -> None:
        rules = devices.v1(resources, self._text, new=self._new_devices)
        tree.carry_out(rules + self.writes(resources), self._directory)
        if rules:
            self._new_devices = False

    def tasks_files(self, below: "dict[str, str] | None" = None) -> "list[str]":
        """The files that the container's first process writes ``0`` to, once for each hierarchy.

        ``below`` names a group below the container's by controller, or for all the others with "".
        Raises InvalidArgument for a controller that is not mounted.
        """
        directories = dict(self.paths)
        directories.pop("", "")
        if below:
            for controller in below:
                if controller and controller not in directories:
                    raise InvalidArgument(
                        f"--cgroup: unknown controller {controller}", remedy=f"one of {', '.join(directories)}"
                    )
            for controller, directory in directories.items():
                path = below.get(controller, below.get("", ""))
                if path:
                    directories[controller] = sub_group(directory, path)
        return [directory + "/tasks" for directory in dict.fromkeys(directories.values())]

    def directory(self) -> str:
        """On a hybrid host the unified group, for CLONE_INTO_CGROUP."""
        return self.paths.get("", "")

    def exec_directory(self, init: int, below: "dict[str, str] | None" = None) -> str:
        return self.paths.get("", "")

    def _main(self) -> str:
        for controller in ("devices", "pids", "freezer", "memory"):
            if controller in self.paths:
                return self.paths[controller]
        return next(iter(self.paths.values()), "")

    def freeze(self) -> None:
        tree.carry_out([freezer.v1(True)], self._directory)
        self._wait_frozen()

    def thaw(self) -> None:
        tree.carry_out([freezer.v1(False)], self._directory)

    def frozen(self) -> bool:
        return freezer.is_frozen_v1(self._text)

    def kill(self, signal: int) -> None:
        """Signal every process of the group; frozen meanwhile, so that none forks away from it."""
        can_freeze = "freezer" in self.paths and os.path.isdir(self.paths["freezer"])
        if can_freeze:
            tree.carry_out([freezer.v1(True)], self._directory)
        try:
            for pid in self.procs():
                try:
                    os.kill(pid, signal)
                except ProcessLookupError:
                    continue
        finally:
            if can_freeze:
                self.thaw()

    def stats(self, whole: bool = False) -> Stats:
        read = self._text
        from . import io

        stats = Stats(cpu.stats_v1(read, whole), memory.stats_v1(read, whole), pids.stats(read), io.stats_v1(read))
        if whole:
            from . import cpuset, hugetlb, rdma

            stats.cpuset = cpuset.stats_v1(read)
            stats.hugetlb = hugetlb.stats_v1(read)
            stats.rdma = {name: rdma.stats(read, "rdma." + name) for name in ("current", "max")}
            stats.io_tables = io.tables_v1(read)
        return stats

    def oom_directory(self) -> str:
        return self.paths.get("memory", "")
