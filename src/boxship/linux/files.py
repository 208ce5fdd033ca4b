"""File system calls that `os` lacks: openat2(2) for look-ups inside a root, syncfs(2), a flag of inodes.

`open_in_root` is how anything inside a container's root file system is reached: absolute symlinks and ``..`` are
taken relative to the root, as if by chroot, and magic links are refused (Linux 5.6).
"""

import ctypes
import errno
import fcntl
import os

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


def syncfs(fd: int) -> None:
    """Flush the file system that holds ``fd``: one call for a whole tree."""
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS (ioctl_iflags(2))
_TOPDIR = 0x00020000  # FS_TOPDIR_FL


def unrelated_subdirectories(path: str) -> None:
    """Say of a directory that what is below its subdirectories has nothing to do with one another: chattr +T.

    ext4 puts such subdirectories into block groups of their own. Without it a tree that is made where another one
    was deleted takes ten times as long: ext4 looks at every inode freed in the last five minutes before it takes
    one (recently_deleted in fs/ext4/ialloc.c). File systems that know no such flag need none.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = int.from_bytes(fcntl.ioctl(fd, _GET_FLAGS, bytes(8))[:4], "little")
        if not flags & _TOPDIR:
            fcntl.ioctl(fd, _SET_FLAGS, (flags | _TOPDIR).to_bytes(8, "little"))
    except OSError:
        return  # it makes things faster, nothing else
    finally:
        os.close(fd)
