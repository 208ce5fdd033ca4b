"""One more process in a container that runs."""

import os

from boxship.errors import FailedPrecondition
from boxship.linux.abi.process import NAMESPACES

from .compile import Plan, Request, compile_exec
from .compile.process import SECCOMP_AGENT
from .container import CREATED, PAUSED, RUNNING, Container
from .executor import Run
from .idmap import host_id
from .making import home_of, to_seccomp_agent
from .plan.reports import NeverExecuted
from .process import Process, Stdio, Terminal, stdio_owners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def execute(
    container: Container,
    process: "dict[str, Any]",
    *,
    stdio: "Stdio | Terminal",
    preserve_fds: int,
    sub_cgroups: "dict[str, str] | None",
    ignore_paused: bool,
    trace: bool,
) -> Process:
    """`Container.exec`, which has the words."""
    status = container.status()
    if status not in (RUNNING, CREATED) and not (status == PAUSED and ignore_paused):
        remedy = "resume it first, or use --ignore-paused" if status == PAUSED else ""
        raise FailedPrecondition(f"cannot exec in a {status} container ({container.id!r})", remedy=remedy)
    spec = container.spec
    linux = spec.get("linux") or {}
    process = _inherited(process, spec.get("process") or {})
    flags = 0
    for namespace in linux.get("namespaces") or ():
        flags |= NAMESPACES[namespace["type"]]
    if container._record.get("own_time"):
        flags |= NAMESPACES["time"]
    manager = container.cgroups
    tasks = manager.tasks_files(sub_cgroups)
    request = Request(
        {"process": process, "linux": linux},
        id=container.id,
        tasks=len(tasks),
        cgroup=manager.exec_directory(container.pid, sub_cgroups),
        preserve_fds=preserve_fds,
        cache=container.root + "/.seccomp",
    )
    uid = (process.get("user") or {}).get("uid", 0)
    triple = (-1, -1, -1)
    if isinstance(stdio, Terminal):
        request.terminal, request.relayed = True, stdio.relayed
        request.columns, request.rows = stdio.width, stdio.height
    else:
        triple = stdio.triple()
        request.stdio_owners = stdio_owners(triple, host_id(spec, uid))
    request.home = home_of({"process": process}, uid, f"/proc/{container.pid}/root", ())
    plan = compile_exec(request, container.host, namespaces_flags=flags)
    handles = [container._pidfd()]
    try:
        handles += [os.dup(fd) for fd in range(3, 3 + preserve_fds)]
        handles += (os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in tasks)
        run = Run(stdio=triple, trace=trace)
        try:
            run.extend(plan, handles)
        except BaseException:
            run.abort()
            raise
    finally:
        for handle in handles:
            os.close(handle)
    if (linux.get("seccomp") or {}).get("listenerPath"):
        _meet_seccomp_agent(container, run, plan, status)
    if container._record.get("rdt"):
        from . import rdt

        run.until_cloned()
        rdt.enter(container._record["rdt"], run.pid)
    try:
        run.finish()
    except NeverExecuted as error:
        from . import failures

        failures.blame_memory(container, error)
        raise
    container.times, container.plan = run.times, plan
    started = Process(run.pid, run.handle_received)
    container._processes.append(started)
    return started


def _inherited(process: "dict[str, Any]", own: "dict[str, Any]") -> "dict[str, Any]":
    """The process to run, with what it does not say taken from the container's own, as runc has it.

    Unlike runc, which takes false for a noNewPrivileges that is not there, it keeps the container's.
    """
    found = {**process}
    for key in ("capabilities", "noNewPrivileges", "oomScoreAdj"):
        if process.get(key) is None:
            found[key] = own.get(key)
    for key in ("apparmorProfile", "selinuxLabel", "scheduler", "ioPriority"):
        found[key] = process.get(key) or own.get(key)
    if not any((process.get("execCPUAffinity") or {}).values()):
        found["execCPUAffinity"] = own.get("execCPUAffinity")
    umask = (own.get("user") or {}).get("umask")
    user = process.get("user") or {}
    if umask is not None and user.get("umask") is None:
        found["user"] = {**user, "umask": umask}
    return found


def _meet_seccomp_agent(container: Container, run: Run, plan: Plan, status: str) -> None:
    """The meeting point of an exec whose filter has a listener."""
    if not any(meeting.name == SECCOMP_AGENT for meeting in plan.meetings()):
        return
    try:
        run.until_cloned()
        run.until(SECCOMP_AGENT)
        to_seccomp_agent(container, run, status)
    except BaseException:
        run.abort()
        raise
