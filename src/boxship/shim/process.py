"""One process of a container, init or exec'd, with its streams and those who wait for it.

created --started--> running --paused--> paused --resumed--> running
created, running, paused --exited--> stopped
"""

import os
from select import POLLIN, poll

from ..api.task.types import Status
from ..errors import FailedPrecondition, Unavailable
from ..protobuf import Timestamp
from ..ttrpc.loop import Loop
from ..ttrpc.server import PendingCall
from .logs import JsonFile
from .stdio import Input, Output, open_file, scheme_of, set_window_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any as Anything

    from .runtime import RunningProcess, Streams

TRANSITIONS = {
    (Status.CREATED, "started"): Status.RUNNING,
    (Status.RUNNING, "paused"): Status.PAUSED,
    (Status.PAUSED, "resumed"): Status.RUNNING,
    (Status.CREATED, "exited"): Status.STOPPED,
    (Status.RUNNING, "exited"): Status.STOPPED,
    (Status.PAUSED, "exited"): Status.STOPPED,
}

LOGGER_READY = 10.0
"""Seconds that a ``binary://`` logger has to say that it is ready."""


class Stdio:
    """The stdio that a request names, and the pipes between.

    ``open`` makes the container's ends; ``attach`` starts copying once the process exists, and closes them
    here; ``close`` gives everything up.  With ``terminal`` there are no container's ends, but ``attach`` is
    given the pty.
    """

    def __init__(
        self, loop: Loop, stdin: str, stdout: str, stderr: str, terminal: bool, log: "JsonFile | None"
    ) -> None:
        self.stdin, self.stdout, self.stderr, self.terminal = stdin, stdout, stderr, terminal
        self._loop = loop
        self._log = log
        self._given: list[int] = []  # the container's ends, until it has them
        self._kept: dict[str, int] = {}  # our ends, until they are copied from or to
        self._pty = -1
        self.outputs: list[Output] = []
        self.input: Input | None = None

    def open(self, id: str, namespace: str, uid: int, gid: int) -> "Streams | None":
        """Descriptors for the process, owned by this until ``attach`` or ``close``; None with a terminal."""
        if scheme_of(self.stdout)[0] == "binary":
            self._start_logger(id, namespace)
        if self.terminal:
            return None
        return (
            self._pipe("stdin", uid, gid) if self.stdin else -1,
            self._sink("stdout", self.stdout, uid, gid),
            self._sink("stderr", self.stderr, uid, gid),
        )

    def _pipe(self, name: str, uid: int, gid: int) -> int:
        """A pipe between the container and us: its end."""
        read, write = os.pipe()
        ours, theirs = (write, read) if name == "stdin" else (read, write)
        self._kept[name] = ours
        self._given.append(theirs)
        if uid or gid:
            os.fchown(theirs, uid, gid)
        return theirs

    def _sink(self, name: str, uri: str, uid: int, gid: int) -> int:
        """Where the container's ``name`` goes."""
        scheme, path = scheme_of(uri)
        if scheme == "file" and self._log is None:
            fd = open_file(path)
            self._given.append(fd)
            return fd
        if scheme == "binary":
            return self._given[0 if name == "stdout" else 1]
        if scheme or self._log is not None:
            return self._pipe(name, uid, gid)
        return -1

    def _start_logger(self, id: str, namespace: str) -> None:
        """Run a ``binary:///path?key=value`` logger: the streams are its descriptors 3 and 4.

        It closes descriptor 5 when it is ready (containerd docs: runtime/v2, "Logging").
        """
        path, _, query = scheme_of(self.stdout)[1].partition("?")
        arguments = [path]
        for pair in query.split("&") if query else []:
            key, _, value = pair.partition("=")
            arguments += [key, value] if value else [key]
        pipes = [os.pipe(), os.pipe(), os.pipe()]
        theirs = [pipes[0][0], pipes[1][0], pipes[2][1]]
        # Out of the way of 3, 4 and 5 first: dup2 onto a descriptor that is still to be copied would lose it.
        high = [os.dup(fd) for fd in theirs]
        actions: list[Anything] = [(os.POSIX_SPAWN_DUP2, fd, 60 + n) for n, fd in enumerate(high)]
        actions += [(os.POSIX_SPAWN_DUP2, 60 + n, 3 + n) for n in range(3)]
        actions += [(os.POSIX_SPAWN_CLOSE, 60 + n) for n in range(3)]
        environment = {**os.environ, "CONTAINER_ID": id, "CONTAINER_NAMESPACE": namespace}
        try:
            os.posix_spawn(path, arguments, environment, file_actions=actions)
        except OSError as error:
            for fd in (pipes[0][1], pipes[1][1], pipes[2][0]):
                os.close(fd)
            raise Unavailable(f"logger {path}", cause=error.strerror or str(error)) from error
        finally:
            for fd in theirs + high:
                os.close(fd)
        self._given += [pipes[0][1], pipes[1][1]]
        ready = pipes[2][0]
        try:
            waiter = poll()
            waiter.register(ready, POLLIN)
            if not waiter.poll(LOGGER_READY * 1000):
                raise Unavailable(f"logger {path} is not ready after {LOGGER_READY:.0f} seconds")
        finally:
            os.close(ready)

    def attach(self, pty: "int | None") -> None:
        """The process exists and has its ends: close ours of them and start to copy."""
        if pty is not None:
            self._attach_pty(pty)
            return
        for fd in self._given:
            os.close(fd)
        self._given = []
        if "stdin" in self._kept:
            self.input = Input(self._loop, scheme_of(self.stdin)[1], self._kept["stdin"], is_pty=False)
            del self._kept["stdin"]
        for name, uri in (("stdout", self.stdout), ("stderr", self.stderr)):
            if name in self._kept:
                self.outputs.append(Output(self._loop, self._kept[name], name, self._log, uri))
                del self._kept[name]

    def _attach_pty(self, pty: int) -> None:
        self._pty = pty
        target = self.stdout
        if scheme_of(target)[0] == "binary":
            target = f"/proc/self/fd/{self._given[0]}"  # the logger's pipe, opened again as if it were a FIFO
        # The output's own descriptor, so that it can end while the input still holds the terminal.
        source = os.dup(pty)
        os.set_inheritable(source, False)
        self.outputs.append(Output(self._loop, source, "stdout", self._log, target))
        if self.stdin:
            self.input = Input(self._loop, scheme_of(self.stdin)[1], pty, is_pty=True)
        for fd in self._given:
            os.close(fd)
        self._given = []

    def resize(self, width: int, height: int) -> None:
        if self._pty >= 0:
            set_window_size(self._pty, width, height)

    def drain(self) -> None:
        """The process ended: take its last words out of the pipes."""
        for output in self.outputs:
            output.drain()
        if self.input is not None:
            self.input.end()

    def close(self) -> None:
        """Give everything up.  Closing twice is fine."""
        if self.input is not None:
            self.input.end()
        for output in self.outputs:
            output.close()
        for fd in [*self._given, *self._kept.values()]:
            os.close(fd)
        self._given, self._kept = [], {}
        if self._pty >= 0:
            os.close(self._pty)
            self._pty = -1


class TaskProcess:
    """``exec_id`` is empty for init.  ``exit_status`` and ``exited_at`` (ns) mean something once STOPPED."""

    def __init__(self, container_id: str, exec_id: str, stdio: Stdio) -> None:
        self.container_id = container_id
        self.exec_id = exec_id
        self.stdio = stdio
        self.status = Status.CREATED
        self.pid = 0
        self.exit_status = 0
        self.exited_at = 0
        self.waiters: list[PendingCall] = []
        self.spec: dict[str, Anything] = {}
        self.handle: RunningProcess | None = None

    @property
    def name(self) -> str:
        return self.container_id + ("/" + self.exec_id if self.exec_id else "")

    def may(self, event: str) -> None:
        """FailedPrecondition unless ``event`` can happen now."""
        if (self.status, event) not in TRANSITIONS:
            state = Status.name_of(self.status).lower()
            raise FailedPrecondition(f"process {self.name} is {state} and cannot be {event}")

    def becomes(self, event: str) -> None:
        self.may(event)
        self.status = TRANSITIONS[self.status, event]

    @property
    def exited_timestamp(self) -> "Timestamp | None":
        return Timestamp.from_ns(self.exited_at) if self.exited_at else None
