"""Runs plans: spawns the native executor, sends it the plan, and follows it from one meeting point to the next.

Lifecycle of a ``Run``: ``extend(plan)`` spawns an executor and sends it what the plan holds so far, and again what
was added since; ``until(name)`` follows the reports up to a meeting point; ``go`` lets
it pass, and may be said before it is reached; ``finish`` waits for the exec (the socket's end of file, from a process
that the kernel says has executed something).
The new process is a child of the calling process (clone3 with CLONE_PARENT) and its ``pid`` is known from the first
meeting point on; the stage before it is reaped here.
Any failure raises, after everything that was spawned has been ended and reaped.
"""

import os
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_SEQPACKET, SOL_SOCKET, socketpair
from _struct import pack
from errno import ECHILD, ECONNRESET, EINTR, EPIPE

from boxship.errors import BoxshipError, Internal, Unavailable

from . import spawning
from .plan import codec
from .plan.ops import Await
from .plan.reports import (
    AWAITING,
    CLONED,
    FAILED,
    HANDLE,
    HOOK_ENDED,
    REFUSED,
    REPORT,
    TIMES,
    NeverExecuted,
    hook_ended,
    how_it_ended,
    never_executed,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Sequence

    from .compile import Plan

PACKET = 96 * 1024  # below the default of net.core.wmem_default

spawn_elsewhere: "Callable[[int, int, tuple[int, int, int]], None] | None" = None
"""Set where another process shall be the executor's parent (runtime/worker.py): it gets the descriptors of the image,
the control socket and the standard streams (-1 is /dev/null), and must have sent them on when it returns."""


class Run:
    """One plan being carried out; see the module for the lifecycle.

    ``handle_received`` is the descriptor that the plan sent (a terminal's master), -1 until then; the caller owns
    it. With ``here`` the executor is our own child even where another process spawns those of containers.
    ``times`` are the steps' CLOCK_MONOTONIC nanoseconds when ``trace`` was asked for.
    """

    def __init__(
        self, *, stdio: "tuple[int, int, int]" = (-1, -1, -1), trace: bool = False, here: bool = False
    ) -> None:
        self.plan: Plan | None = None
        self._trace = trace
        self._sent = 0
        self._passed: set[str] = set()
        self._arrived = -1
        self._reached = 0
        self.pid = 0
        self.handle_received = -1
        self.times: list[int] = []
        self._stage = 0
        self._over = False
        self._hook = ""
        self._elsewhere = False
        self._stdio = stdio
        ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
        self._socket: socket | None = ours
        self._theirs: socket | None = theirs
        if spawn_elsewhere is not None and not here:
            self.spawn(spawn_elsewhere)

    def spawn(self, elsewhere: "Callable[[int, int, tuple[int, int, int]], None] | None" = None) -> None:
        """Start the executor, unless it was; `extend` does when the first segment is ready.

        Raises Unavailable (no executor in this installation), OSError.
        """
        theirs, self._theirs = self._theirs, None
        if theirs is None:
            return
        try:
            if elsewhere is None:
                self._stage = spawning.spawn(theirs.fileno(), self._stdio)
                theirs.close()
                spawning.spread(self._stage)
                return
            image = spawning.memfd()
            try:
                elsewhere(image, theirs.fileno(), self._stdio)
            finally:
                os.close(image)
            self._elsewhere = True  # only now: when nothing was spawned there is no report to wait for
        except BaseException:
            self.abort()
            raise
        finally:
            theirs.close()

    @property
    def stage(self) -> int:
        """The pid of the executor's first stage, which makes the container's process; 0 when it is gone."""
        return self._stage

    @property
    def sent(self) -> int:
        """How many of the plan's operations the executor has."""
        return self._sent

    def extend(self, plan: "Plan", handles: "Sequence[int]" = (), *, last: bool = True) -> None:
        """Send the operations that the plan holds beyond those sent before; ``handles`` go into slots 0 and on."""
        assert self._socket is not None
        self.plan = plan
        data = b"".join(codec.segments(plan, self._sent, trace=self._trace, last=last))
        if len(data) > PACKET:
            # One segment, which is read whole: at a meeting point the next packet would be taken for the answer.
            data = codec.encode(plan.ops[self._sent :], trace=self._trace, last=last)
        # Not earlier: between its spawn and the first segment it would wait, and it is what all wait for afterwards.
        self.spawn()
        self._sent = len(plan.ops)
        rights = [(SOL_SOCKET, SCM_RIGHTS, pack(f"{len(handles)}i", *handles))] if handles else []
        view = memoryview(data)
        try:
            self._socket.sendmsg([view[:PACKET]], rights)
            for at in range(PACKET, len(data), PACKET):
                self._socket.sendall(view[at : at + PACKET])
        except OSError as error:
            if error.errno not in (EPIPE, ECONNRESET):
                raise
            self._gone(error)

    def _gone(self, error: OSError) -> None:
        """The executor closed its end while we were sending: raise what it reported before."""
        while True:
            kind, step, value = self._report()
            if kind == FAILED:
                raise self._failed(step, value) from None
            if kind == 0:
                if self._reached:
                    who = self.pid or self._stage
                    raise self._died(self._sent, "execute the program", how_it_ended(who)) from error
                self.abort()
                raise Unavailable(
                    "run the native executor: it ended without a report",
                    remedy="may a memfd be executed here (vm.memfd_noexec)?",
                ) from error

    # ── Following ──

    def until_cloned(self) -> None:
        """Follow the plan until ``pid`` is known.

        Raises StepFailed, with everything ended, when a step fails, NeverExecuted when the stage was killed at one.
        """
        while not self.pid:
            kind, step, value = self._report()
            if kind == FAILED:
                raise self._failed(step, value)
            if kind == AWAITING:
                self._arrived = step
            if kind == 0:
                raise self._died(self._sent, "make the container's process", how_it_ended(self._stage))
        self._reap_stage()

    def until(self, name: str) -> None:
        """Follow the plan, whose ``pid`` is known if it clones, to the meeting point ``name``.

        Raises, with everything ended, StepFailed when a step before it fails, NeverExecuted when killed at one.
        """
        while True:
            if self._arrived >= 0:
                kind, step, value, self._arrived = AWAITING, self._arrived, 0, -1
            else:
                kind, step, value = self._report()
            if kind == AWAITING:
                op = self._plan().ops[step]
                if isinstance(op, Await) and op.name in self._passed:
                    continue
                if not isinstance(op, Await) or op.name != name:
                    self.abort()
                    raise Internal(f"the executor waits at step {step + 1}, not at {name!r}")
                return
            if kind == FAILED:
                raise self._failed(step, value)
            if kind == 0:
                how = how_it_ended(self.pid or self._stage)
                raise self._died(self._meeting(name), f"reach the meeting point {name!r}", how)

    def go(self, text: bytes = b"", *, verb: bytes = b"g", ahead: str = "", handles: "Sequence[int]" = ()) -> None:
        """Let the plan pass its meeting point; ``text`` is for the hooks behind it.

        ``ahead`` names the next meeting point when it was not reached yet: nobody waits for it then.
        ``handles`` go into the slots that the meeting point names.
        """
        assert self._socket is not None
        if ahead:
            self._passed.add(ahead)
        rights = [(SOL_SOCKET, SCM_RIGHTS, pack(f"{len(handles)}i", *handles))] if handles else []
        try:
            self._socket.sendmsg([verb + text], rights)
        except OSError as error:
            if error.errno not in (EPIPE, ECONNRESET):
                raise
            self._gone(error)

    def keep(self) -> None:
        """From now on the process stays at its meeting point even when we go away."""
        self.go(verb=b"k")

    def finish(self) -> None:
        """Wait until the program was executed.

        Raises StepFailed when a step before that fails, NeverExecuted when the process was killed at one.
        """
        while True:
            kind, step, value = self._report()
            if kind == 0:
                break
            if kind == FAILED:
                raise self._failed(step, value)
        self.close()
        if self._stage:
            self._reap_stage()
        if not self.pid:
            raise Internal("the executor ended without a report")
        how = never_executed(self.pid)
        if how:
            raise self._died(len(self._plan().ops), self._plan().purpose(len(self._plan().ops) - 1), how)

    def _report(self) -> "tuple[int, int, int]":
        """The next report as (kind, step, value); kind 0 is the end of file."""
        assert self._socket is not None
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(65536, 64)
            except ConnectionResetError:
                continue  # said once, when it ended without reading all that we sent; its reports are still there
            if not data:
                return 0, 0, 0
            kind, step, value = REPORT.unpack_from(data)
            self._reached = step
            if kind == CLONED:
                self.pid = value
            elif kind == HANDLE:
                for _, _, rights in ancillary:
                    self.handle_received = int.from_bytes(rights[:4], "little")
            elif kind == TIMES:
                size = REPORT.size
                self.times = list(memoryview(data)[size : size + (len(data) - size) // 8 * 8].cast("Q"))
                self.times.append(value)
            elif kind == HOOK_ENDED:
                self._hook = hook_ended(value, data[REPORT.size :])
            elif kind == REFUSED:
                self.abort()
                raise Internal(
                    "the native executor refuses the plan: it was built from another vocabulary",
                    remedy="install boxship again",
                )
            return kind, step, value

    # ── Ending ──

    def _plan(self) -> "Plan":
        if self.plan is None:
            raise Internal("the executor reports on a plan that it was not given")
        return self.plan

    def _failed(self, step: int, number: int) -> BoxshipError:
        from .step_errors import failure  # only now: it explains

        error = failure(self._plan(), step, number, hook=self._hook)
        self.abort()
        return error

    def _died(self, last: int, goal: str, how: str) -> NeverExecuted:
        """It was killed on its way to the step ``last``; everything is ended."""
        self.abort()
        return NeverExecuted(goal, how, first=self._reached + 1, last=last, total=len(self._plan().ops))

    def _meeting(self, name: str) -> int:
        """The number of the step that is the meeting point ``name``."""
        for index, op in enumerate(self._plan().ops):
            if isinstance(op, Await) and op.name == name:
                return index + 1
        return len(self._plan().ops)

    def _reap_stage(self) -> None:
        stage, self._stage = self._stage, 0
        if stage:  # else somebody else's child
            _reap(stage)

    def close(self) -> None:
        """Let go of the control socket; closing twice is fine."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._theirs is not None:
            self._theirs.close()
            self._theirs = None

    def abort(self) -> None:
        """End and reap everything that this run has spawned; doing it twice is fine."""
        if not self.pid and self._socket is not None and (self._stage or self._elsewhere):
            # The stage may be about to clone: its report, or its end, decides whether there is a child.
            try:
                self._socket.shutdown(1)
                while not self.pid:
                    data = self._socket.recv(65536)
                    if not data:
                        break
                    kind, _, value = REPORT.unpack_from(data)
                    if kind == CLONED:
                        self.pid = value
            except OSError:
                pass  # nothing more will be reported: the stage is reaped below
        self.close()
        if self._stage:
            self._reap_stage()
        if self.pid and not self._over:
            self._over = True  # its pid may be somebody else's from now on
            self._end()
        if self.handle_received >= 0:
            os.close(self.handle_received)
            self.handle_received = -1

    def _end(self) -> None:
        """Kill what was cloned and wait until it is gone."""
        pidfd = -1
        try:
            if self._elsewhere:
                pidfd = os.pidfd_open(self.pid)
            os.kill(self.pid, 9)
        except ProcessLookupError:
            pass  # it ended by itself, as it does after it reported
        if not self._elsewhere:
            _reap(self.pid)
        elif pidfd >= 0:
            from select import POLLIN, poll

            end = poll()
            end.register(pidfd, POLLIN)
            end.poll()
            os.close(pidfd)


def _reap(pid: int) -> None:
    while True:
        try:
            os.waitpid(pid, 0)
            return
        except ChildProcessError:
            return  # SIGCHLD is ignored, or a reaper in this process was faster: it is gone either way
        except OSError as error:
            if error.errno not in (EINTR, ECHILD):
                raise
