"""Reading a tree of one's own whose modes bar even the owner, as images' trees do.

Root passes every mode; anyone else needs the owner's bits. What is opened up gets its mode back, so that nothing of
it shows; its change time is all that differs.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

_DIRECTORY, _FILE = stat.S_IRWXU, stat.S_IRUSR


def needed(rootless: bool) -> bool:
    """Whether this process needs the owner's bits in a rootless tree."""
    return rootless and os.geteuid() != 0


@contextmanager
def access(path: str, found: os.stat_result, wanted: bool) -> Iterator[None]:
    """Have the directory or file ``path`` (its status is ``found``) readable inside; does nothing unless ``wanted``.

    What is above it must be accessible: a walk down nests one ``access`` in the other.
    """
    mode = stat.S_IMODE(found.st_mode)
    need = _DIRECTORY if stat.S_ISDIR(found.st_mode) else _FILE if stat.S_ISREG(found.st_mode) else 0
    if not wanted or mode & need == need:
        yield
        return
    os.chmod(path, mode | need)
    try:
        yield
    finally:
        os.chmod(path, mode)


class Unlocked:
    """Reaches single files of the tree at ``root``; directories on the way stay opened up until the ``with`` ends."""

    def __init__(self, root: str, wanted: bool) -> None:
        self._root = root
        self._wanted = wanted
        self._statuses: dict[str, os.stat_result] = {}

    def __enter__(self) -> "Unlocked":
        return self

    def __exit__(self, *_: object) -> None:
        for path, found in reversed(self._statuses.items()):
            os.chmod(path, stat.S_IMODE(found.st_mode))
        self._statuses = {}

    @contextmanager
    def reachable(self, name: str) -> "Iterator[os.stat_result]":
        """``name`` below the root can be read inside; gives its status as it is without that."""
        path = os.path.normpath(os.path.join(self._root, name))
        if not self._wanted:
            yield os.stat(path, follow_symlinks=False)
            return
        parts = [] if name == "." else name.split("/")
        for count in range(len(parts)):
            self._open_up(os.path.normpath(os.path.join(self._root, *parts[:count])))
        found = self._statuses.get(path) or os.stat(path, follow_symlinks=False)
        with access(path, found, path not in self._statuses):
            yield found

    def _open_up(self, path: str) -> None:
        if path in self._statuses:
            return
        found = os.stat(path, follow_symlinks=False)
        if found.st_mode & _DIRECTORY != _DIRECTORY:
            self._statuses[path] = found
            os.chmod(path, stat.S_IMODE(found.st_mode) | _DIRECTORY)
