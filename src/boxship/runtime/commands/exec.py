"""``exec``: one more process in a container."""

import os

from boxship.errors import BoxshipError, InvalidArgument
from boxship.libcontainer import validate
from boxship.libcontainer.container import Container
from boxship.linux.abi.process import CAPABILITIES
from boxship.oci import cold_json

from ..main import Call
from ..start import (
    StartFailed,
    check_terminal,
    debug_plan,
    preserved,
    send_console,
    send_pidfd,
    streams,
    write_pid_file,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CAPABILITY_SETS = ("bounding", "effective", "permitted")


def _process(call: Call, container: Container) -> "dict[str, Any]":
    """The process to run: --process as it is, or the container's own with what the flags change."""
    options = call.options
    if options.text("process"):
        try:
            with open(options.text("process"), "rb") as f:
                value = cold_json.loads(f.read(), options.text("process"))
        except OSError as error:
            raise InvalidArgument(f"--process {options.text('process')}", cause=error.strerror or "") from error
        if not isinstance(value, dict):
            raise InvalidArgument(f"--process {options.text('process')}: must be a JSON object")
        return value
    arguments = options.operands[1:]
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    if not arguments:
        raise InvalidArgument("exec args cannot be empty", remedy="name a command after the id, or use --process")
    process: dict[str, Any] = dict(container.spec.get("process") or {})
    process["args"] = arguments
    process["terminal"] = options.flag("tty")
    process.pop("consoleSize", None)
    process["env"] = [*(process.get("env") or ()), *options.texts("env")]
    process["cwd"] = options.text("cwd") or process.get("cwd") or "/"
    if "apparmor" in options.flags:
        process["apparmorProfile"] = options.text("apparmor")
    if "process-label" in options.flags:
        process["selinuxLabel"] = options.text("process-label")
    if "no-new-privs" in options.flags:
        process["noNewPrivileges"] = options.flag("no-new-privs")
    if options.texts("cap"):
        for name in options.texts("cap"):
            if name not in CAPABILITIES:
                raise InvalidArgument(f"--cap {name}: unknown capability", remedy="write it like CAP_NET_ADMIN")
        sets = {name: list(names or ()) for name, names in (process.get("capabilities") or {}).items()}
        # Ambient ones must be inheritable too (capabilities(7)): only a container that has some passes ours on.
        for name in (*CAPABILITY_SETS, "ambient") if "inheritable" in sets else CAPABILITY_SETS:
            sets[name] = [*sets.get(name, []), *options.texts("cap")]
        process["capabilities"] = sets
    user = dict(process.get("user") or {})
    if options.text("user"):
        uid, _, gid = options.text("user").partition(":")
        try:
            user["uid"] = int(uid)
            user["gid"] = int(gid) if gid else user.get("gid", 0)
        except ValueError as error:
            raise InvalidArgument(f"--user {options.text('user')!r}: must be UID[:GID] in numbers") from error
    if options.texts("additional-gids"):
        more = options.texts("additional-gids")
        if not all(gid.isdigit() for gid in more):
            raise InvalidArgument(f"--additional-gids {' '.join(more)}: must be numbers, from 0 on")
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *map(int, more)]
    process["user"] = user
    return process


def _sub_cgroups(call: Call) -> "dict[str, str]":
    given = call.options.texts("cgroup")
    if not given:
        return {}
    from boxship.libcontainer.subcgroups import parse

    return parse(given)


def run(call: Call) -> int:
    options = call.options
    detached = options.flag("detach")
    try:
        container = Container.load(call.id(), root=call.root)
        process = _process(call, container)
        validate.check_process(process)
        terminal = bool(process.get("terminal")) or options.flag("tty")
        check_terminal(options, terminal, detached)
        count = preserved(options, process)
        signals = None
        if not detached:
            from ..foreground import Foreground

            signals = Foreground()
        started = container.exec(
            process,
            stdio=streams(process, terminal, not detached),
            preserve_fds=count,
            sub_cgroups=_sub_cgroups(call),
            ignore_paused=options.flag("ignore-paused"),
        )
        debug_plan(call.log, container.plan, entered=True)
        console = started.console
        try:
            if options.text("console-socket"):
                send_console(options.text("console-socket"), console)
                console = -1
            if options.text("pidfd-socket"):
                send_pidfd(options.text("pidfd-socket"), started.pid)
            if options.text("pid-file"):
                write_pid_file(options.text("pid-file"), started.pid)
        except BaseException:
            os.kill(started.pid, 9)
            raise
    except BoxshipError as error:
        raise StartFailed("exec", error, 255) from error
    return 0 if signals is None else signals.wait(started.pid, console)
