"""Starting a container that another process created: through the socket in its state directory (decision 4)."""

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socket
from errno import ECONNREFUSED, ENOENT

from boxship.errors import BoxshipError, FailedPrecondition, StepFailed
from boxship.libcontainer import state as store

from .container import CREATED, Container
from .plan.reports import FAILED, HOOK_ENDED, REPORT, NeverExecuted, hook_ended, never_executed
from .process import wait_for_end


def start(container: Container) -> None:
    """Let it execute its program; returns when it has. Raises as `Container.start`."""
    status = container.status()
    if status != CREATED:
        raise FailedPrecondition(f"cannot start container {container.id!r}: it is {status}")
    connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
    try:
        directory = os.open(container.directory, os.O_PATH | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{directory}/{store.SOCKET}")
        except OSError as error:
            if error.errno in (ECONNREFUSED, ENOENT):
                raise FailedPrecondition(
                    f"cannot start container {container.id!r}: it was started meanwhile, or has ended"
                ) from error
            raise
        finally:
            os.close(directory)
        try:
            connection.sendall(b"g" + container._state_for("startContainer", CREATED))
        except BrokenPipeError:
            pass  # it has ended, and what it said before, or the end of file, is there to read
        hook = ""
        while True:
            data = connection.recv(65536)
            if not data:
                _must_have_executed(container)
                return
            kind, step, value = REPORT.unpack_from(data)
            if kind == HOOK_ENDED:
                hook = hook_ended(value, data[REPORT.size :])
            if kind == FAILED:
                from . import failures

                failure = _failed_after_start(container, step, value, hook)
                _until_ended(container)
                failures.keep(container, failure)
                raise failure
    except ConnectionResetError as error:  # nobody has read our word
        _must_have_executed(container)
        raise FailedPrecondition(f"cannot start container {container.id!r}: another start was faster") from error
    finally:
        connection.close()


def _must_have_executed(container: Container) -> None:
    """After the end of the connection; raises NeverExecuted."""
    how = never_executed(container.pid, container._record["start_time"])
    if how:
        total, steps = _after_start(container)
        goal = steps.get(str(total - 1)) or "execute its program"
        error = NeverExecuted(goal, how, first=min(map(int, steps), default=total), last=total, total=total)
        error.message = f"start container {container.id!r}: {error.message}"
        from . import failures

        _until_ended(container)
        failures.blame_memory(container, error)
        raise error


def _until_ended(container: Container) -> None:
    """Its socket is closed before a process counts as ended: who asks next shall see "stopped"."""
    try:
        pidfd = container._pidfd()
    except FailedPrecondition:
        return
    try:
        wait_for_end(pidfd, 10_000)
    finally:
        os.close(pidfd)


def _failed_after_start(container: Container, step: int, number: int, hook: str) -> BoxshipError:
    total, steps = _after_start(container)
    name = os.strerror(number).lower()
    purpose = steps.get(str(step), "")
    if hook:
        text = f"error running {purpose.removeprefix('run ')}"
        return StepFailed(text, step=step + 1, total=total, errno=number, cause=hook)
    text = f"step {step + 1} of {total}: {purpose}"
    return StepFailed(text, step=step + 1, total=total, errno=number, cause=name)


def _after_start(container: Container) -> "tuple[int, dict[str, str]]":
    """How many steps its plan has, and what those are for that come after the start, by number."""
    recorded: tuple[int, dict[str, str]] = container._record.get("after_start") or (0, {})
    return recorded
