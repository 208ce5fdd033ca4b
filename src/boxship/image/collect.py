"""Garbage collection of a layout: what its index does not lead to is removed.

Nobody else may be changing the layout meanwhile: a blob that is written but not yet named looks like garbage.
"""

import fcntl
import os

from boxship.image import rooted
from boxship.image.layout import Layout
from boxship.image.named import reachable

_OURS = frozenset({"oci-layout", "index.json", "blobs"})


def collect(layout: Layout) -> "list[str]":
    """Remove unreachable blobs, and what the image-spec does not know of; says what was removed.

    Raises before anything is removed when the index or a manifest cannot be read.
    """
    needed = reachable(layout)
    removed = []
    for digest, _ in [*layout.blobs()]:
        if digest not in needed:
            layout.delete(digest)
            removed.append(str(digest))
    for name in sorted(os.listdir(layout.path)):
        path = os.path.join(layout.path, name)
        if name not in _OURS and not _in_use(path):
            rooted.remove_tree(path)
            removed.append(name)
    return removed


def _in_use(path: str) -> bool:
    """umoci keeps its temporary directory locked while it works."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # a socket, a symlink: nothing that a lock could be on
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
