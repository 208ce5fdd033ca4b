"""Hooks that run in the runtime's own namespaces: prestart, createRuntime, poststart, poststop.

runtime-spec, config.md, POSIX-platform Hooks.
Each gets the container's state on standard input, exactly its own environment, and at most its own timeout.
"""

import os
from errno import errorcode
from select import poll
from time import monotonic

from boxship.errors import FailedPrecondition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(kind: str, hooks: "list[dict[str, Any]]", state: bytes) -> None:
    """Run the hooks in order. Raises FailedPrecondition naming the first that fails."""
    for hook in hooks:
        _run(kind, hook, state)


def _run(kind: str, hook: "dict[str, Any]", state: bytes) -> None:
    path = hook["path"]
    environment = dict(variable.partition("=")[::2] for variable in hook.get("env") or ())
    read, write = os.pipe2(os.O_CLOEXEC)
    errors_read, errors_write = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            path,
            list(hook.get("args") or [path]),
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, read, 0),
                (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, errors_write, 2),
            ],
            setsigdef=range(1, 32),
        )
    except OSError as error:
        raise FailedPrecondition(
            f"run {kind} hook {path}", cause=errorcode.get(error.errno or 0, str(error))
        ) from error
    finally:
        os.close(read)
        os.close(errors_write)
        if "pid" not in locals():
            os.close(write)
            os.close(errors_read)
    try:
        try:
            os.write(write, state)  # smaller than a pipe's buffer: it does not block
        except BrokenPipeError:
            pass  # a hook need not read its input
        finally:
            os.close(write)
        status, output = _wait(pid, errors_read, hook.get("timeout"))
    finally:
        os.close(errors_read)
    if status is None:
        raise FailedPrecondition(f"run {kind} hook {path}", cause=f"no end after {hook.get('timeout')} s")
    if status != 0:
        code = os.waitstatus_to_exitcode(status)
        what = f"exit status {code}" if code >= 0 else f"signal {-code}"
        text = output.decode("utf-8", "replace").strip()
        raise FailedPrecondition(f"run {kind} hook {path}", cause=what + (f": {text}" if text else ""))


def _wait(pid: int, errors: int, timeout: "int | None") -> "tuple[int | None, bytes]":
    """(wait status, what it wrote to standard error); status None after the timeout, the hook being killed then."""
    deadline = monotonic() + timeout if timeout else None
    pidfd = os.pidfd_open(pid)
    output = b""
    try:
        poller = poll()
        poller.register(errors, 1)
        poller.register(pidfd, 1)
        while True:
            left = None if deadline is None else max(0, int((deadline - monotonic()) * 1000))
            ready = [fd for fd, _ in poller.poll(left)]
            if not ready:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                return None, output
            if errors in ready:
                data = os.read(errors, 4096)
                output = (output + data)[-4096:]
                if not data:
                    poller.unregister(errors)
            elif pidfd in ready:
                return os.waitpid(pid, 0)[1], output
    finally:
        os.close(pidfd)
