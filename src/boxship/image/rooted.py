"""Look-ups inside a root file system, by descriptor: nothing that an image says can lead out of it.

Every path from a tar header goes through `boxship.linux.files.open_in_root` (openat2).
Joining strings and checking prefixes is what CVE-2018-15664 and CVE-2019-14271 were made of.
"""

import os
import stat

from boxship.linux.files import open_in_root, syncfs

from .durable import describe, fsync_directory

__all__ = ["describe", "fsync_directory", "open_directory", "open_in_root", "remove", "remove_tree", "syncfs"]


def open_directory(root: int, path: str) -> int:
    return open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)


def remove(parent: int, name: str) -> None:
    """Remove ``name`` in the directory ``parent``, a tree included; symlinks are never followed.

    What somebody else removes at the same time is removed.
    """
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            return
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            for child in os.listdir(fd):
                remove(fd, child)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        pass  # it is gone, which is what was asked for


def remove_tree(path: str) -> None:
    """Remove the tree at ``path``, which is ours; a tree that is not there is a success."""
    parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove(parent, os.path.basename(path))
    finally:
        os.close(parent)
