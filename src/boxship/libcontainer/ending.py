"""Deleting a container: all of ``Container.delete``."""

import os
from _signal import pidfd_send_signal  # type: ignore[import-not-found]  # signal imports enum
from errno import ECHILD
from time import monotonic, sleep

from boxship.errors import FailedPrecondition, Unavailable
from boxship.libcontainer import state as store
from boxship.linux.abi.process import SIGKILL

from .container import CREATING, PAUSED, RUNNING, STOPPED, Container
from .process import wait_for_end


def delete(container: Container, *, force: bool) -> None:
    """`Container.delete`, which has the words."""
    status = container.status()
    if status in (RUNNING, PAUSED) and not force:
        raise FailedPrecondition(
            f"cannot delete container {container.id!r}: it is {status}", remedy="stop it first, or use --force"
        )
    if status == CREATING and not force:
        raise FailedPrecondition(f"cannot delete container {container.id!r}: it is being created")
    manager = container.cgroups
    if status != STOPPED:
        _end_init(container)
    container.detach()
    # Without a pid namespace of its own the container's other processes outlive init.
    deadline = monotonic() + 10
    while manager.procs():
        manager.kill(SIGKILL)
        if monotonic() > deadline:
            raise Unavailable(f"delete container {container.id!r}: its processes do not end", remedy="state D?")
        sleep(0.001)
    manager.delete()
    container._leave_rdt_class()
    store.remove(container.root, container.id)
    container._run_hooks("poststop", STOPPED)


def _end_init(container: Container) -> None:
    """Kill init and wait until it is gone; a child of ours is reaped by whoever waits for it."""
    try:
        pidfd = container._pidfd()
    except FailedPrecondition:
        return
    try:
        pidfd_send_signal(pidfd, SIGKILL)
        if container.cgroups.paths and container.cgroups.frozen():
            container.cgroups.thaw()
        # A pid namespace ends only when all that were in it are reaped; those that we started are ours to reap.
        deadline = monotonic() + 10
        thawed = monotonic() + 0.2
        while not wait_for_end(pidfd, 20) and monotonic() < deadline:
            for process in container._processes:
                process.reap()
            if thawed and monotonic() > thawed:
                from .cgroups.freezer import thaw_process

                thawed = 0.0
                thaw_process(container.host.cgroups, container.pid)
        if not wait_for_end(pidfd, 0):
            raise Unavailable(f"delete container {container.id!r}: its init does not end", remedy="state D?")
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)
    try:
        os.waitpid(container.pid, os.WNOHANG)
    except OSError as error:
        if error.errno != ECHILD:  # not ours
            raise
