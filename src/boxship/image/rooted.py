"""Look-ups inside a root file system, by descriptor: nothing that an image says can lead out of it.

Every path from a tar header goes through `openat2` with RESOLVE_IN_ROOT: absolute symlinks and ``..`` are taken
relative to the root, as if by chroot, and magic links are refused (openat2(2), Linux 5.6).
Joining strings and checking prefixes is what CVE-2018-15664 and CVE-2019-14271 were made of.
"""

import ctypes
import errno
import os
import stat

from boxship.errors import BoxshipError, Internal, InvalidArgument, ResourceExhausted

_SYS_OPENAT2 = 437  # the same on every architecture: it came after the numbers were unified
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in_root(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Open ``path`` below the directory descriptor ``root``; raises OSError as open(2) does. The caller owns it."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    name = os.fsencode(path.lstrip("/") or ".")
    for _ in range(32):
        fd = _libc.syscall(
            _SYS_OPENAT2, root, ctypes.c_char_p(name), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if fd >= 0:
            return int(fd)
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):  # EAGAIN: a rename raced with the look-up of ".."
            raise OSError(number, os.strerror(number), path)
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


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


def describe(error: OSError, what: str) -> BoxshipError:
    """The BoxshipError for an OSError met while doing ``what``."""
    cause = errno.errorcode.get(error.errno or 0, str(error))
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return ResourceExhausted(
                what, cause=cause, remedy="the disk is full: free some space, then retry"
            )
        case errno.ENOTDIR | errno.ELOOP | errno.ENAMETOOLONG | errno.EISDIR | errno.EEXIST | errno.ENOENT:
            return InvalidArgument(what, cause=cause)
        case errno.EPERM | errno.EACCES:
            return Internal(what, cause=cause, remedy="unpacking needs root")
        case _:
            return Internal(what, cause=cause)


def fsync_directory(path: str) -> None:
    """Make renames in ``path`` survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def syncfs(fd: int) -> None:
    """Flush the file system that holds ``fd``: one call for a whole tree (syncfs(2))."""
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
