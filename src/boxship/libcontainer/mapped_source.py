"""Id-mapped bind mounts of what earlier mounts of the same container made, in a user namespace.

Such a source is only in the container's mount namespace, where the container's process is not privileged enough to
map the ids of a file system of the host; whoever is, is not in that mount namespace.
So a second executor with the creator's privileges goes there, with the descriptor that the container's process has
opened below its root (nothing is looked up by path again), and sends the mapped, detached mount back.
runc HEAD has a thread for the same.
"""

import os

from boxship.errors import Internal
from boxship.linux.abi.mount import AT_EMPTY_PATH, AT_RECURSIVE, MOUNT_ATTR_IDMAP, OPEN_TREE_CLONE
from boxship.linux.abi.process import CLONE_NEWNS

from .compile import Plan
from .executor import Run
from .plan.ops import CWD, Await, Open, OpenTree, SendHandle, SetMountAttributes, SetNs, UserNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .compile.context import MappedSource

MOUNTS, SOURCE, MAPS, TREE = range(4)
DONE = "mapped"


def map_ids(run: Run, source: "MappedSource") -> None:
    """Answer the meeting point at which ``run`` waits for its mapped mount. Raises StepFailed."""
    if run.handle_received < 0:
        raise Internal(f"{source.what}: the executor sent no descriptor of it")
    fd, run.handle_received = run.handle_received, -1
    try:
        mounts = os.open(f"/proc/{run.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            tree = _mapped(source, mounts, fd)
        finally:
            os.close(mounts)
    finally:
        os.close(fd)
    try:
        run.go(handles=(tree,))
    finally:
        os.close(tree)


def _plan(source: "MappedSource") -> Plan:
    plan = Plan()
    plan.purposes.append((0, source.what))
    everything = AT_EMPTY_PATH | AT_RECURSIVE
    plan.ops += (
        Open(MAPS, CWD, source.joined, 0) if source.joined else UserNamespace(MAPS, source.uids, source.gids),
        SetNs(MOUNTS, CLONE_NEWNS),
        OpenTree(TREE, SOURCE, "", OPEN_TREE_CLONE | (everything if source.recursive else AT_EMPTY_PATH)),
        SetMountAttributes(TREE, "", everything if source.map_all else AT_EMPTY_PATH, MOUNT_ATTR_IDMAP, 0, 0, MAPS),
        SendHandle(TREE),
        Await(DONE),
    )
    return plan


def _mapped(source: "MappedSource", mounts: int, fd: int) -> int:
    """The detached mount; the executor that made it has ended."""
    helper = Run(here=True)
    try:
        helper.extend(_plan(source), (mounts, fd))
        helper.until(DONE)
        tree, helper.handle_received = helper.handle_received, -1
        return tree
    finally:
        helper.abort()
