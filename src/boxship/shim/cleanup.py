"""``delete``: remove what a shim has left.

containerd runs it after every container: in the normal case the shim has deleted the container and all is gone
already; after a shim was killed, the container may still run.  Deleting twice is fine.
The library is loaded only when there is something to delete.
"""

import os
from signal import SIGKILL
from time import time_ns

from ..api.task.task import DeleteResponse
from ..api.task.zygote import default_exec_root
from ..errors import BoxshipError, NotFound
from ..linux.libc import detach_mount
from ..protobuf import Timestamp
from . import bundle as bundle_files


def clean_up(namespace: str, id: str, bundle: str) -> DeleteResponse:
    """How the container ended; a container that its shim's death left running is killed (137)."""
    root = bundle_files.read(bundle, "runtime-root").decode() or f"{default_exec_root()}/runtime/{namespace}"
    _end_shim(bundle)
    if os.path.exists(f"{root}/{id}"):
        _delete_container(root, id)
    detach_mount(os.fsencode(bundle + "/rootfs"))
    pid = bundle_files.read(bundle, "init.pid")
    return bundle_files.read_exit(bundle) or DeleteResponse(
        pid=int(pid) if pid.isdigit() else 0,
        exit_status=128 + SIGKILL,
        exited_at=Timestamp.from_ns(time_ns()),
    )


def _end_shim(bundle: str) -> None:
    """A shim that is still there without containerd wanting it, and its socket."""
    path = bundle_files.read(bundle, "address").decode().removeprefix("unix://")
    pid = bundle_files.read(bundle, "shim.pid")
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


def _delete_container(root: str, id: str) -> None:
    from ..libcontainer.container import Container

    try:
        Container.load(id, root=root).delete(force=True)
    except NotFound:
        return
    except BoxshipError:
        if os.path.exists(f"{root}/{id}"):
            raise
