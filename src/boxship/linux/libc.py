"""The few C library calls of the shim that ``os`` lacks, without the 1 MB and 8 ms that ``ctypes`` costs.

``_ctypes`` is the C half of ctypes; its three functions used here have kept their form since Python 2.5.
Arguments are integers and bytes; the result is the C int, -1 on failure (errno is not reported).
"""

import _ctypes

PR_SET_CHILD_SUBREAPER = 36  # prctl(2), Linux 3.4
MNT_DETACH = 2  # umount2(2)

_libc: int = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # dlopen(3): NULL is the program itself


def _call(name: str, *arguments: "int | bytes") -> int:
    result: int = _ctypes.call_function(_ctypes.dlsym(_libc, name), arguments)
    return result


def become_subreaper() -> bool:
    """Orphans below this process become its children; not inherited by fork (prctl(2))."""
    return _call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def attach_mount(tree: int, path: bytes) -> bool:
    """Put a detached mount (open_tree(2)) at ``path``; move_mount(2), Linux 5.2."""
    return _call("syscall", 429, tree, b"", -100, path, 4) == 0  # MOVE_MOUNT_F_EMPTY_PATH; the number is everyone's


def detach_mount(path: bytes) -> bool:
    """Lazily unmount what is mounted at ``path``; False when nothing is (or it is not ours to unmount)."""
    return _call("umount2", path, MNT_DETACH) == 0
