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
from select import POLLIN, poll
from signal import set_wakeup_fd
from struct import Struct
from sys import byteorder

from .. import tracing
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
    """Containers of ``boxship.libcontainer``, made by ``Helper``s."""

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

        def make() -> "tuple[Made, Callable[[], None] | None]":
            from ..libcontainer.container import Container
            from ..libcontainer.process import Stdio, Terminal

            watched = tracing.current.get() is not None
            with tracing.span("libcontainer", "create: config.json becomes a plan, up to the program", id=id):
                container = Container.create(
                    id,
                    bundle,
                    root=root,
                    stdio=Terminal() if streams is None else Stdio(*streams),
                    rootfs_mounts=rootfs,
                    no_pivot=no_pivot,
                    trace=watched,
                )

            def start() -> None:
                with tracing.span("libcontainer", "start: let the program run", id=id):
                    container.start()
                for step, begin, end in container.steps():
                    tracing.record("executor", step, begin, end)

            return Made(container.pid, container.console, has_own_pid_namespace(container.spec)), start

        helper = Helper(make)
        try:
            made = helper.answer()
        except Internal:
            # The helper may have died in the middle; a create that failed has left nothing anyway.
            LibcontainerContainer(id, root, Made(0, -1), None).delete(force=True)
            raise
        return LibcontainerContainer(id, root, made, helper)


class Made:
    """What a helper made: a process, the master of its terminal or -1, whether the kernel ends all with it."""

    __slots__ = ("alone", "console", "pid")

    def __init__(self, pid: int, console: int, alone: bool = False) -> None:
        self.pid = pid
        self.console = console
        self.alone = alone


class LibcontainerContainer:
    """``RunningContainer`` over the container's state on disk, and until it is started the helper that made it."""

    def __init__(self, id: str, root: str, made: Made, helper: "Helper | None") -> None:
        self.pid = made.pid
        self.console = made.console if made.console >= 0 else None
        self.own_pid_namespace = made.alone
        self._id = id
        self._root = root
        self._helper = helper

    def _load(self) -> "Container":
        from ..libcontainer.container import Container

        return Container.load(self._id, root=self._root)

    def _release(self) -> None:
        """Let the helper go, so that init is the shim's child; ``start`` works without it too."""
        if self._helper is not None:
            self._helper.finish()
            self._helper = None

    def start(self) -> None:
        helper, self._helper = self._helper, None
        if helper is not None and helper.ask_to_start():
            helper.answer()
            helper.leave()
            return

        def make() -> "tuple[Made, None]":
            self._load().start()
            return Made(self.pid, -1), None

        again = Helper(make)
        again.answer()
        again.leave()

    def exec(self, spec: "dict[str, Anything]", streams: "Streams | None") -> "RunningProcess":
        def make() -> "tuple[Made, None]":
            from ..libcontainer.process import Stdio, Terminal

            stdio = Terminal() if streams is None else Stdio(*streams)
            process = self._load().exec(spec, stdio=stdio)
            return Made(process.pid, process.console), None

        helper = Helper(make)
        made = helper.answer()
        helper.leave()
        return ExecutedProcess(made.pid, made.console if made.console >= 0 else None)

    def kill(self, signal: int, *, all: bool = False) -> None:
        self._release()
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
        self._release()
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


class Helper:
    """A fork of the shim that makes a process, tells what came of it, and ends.

    The process that it made becomes the shim's child then, because the shim is a subreaper.
    So the memory that reading state and spec, compiling and sending a plan writes to (over a megabyte) ends with
    the helper, and a shim keeps only what it needs to wait.

    ``make`` returns what was made, and for a container also how to start it; such a helper stays until it was asked
    to start it (which saves a fork), or to go, or the container's init has ended.
    The answer is one packet: a status (google.rpc code, pid, flags) and a message, the terminal as SCM_RIGHTS.
    """

    def __init__(self, make: "Callable[[], tuple[Made, Callable[[], None] | None]]") -> None:
        self._socket, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            self._socket.close()
            _help(make, theirs)
        theirs.close()

    def answer(self) -> Made:
        """What was made; what the helper raised is raised here, after it has ended."""
        try:
            data, ancillary, _, _ = self._socket.recvmsg(65536, CMSG_LEN(4), MSG_CMSG_CLOEXEC)
        except OSError:
            data, ancillary = b"", []
        if len(data) < ANSWER.size:
            self.finish()
            raise Internal("the helper that makes containers died")
        code, pid, extra = ANSWER.unpack_from(data)
        if code:
            self.finish()
            error = by_code(code, data[ANSWER.size :].decode("utf-8", "replace"))
            error.exit_code = extra  # type: ignore[attr-defined]  # see exit_code_of
            raise error
        console = int.from_bytes(ancillary[0][2][:4], byteorder) if ancillary else -1
        return Made(pid, console, bool(extra))

    def ask_to_start(self) -> bool:
        """False when the helper has gone."""
        try:
            self._socket.send(b"s")
        except OSError:
            self.finish()
            return False
        return True

    def leave(self) -> None:
        """Let it go, and do not wait: it is reaped as all children are, and its own then become ours."""
        self._socket.close()

    def finish(self) -> None:
        """Let it go and wait until it has; from here on its children are ours.  Finishing twice is fine."""
        self._socket.close()
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass  # reaped with the others


def _help(make: "Callable[[], tuple[Made, Callable[[], None] | None]]", answer: "socket") -> None:
    """The helper's life."""
    try:
        set_wakeup_fd(-1)  # the shim's; its SIGCHLD is not our business
        made, start = make()
        rights = [(SOL_SOCKET, SCM_RIGHTS, made.console.to_bytes(4, byteorder))] if made.console >= 0 else []
        answer.sendmsg([ANSWER.pack(0, made.pid, made.alone)], rights)
        if start is not None and _told_to_start(answer, made.pid):
            start()
            answer.send(ANSWER.pack(0, made.pid, 0))
    except BoxshipError as error:
        answer.send(ANSWER.pack(error.code, 0, exit_code_of(error)) + str(error).encode()[:8192])
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        answer.send(ANSWER.pack(Internal.code, 0, 1) + text.encode("utf-8", "replace")[:8192])
    finally:
        os._exit(0)


def _told_to_start(answer: "socket", pid: int) -> bool:
    """Wait for the shim's word; False when it wants us gone, has gone itself, or init ended."""
    pidfd = os.pidfd_open(pid)
    waiter = poll()
    waiter.register(answer.fileno(), POLLIN)
    waiter.register(pidfd, POLLIN)
    ready = [fd for fd, _ in waiter.poll()]
    os.close(pidfd)
    return answer.fileno() in ready and answer.recv(1) == b"s"


def exit_code_of(error: BoxshipError) -> int:
    """What a shell gives for a program that could not be run: 127 not there, 126 not executable, else 1.

    An error that came through a helper carries it as ``exit_code``.
    """
    told = getattr(error, "exit_code", None)
    if isinstance(told, int):
        return told
    number = getattr(error, "errno", 0)
    return 127 if number == ENOENT else 126 if number in (EACCES, EISDIR, ENOEXEC) else 1
