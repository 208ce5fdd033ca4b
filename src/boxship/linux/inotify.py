"""inotify(7): for the followers of a log, and for a server that must notice when its code is replaced.

The ctypes binding is loaded when it is first used.
"""

from __future__ import annotations

import os

IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF = 0x2, 0x80, 0x100, 0x200, 0x400
IN_NONBLOCK, IN_CLOEXEC = 0o4000, 0o2000000


def _checked(result: int, what: str) -> int:
    import ctypes

    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def inotify_init1(flags: int) -> int:
    """A new inotify descriptor; raises OSError (EMFILE at fs.inotify.max_user_instances)."""
    import ctypes

    return _checked(ctypes.CDLL(None, use_errno=True).inotify_init1(flags), "inotify_init1")


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """Watch ``path``; raises OSError (ENOENT, ENOSPC at fs.inotify.max_user_watches)."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    return _checked(library.inotify_add_watch(fd, os.fsencode(path), mask), f"inotify_add_watch {path}")
