"""Detached mounts, for looking into a container's root file system from outside without a mount in any namespace.

A detached mount exists as long as its descriptor: a crash leaves nothing (fsopen(2), fsmount(2), open_tree(2);
Linux 5.2).  Daemon-side code, so ctypes is fine here.
"""

from __future__ import annotations

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)

# The same numbers on every architecture: they came after the numbers were unified.
_OPEN_TREE, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 430, 431, 432
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CMD_CREATE = 0, 1, 6
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC, _AT_RECURSIVE = 1, os.O_CLOEXEC, 0x8000
_AT_FDCWD = -100


def _call(what: str, number: int, *arguments: object) -> int:
    result = _libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return int(result)


def _string(text: str | None) -> ctypes.c_char_p:
    return ctypes.c_char_p(None if text is None else os.fsencode(text))


def open_mount(kind: str, source: str, options: list[str]) -> int:
    """A descriptor of the root of a new detached mount; raises OSError.

    ``options`` are mount(8) words as a snapshotter gives them: ``lowerdir=...``, ``ro``, ``rbind``.
    """
    if kind == "bind" or "bind" in options or "rbind" in options:
        flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE
        return _call(f"open_tree {source}", _OPEN_TREE, _AT_FDCWD, _string(source), flags)
    context = _call(f"fsopen {kind}", _FSOPEN, _string(kind), _FSOPEN_CLOEXEC)
    try:
        _config(context, _SET_STRING, "source", source or kind)
        for option in options:
            key, equals, value = option.partition("=")
            if key in ("rw", "ro"):
                continue
            if key == "lowerdir" and len(value) > 255:
                for layer in value.split(":"):  # one string is cut at 256 bytes, each layer has its own
                    _config(context, _SET_STRING, "lowerdir+", layer)
            elif equals:
                _config(context, _SET_STRING, key, value)
            else:
                _config(context, _SET_FLAG, key, None)
        _config(context, _CMD_CREATE, None, None)
        return _call(f"fsmount {kind}", _FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)


def _config(context: int, command: int, key: str | None, value: str | None) -> None:
    try:
        _call(f"fsconfig {key or 'create'}", _FSCONFIG, context, command, _string(key), _string(value), 0)
    except OSError as error:
        if error.errno != errno.EINVAL or key is None:
            raise
        raise OSError(error.errno, f"mount option {key}={value}: {os.strerror(error.errno)}") from error
