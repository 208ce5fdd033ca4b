"""Hooks that run inside: the executor runs them; those of the runtime's own namespaces run in the creator.

runtime-spec, config.md, POSIX-platform Hooks: createContainer before the pivot, startContainer in the container
before the program.
"""

from boxship.errors import InvalidArgument
from boxship.libcontainer.plan.ops import Await, CloseOthers, Hook

from .context import Context
from .process import meet_seccomp_agent, variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RUNTIME_HOOKS = "runtime-hooks"
START = "start"


def of(spec: "dict[str, Any]", kind: str) -> "list[dict[str, Any]]":
    """The hooks of one kind, checked: an absolute path each."""
    hooks = (spec.get("hooks") or {}).get(kind) or []
    for hook in hooks:
        if not str(hook.get("path", "")).startswith("/"):
            raise InvalidArgument(f"hooks.{kind}: path must be absolute, not {hook.get('path')!r}")
    return list(hooks)


def meet_runtime_hooks(c: Context) -> None:
    """All but the pivot is done: the creator runs prestart and createRuntime, and sends the state on.

    Hooks of that time enter the mount namespace and add to what is mounted (as those for GPUs do).
    """
    if of(c.spec, "prestart") or of(c.spec, "createRuntime") or of(c.spec, "createContainer"):
        c.purpose("wait for the prestart and createRuntime hooks")
        c.add(Await(RUNTIME_HOOKS))


def _run(c: Context, kind: str, cwd: str, env: "list[str]") -> None:
    for number, hook in enumerate(of(c.spec, kind)):
        c.purpose(f"run {kind} hook #{number}: {hook['path']}")
        timeout = hook.get("timeout") or 0
        argv = list(hook.get("args") or [hook["path"]])
        c.add(Hook(hook["path"], argv, list(hook.get("env") or env), int(timeout * 1000), cwd))


def create_container(c: Context) -> None:
    """createContainer hooks: the container's namespaces, the host's files."""
    if of(c.spec, "createContainer"):
        c.plan.nodes_first = False  # a hook may open devices: the rules must be complete before it runs
        _run(c, "createContainer", c.request.rootfs or "/", c.host.environment())


def start_container(c: Context) -> None:
    """startContainer hooks: inside, after start was called, with the process's environment where they have none."""
    _run(c, "startContainer", c.process.get("cwd") or "/", variables(c))


def meet_start(c: Context) -> None:
    """Created. The creator may go away now; the word to start comes from it or through the listening socket.

    Only the listening socket and the descriptors to be handed on are still needed.
    """
    c.purpose("close what is not needed any more")
    c.add(CloseOthers(c.tasks - 1))
    meet_seccomp_agent(c)
    c.purpose("wait for start")
    c.add(Await(START, -1, c.listener))
