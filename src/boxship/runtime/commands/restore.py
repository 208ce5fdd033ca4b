"""``restore``: start a container from the files of a checkpoint, with CRIU; then as ``run``."""

import os

from boxship.errors import BoxshipError
from boxship.libcontainer.restore import restore
from boxship.libcontainer.validate import check

from ..main import Call
from ..start import StartFailed, check_terminal, map_every_id, send_console, write_pid_file
from .checkpoint import options, warn_without_root


def run(call: Call) -> int:
    from boxship.libcontainer.container import read_spec

    flags = call.options
    detached = flags.flag("detach")
    bundle = os.path.abspath(flags.text("bundle", "."))
    warn_without_root(call)
    signals = None
    container = None
    try:
        spec = read_spec(bundle, flags.text("config"))
        if call.as_crun:
            map_every_id(spec)
        check(spec)
        given = options(call, spec.get("annotations") or {})
        terminal = bool((spec.get("process") or {}).get("terminal"))
        check_terminal(flags, terminal, detached)
        if not detached:
            from ..foreground import Foreground

            signals = Foreground()
        container = restore(
            call.id(),
            bundle,
            given,
            root=call.root,
            spec=spec,
            keep_spec=bool(flags.text("config")) or call.as_crun,
            streams=(-1, -1, -1) if terminal else (0, 1, 2),
            cgroup_manager=call.cgroup_manager,
        )
        if flags.text("console-socket") and container.console >= 0:
            console, container.console = container.console, -1
            send_console(flags.text("console-socket"), console)
        if flags.text("pid-file"):
            write_pid_file(flags.text("pid-file"), container.pid)
    except BoxshipError as error:
        if container is not None:
            container.delete(force=True)
        raise StartFailed("restore", error, 1) from error
    if signals is None:
        return 0
    try:
        return signals.wait(container.pid, container.console)
    finally:
        container.delete(force=True)
