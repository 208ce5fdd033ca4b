"""``exec``: one more process in a container."""

import os

from boxship.errors import BoxshipError, InvalidArgument
from boxship.libcontainer.container import Container
from boxship.oci import cold_json

from ..main import Call
from ..start import StartFailed, check_terminal, preserved, send_console, send_pidfd, streams, write_pid_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CAPABILITY_SETS = ("bounding", "effective", "permitted")


def _process(call: Call, container: Container) -> "dict[str, Any]":
    """The process to run: --process as it is, or the container's own with what the flags change."""
    options = call.options
    if options.text("process"):
        with open(options.text("process"), "rb") as f:
            value = cold_json.loads(f.read(), options.text("process"))
        if not isinstance(value, dict):
            raise InvalidArgument(f"--process {options.text('process')}: must be a JSON object")
        return value
    arguments = options.operands[1:]
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    if not arguments:
        raise InvalidArgument("process args cannot be empty")
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
    if options.flag("no-new-privs"):
        process["noNewPrivileges"] = True
    if options.texts("cap"):
        sets = {name: list(names) for name, names in (process.get("capabilities") or {}).items()}
        for name in CAPABILITY_SETS:
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
        user["additionalGids"] = [int(gid) for gid in options.texts("additional-gids")]
    process["user"] = user
    return process


def run(call: Call) -> int:
    options = call.options
    container = Container.load(call.id(), root=call.root)
    detached = options.flag("detach")
    try:
        process = _process(call, container)
        terminal = bool(process.get("terminal")) or options.flag("tty")
        check_terminal(options, terminal, detached)
        count = preserved(options, process)
        signals = None
        if not detached:
            from ..foreground import Foreground

            signals = Foreground()
        started = container.exec(process, stdio=streams(process, terminal), preserve_fds=count)
    except BoxshipError as error:
        raise StartFailed("exec", error, 255) from error
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
    return 0 if signals is None else signals.wait(started.pid, console)
