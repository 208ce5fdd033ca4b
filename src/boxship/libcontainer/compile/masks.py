"""What the container may not see or not change: linux.maskedPaths, linux.readonlyPaths.

What covers a path is verified before it is used: the null device by its number (an image's /dev/null may be
anything, CVE-2025-31133), the path itself by the descriptor that it was opened with, from the root's.
"""

import os
from errno import EBADF, ENOENT, ENOTDIR

from boxship.libcontainer.plan.ops import CheckFile, Mask, MoveMount, Open, OpenTree, SetMountAttributes
from boxship.linux.abi.mount import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    MOUNT_ATTR_RDONLY,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    O_NOFOLLOW,
    O_PATH,
    OPEN_TREE_CLONE,
    RESOLVE_IN_ROOT,
)

from .context import Context, clean

ONTO = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
CHARACTER_DEVICE = 0o020000
NULL = os.makedev(1, 3)


def read_only_paths(c: Context) -> None:
    """linux.readonlyPaths: each bound onto itself, then read-only; one that is not there is no error."""
    paths = c.linux.get("readonlyPaths") or ()
    if not paths:
        return
    c.purpose("make the read-only paths read-only")
    for path in paths:
        if not clean(path):
            continue  # the root itself: rootfs.read_only
        c.open_in_root(c.target, path, tolerate=(ENOENT, ENOTDIR))
        c.add(
            OpenTree(c.tree, c.target, "", OPEN_TREE_CLONE | AT_RECURSIVE | AT_EMPTY_PATH, tolerate=(EBADF, ENOENT))
        )
        c.add(
            SetMountAttributes(c.tree, "", AT_EMPTY_PATH | AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0, 0, tolerate=(EBADF,))
        )
        c.add(MoveMount(c.tree, c.target, "", ONTO, tolerate=(EBADF,)))


def masked_paths(c: Context) -> None:
    """linux.maskedPaths: an empty directory over a directory, the null device over anything else."""
    # In /proc and /sys the host's own files tell whether there is such a path at all.
    paths = [
        path
        for path in dict.fromkeys(c.linux.get("maskedPaths") or ())
        if not path.startswith(("/proc/", "/sys/")) or c.host.kernel_path_kind(path)
    ]
    if not paths:
        return
    c.purpose("mask paths")
    if c.dev >= 0:
        # By the handle of the directory that we made it in: whatever is at the path by now.
        c.add(Open(c.null, c.dev, "null", O_PATH | O_NOFOLLOW, RESOLVE_IN_ROOT))
    else:
        c.open_in_root(c.null, "dev/null", O_PATH | O_NOFOLLOW)
    c.add(CheckFile(c.null, CHARACTER_DEVICE, NULL))
    for path in paths:
        c.add(Mask(c.root, path, c.null, tolerate=(ENOENT, ENOTDIR)))
