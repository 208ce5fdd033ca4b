"""The shim's view of the library that makes containers: the few methods that it calls.

``Runtime`` and ``RunningContainer`` are what the service needs; tests pass a fake.
``LibcontainerRuntime`` binds them to ``boxship.libcontainer`` (docs/decisions/0002).
"""

from ..errors import Unimplemented

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any as Anything
    from typing import Protocol

    from ..libcontainer.cgroups import Stats
    from ..libcontainer.container import Container

    Streams = tuple[int, int, int]
    """stdin, stdout, stderr for the process; -1 is /dev/null."""

    class RunningProcess(Protocol):
        """A process that is a child of the shim.  ``console`` is its pty's master, or None; the shim owns it."""

        @property
        def pid(self) -> int: ...
        @property
        def console(self) -> int | None: ...

    class RunningContainer(RunningProcess, Protocol):
        """A container whose init is a child of the shim; the shim reaps it.  ``spec`` is its config.json."""

        @property
        def spec(self) -> dict[str, Anything]: ...
        def start(self) -> None: ...
        def exec(self, spec: dict[str, Anything], streams: "Streams | None") -> RunningProcess: ...
        def kill(self, signal: int, *, all: bool = False) -> None: ...
        def pause(self) -> None: ...
        def resume(self) -> None: ...
        def pids(self) -> list[int]: ...
        def stats(self) -> Stats: ...
        def update(self, resources: dict[str, Anything]) -> None: ...
        def delete(self, *, force: bool = False) -> None: ...

    class Runtime(Protocol):
        """Makes containers.  ``streams`` None asks for a terminal."""

        def create(
            self,
            id: str,
            bundle: str,
            root: str,
            streams: "Streams | None",
            rootfs: "Sequence[tuple[str, str, Sequence[str]]]",
            no_pivot: bool,
            systemd_cgroup: bool,
        ) -> RunningContainer: ...


class LibcontainerRuntime:
    """Containers of ``boxship.libcontainer``."""

    def create(
        self,
        id: str,
        bundle: str,
        root: str,
        streams: "Streams | None",
        rootfs: "Sequence[tuple[str, str, Sequence[str]]]",
        no_pivot: bool,
        systemd_cgroup: bool,
    ) -> "LibcontainerContainer":
        from ..libcontainer.container import Container
        from ..libcontainer.process import Stdio, Terminal

        if systemd_cgroup:
            raise Unimplemented("the systemd cgroup manager is not offered", remedy="use cgroupfs")
        container = Container.create(
            id,
            bundle,
            root=root,
            stdio=Terminal() if streams is None else Stdio(*streams),
            rootfs_mounts=rootfs,
            no_pivot=no_pivot,
        )
        return LibcontainerContainer(container)


class LibcontainerContainer:
    """``RunningContainer`` over ``Container``: only terminals are said differently."""

    def __init__(self, container: "Container") -> None:
        self._container = container
        self.start = container.start
        self.kill = container.kill
        self.pause = container.pause
        self.resume = container.resume
        self.pids = container.pids
        self.stats = container.stats
        self.update = container.update
        self.delete = container.delete

    @property
    def pid(self) -> int:
        return self._container.pid

    @property
    def spec(self) -> "dict[str, Anything]":
        return self._container.spec

    @property
    def console(self) -> "int | None":
        return _console(self._container.console)

    def exec(self, spec: "dict[str, Anything]", streams: "Streams | None") -> "RunningProcess":
        from ..libcontainer.process import Stdio, Terminal

        process = self._container.exec(spec, stdio=Terminal() if streams is None else Stdio(*streams))
        return ExecutedProcess(process.pid, _console(process.console))


class ExecutedProcess:
    """``RunningProcess`` of an exec."""

    __slots__ = ("console", "pid")

    def __init__(self, pid: int, console: "int | None") -> None:
        self.pid = pid
        self.console = console


def _console(fd: int) -> "int | None":
    """The library says -1 for no terminal."""
    return fd if fd >= 0 else None
