"""The shim's view of the library that makes containers: the few methods that it calls.

``Runtime`` and ``RunningContainer`` are what the service needs; tests pass a fake.
``LibcontainerRuntime`` binds them to ``boxship.libcontainer`` (docs/decisions/0002).
"""

import os
from _socket import (
    AF_UNIX,
    CMSG_LEN,
    MSG_CMSG_CLOEXEC,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socketpair,
)
from errno import EACCES, EISDIR, ENOENT, ENOEXEC
from signal import set_wakeup_fd
from struct import Struct
from sys import byteorder

from ..errors import BoxshipError, Internal, NotFound, Unimplemented, by_code

ANSWER = Struct("=iii")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Sequence
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
        """A container whose init is a child of the shim; the shim reaps it.

        ``own_pid_namespace``: the kernel ends all of its processes with init.
        """

        @property
        def own_pid_namespace(self) -> bool: ...
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
    """Containers of ``boxship.libcontainer``.

    Create, start and exec run in a helper: a fork of the shim that does the work, tells what came of it and ends.
    The process that it made becomes the shim's child then, because the shim is a subreaper.
    So the memory that reading state and spec, compiling and sending a plan writes to (over a megabyte) ends with the
    helper, and a shim keeps only what it needs to wait.
    """

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
        if systemd_cgroup:
            raise Unimplemented("the systemd cgroup manager is not offered", remedy="use cgroupfs")

        def make() -> Made:
            from ..libcontainer.container import Container
            from ..libcontainer.process import Stdio, Terminal

            container = Container.create(
                id,
                bundle,
                root=root,
                stdio=Terminal() if streams is None else Stdio(*streams),
                rootfs_mounts=rootfs,
                no_pivot=no_pivot,
            )
            alone = has_own_pid_namespace(container.spec)
            return Made(container.pid, container.console, alone)

        try:
            made = in_helper(make)
        except Internal:
            # The helper may have died in the middle; a create that failed has left nothing anyway.
            LibcontainerContainer(id, root, Made(0, -1)).delete(force=True)
            raise
        return LibcontainerContainer(id, root, made)


class Made:
    """What a helper made: a process, the master of its terminal or -1, whether the kernel ends all with it."""

    __slots__ = ("alone", "console", "pid")

    def __init__(self, pid: int, console: int, alone: bool = False) -> None:
        self.pid = pid
        self.console = console
        self.alone = alone


class LibcontainerContainer:
    """``RunningContainer`` over the container's state on disk."""

    def __init__(self, id: str, root: str, made: Made) -> None:
        self.pid = made.pid
        self.console = made.console if made.console >= 0 else None
        self.own_pid_namespace = made.alone
        self._id = id
        self._root = root

    def _load(self) -> "Container":
        from ..libcontainer.container import Container

        return Container.load(self._id, root=self._root)

    def start(self) -> None:
        def make() -> Made:
            self._load().start()
            return Made(self.pid, -1)

        in_helper(make)

    def exec(self, spec: "dict[str, Anything]", streams: "Streams | None") -> "RunningProcess":
        def make() -> Made:
            from ..libcontainer.process import Stdio, Terminal

            stdio = Terminal() if streams is None else Stdio(*streams)
            process = self._load().exec(spec, stdio=stdio)
            return Made(process.pid, process.console)

        made = in_helper(make)
        return ExecutedProcess(made.pid, made.console if made.console >= 0 else None)

    def kill(self, signal: int, *, all: bool = False) -> None:
        self._load().kill(signal, all=all)

    def pause(self) -> None:
        self._load().pause()

    def resume(self) -> None:
        self._load().resume()

    def pids(self) -> "list[int]":
        return self._load().pids()

    def stats(self) -> "Stats":
        return self._load().stats()

    def update(self, resources: "dict[str, Anything]") -> None:
        self._load().update(resources)

    def delete(self, *, force: bool = False) -> None:
        try:
            container = self._load()
        except NotFound:
            return  # deleted before; the poststop hooks have run
        container.delete(force=force)


class ExecutedProcess:
    """``RunningProcess`` of an exec."""

    __slots__ = ("console", "pid")

    def __init__(self, pid: int, console: "int | None") -> None:
        self.pid = pid
        self.console = console


def has_own_pid_namespace(spec: "dict[str, Anything]") -> bool:
    """Whether config.json asks for a new pid namespace; then the kernel ends all of it with init."""
    namespaces = (spec.get("linux") or {}).get("namespaces") or []
    return any(item.get("type") == "pid" and not item.get("path") for item in namespaces)


def in_helper(make: "Callable[[], Made]") -> Made:
    """Run ``make`` in a fork of this process; what it raises is raised here.

    The answer is one packet: a status (google.rpc code, pid, flags) and a message, the terminal as SCM_RIGHTS.
    """
    ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    helper = os.fork()
    if helper == 0:
        ours.close()
        _help(make, theirs)
    theirs.close()
    try:
        data, ancillary, _, _ = ours.recvmsg(65536, CMSG_LEN(4), MSG_CMSG_CLOEXEC)
    finally:
        ours.close()
        os.waitpid(helper, 0)  # from here on its children are ours
    if len(data) < ANSWER.size:
        raise Internal("the helper that makes containers died")
    code, pid, extra = ANSWER.unpack_from(data)
    if code:
        error = by_code(code, data[ANSWER.size :].decode("utf-8", "replace"))
        error.exit_code = extra  # type: ignore[attr-defined]  # see CommandFailed
        raise error
    console = int.from_bytes(ancillary[0][2][:4], byteorder) if ancillary else -1
    return Made(pid, console, bool(extra))


def _help(make: "Callable[[], Made]", answer: "socket") -> None:
    """The helper: make, answer, end."""
    try:
        set_wakeup_fd(-1)  # the shim's; its SIGCHLD is not our business
        made = make()
        rights = [(SOL_SOCKET, SCM_RIGHTS, made.console.to_bytes(4, byteorder))] if made.console >= 0 else []
        answer.sendmsg([ANSWER.pack(0, made.pid, made.alone)], rights)
    except BoxshipError as error:
        answer.send(ANSWER.pack(error.code, 0, exit_code_of(error)) + str(error).encode()[:8192])
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        answer.send(ANSWER.pack(Internal.code, 0, 1) + text.encode("utf-8", "replace")[:8192])
    finally:
        os._exit(0)


def exit_code_of(error: BoxshipError) -> int:
    """What a shell gives for a program that could not be run: 127 not there, 126 not executable, else 1."""
    number = getattr(error, "errno", 0)
    return 127 if number == ENOENT else 126 if number in (EACCES, EISDIR, ENOEXEC) else 1
