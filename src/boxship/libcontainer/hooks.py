"""Hooks that run in the runtime's own namespaces: prestart, createRuntime, poststart, poststop.

runtime-spec, config.md, POSIX-platform Hooks.
Each gets the container's state on standard input, the bundle as its working directory, its own environment (the
runtime's where the hook has none), and at most its own timeout.
It is executed by a plan of its own, so nothing of ours (signals, descriptors) leaks into it.
"""

import os
from select import poll
from time import monotonic

from boxship.errors import BoxshipError, FailedPrecondition

from .compile.context import Plan
from .executor import Run
from .plan.ops import ChDir, Clone, Exec, FindProgram, ResetSignals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# crun's annotations: files that get what hooks print.
STDOUT, STDERR = "run.oci.hooks.stdout", "run.oci.hooks.stderr"


def run(
    kind: str,
    hooks: "list[dict[str, Any]]",
    state: bytes,
    *,
    bundle: str = "/",
    annotations: "dict[str, str] | None" = None,
    warn: "Callable[[str], None] | None" = None,
) -> None:
    """Run the hooks in order. Raises FailedPrecondition naming the first that fails.

    With ``warn`` a failing hook is told to it and the others still run (runtime-spec, lifecycle: poststop).
    """
    for number, hook in enumerate(hooks):
        try:
            failed = f"hooks.{kind}[{number}]: error running {kind} hook #{number}: {hook['path']}"
            _run(failed, hook, state, bundle, annotations or {})
        except BoxshipError as error:
            if warn is None:
                raise
            warn(f"{kind} hook failed with {error.cause}: #{number}, {hook['path']}")


def _run(failed: str, hook: "dict[str, Any]", state: bytes, bundle: str, annotations: "dict[str, str]") -> None:
    path = hook["path"]
    environment = hook.get("env")
    if not environment:
        environment = [f"{name}={value}" for name, value in os.environ.items()]
    plan = Plan()
    plan.purposes.append((0, f"find {path}"))
    plan.ops += [
        ResetSignals(),
        ChDir(bundle),
        Clone(0),
        FindProgram([path]),
        Exec(list(hook.get("args") or [path]), list(environment)),
    ]
    read, write = os.pipe2(os.O_CLOEXEC)
    errors_read, errors_write = os.pipe2(os.O_CLOEXEC)
    files = [read, errors_write]
    try:
        streams = [read, -1, errors_write]
        for number, key in ((1, STDOUT), (2, STDERR)):
            if annotations.get(key):
                files.append(os.open(annotations[key], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o700))
                streams[number] = files[-1]
        process = Run(stdio=(streams[0], streams[1], streams[2]), here=True)
        try:
            process.extend(plan)
            process.finish()
        except BaseException:
            process.abort()
            raise
    except (BoxshipError, OSError) as error:
        os.close(write)
        os.close(errors_read)
        raise FailedPrecondition(failed, cause=str(error)) from error
    finally:
        for fd in files:
            os.close(fd)
    try:
        try:
            os.write(write, state)  # smaller than a pipe's buffer: it does not block
        except BrokenPipeError:
            pass  # a hook need not read its input
        finally:
            os.close(write)
        status, output = _wait(process.pid, errors_read, hook.get("timeout"))
    finally:
        os.close(errors_read)
    if status is None:
        raise FailedPrecondition(failed, cause=f"no end after {hook.get('timeout')} s")
    if status != 0:
        code = os.waitstatus_to_exitcode(status)
        what = f"exit code {code}" if code >= 0 else f"signal {-code}"
        text = output.decode("utf-8", "replace").strip()
        raise FailedPrecondition(failed, cause=what + (f": {text}" if text else ""))


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
