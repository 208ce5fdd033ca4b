"""File system calls that `os` lacks: openat2(2) for look-ups inside a root, syncfs(2).

`open_in_root` is how anything inside a container's root file system is reached: absolute symlinks and ``..`` are
taken relative to the root, as if by chroot, and magic links are refused (Linux 5.6).
"""

import ctypes
import errno
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
