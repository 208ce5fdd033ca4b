"""``delete``: remove what a shim has left.

containerd runs it after every container: in the normal case the shim has deleted the container and all is gone
already; after a shim was killed, the container may still run.  Deleting twice is fine.
The library, and even our message codec, are loaded only when there is something to do with them.
"""

import os

from ..errors import BoxshipError, NotFound
from . import bundle as bundle_files

SIGKILL = 9  # importing signal costs 5 ms


def clean_up(id: str, bundle: str) -> bytes:
    """How the container ended, a DeleteResponse; one that its shim's death left running is killed (137)."""
    root = bundle_files.runtime_root(bundle)
    _end_shim(bundle)
    pid = _delete_container(root, id) if root and os.path.exists(f"{root}/{id}") else 0
    _unmount(bundle)
    return bundle_files.read(bundle, "exit") or _killed(pid)


def _unmount(bundle: str) -> None:
    """A root file system that containerd or an engine mounted for us and that is still there."""
    rootfs = bundle + "/rootfs"
    try:
        mounted = os.stat(rootfs).st_dev != os.stat(bundle).st_dev
    except FileNotFoundError:
        return
    if mounted:
        from ..linux.libc import detach_mount

        detach_mount(os.fsencode(rootfs))


def _killed(pid: int) -> bytes:
    """What is known of a container whose shim wrote no exit: it is dead now."""
    from time import time_ns

    from ..api.task.task import DeleteResponse
    from ..protobuf import Timestamp

    return DeleteResponse(
        pid=pid,
        exit_status=128 + SIGKILL,
        exited_at=Timestamp.from_ns(time_ns()),
    ).encode()


def _end_shim(bundle: str) -> None:
    """A shim that is still there without containerd wanting it, and its socket."""
    path = bundle_files.read(bundle, "address").decode().removeprefix("unix://")
    pid = bundle_files.read(bundle, "shim.pid").partition(b"\n")[0]
    if pid.isdigit() and _is_shim_of(int(pid), bundle):
        os.kill(int(pid), SIGKILL)
    if path:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # the shim removed it itself


def _is_shim_of(pid: int, bundle: str) -> bool:
    """Whether ``pid`` is (still) the shim of this bundle: pids are reused, its working directory is not."""
    try:
        return os.readlink(f"/proc/{pid}/cwd") == os.path.realpath(bundle)
    except OSError:
        return False


def _delete_container(root: str, id: str) -> int:
    """The pid that its init had; 0 when somebody else deleted it first."""
    from ..libcontainer.container import Container

    pid = 0
    try:
        container = Container.load(id, root=root)
        pid = container.pid
        container.delete(force=True)
    except NotFound:
        pass  # another deleter was faster
    except BoxshipError:
        if os.path.exists(f"{root}/{id}"):
            raise
    return pid
