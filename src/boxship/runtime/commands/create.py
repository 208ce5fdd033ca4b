"""``create``: everything but the program; this process ends, the container's first process waits."""

import os

from boxship.errors import BoxshipError
from boxship.libcontainer.container import Container

from ..main import Call
from ..start import (
    StartFailed,
    check_terminal,
    container_parts,
    debug_plan,
    send_console,
    send_pidfd,
    streams,
    write_pid_file,
)


def create(call: Call, *, detached: bool) -> "tuple[Container, bool]":
    """The created container, still held by this process, and whether it has a terminal."""
    options = call.options
    id, bundle, spec, terminal, count = container_parts(call)
    notify = None
    if "NOTIFY_SOCKET" in os.environ:
        from ..notify import proxy

        notify = proxy(f"{call.root}/{id}")
        if notify is not None:
            notify.offer(spec)
    check_terminal(options, terminal, detached)
    container = Container.create(
        id,
        bundle,
        root=call.root,
        spec=spec,
        keep_spec=bool(options.text("config")) or call.as_crun,  # else the bundle has the same
        stdio=streams(spec.get("process") or {}, terminal, not detached),
        cgroup_manager=call.cgroup_manager,
        no_pivot=options.flag("no-pivot"),
        new_keyring=not options.flag("no-new-keyring"),
        preserve_fds=count,
        checked=True,
        claimed=None if notify is None else lambda directory: notify.make(),
    )
    debug_plan(call.log, container.plan, entered=False)
    try:
        for note in container.notes:
            call.log.warning(note)
        if options.text("console-socket"):
            console, container.console = container.console, -1
            send_console(options.text("console-socket"), console)
        if options.text("pidfd-socket"):
            send_pidfd(options.text("pidfd-socket"), container.pid)
        if options.text("pid-file"):
            write_pid_file(options.text("pid-file"), container.pid)
    except BaseException:
        container.delete(force=True)
        raise
    return container, terminal


def run(call: Call) -> int:
    try:
        container, _ = create(call, detached=True)
    except BoxshipError as error:
        raise StartFailed("create", error, 1) from error
    container.detach()
    return 0
