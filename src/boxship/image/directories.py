"""The directories of a tree that is being unpacked: descriptors to make entries in, and what to put right afterwards.

`parent` answers with a descriptor of a directory inside the root and makes what is missing of it; descriptors are
kept until something is replaced, because a later look-up might then lead elsewhere. Making an entry changes its
directory's time, so times are set by `finish`, when nothing is made any more.

In an overlay's upper directory a directory that the layer leaves out takes its attributes from the layers below. In a
plain directory one that is only passed through keeps its time. Without privileges a directory of mode 0 bars even its
owner: it is opened up on the way in and gets its mode back in `finish`.
"""

import os
import stat
from collections.abc import Sequence

from boxship.errors import InvalidArgument
from boxship.image import rooted
from boxship.image.attributes import set_xattr

OPAQUE_XATTR = "trusted.overlay.opaque"
FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CACHE = 128


class Directories:
    """``lowers`` are the layers below, topmost first; ``unlock`` says that this process needs the owner's bits."""

    def __init__(self, target: str, lowers: Sequence[str], *, overlay: bool, unlock: bool, what: str) -> None:
        self.root = os.open(target, FLAGS)
        self.made: set[str] = set()  # what this layer brought: its own whiteouts do not hide it
        self._overlay = overlay
        self._unlocking = unlock
        self._what = what
        self._lower_paths = lowers
        self._lowers: list[int] = []
        self._cache: dict[str, int] = {"": self.root}
        self._times: dict[str, int] = {}
        self._passed: dict[str, int] = {}  # plain directories: the times of those that get new children
        self._modes: dict[str, int] = {}
        if not overlay:
            self._passed[""] = os.stat(self.root).st_mtime_ns

    def close(self) -> None:
        self.forget()
        for fd in (self.root, *self._lowers):
            os.close(fd)

    # ── Looking up and making ──

    def parent(self, directory: str) -> int:
        """A descriptor of ``directory`` inside the root; what is missing of it is made. Owned by the cache."""
        fd = self._cache.get(directory)
        if fd is not None:
            return fd
        try:
            fd = self.open(directory)
        except (FileNotFoundError, NotADirectoryError):
            fd = self._make(directory)
        else:
            if not self._overlay and directory not in self._times and directory not in self._passed:
                self._passed[directory] = os.stat(fd).st_mtime_ns
        return self.remember(directory, fd)

    def open(self, directory: str) -> int:
        """A descriptor that the caller owns; symlinks on the way are those of the image."""
        try:
            return rooted.open_in_root(self.root, directory, FLAGS)
        except PermissionError:
            if not self._unlocking:
                raise
            self._unlock(directory)
            return rooted.open_in_root(self.root, directory, FLAGS)

    def remember(self, directory: str, fd: int) -> int:
        """Hand ``fd`` over to the cache; answers the descriptor to use."""
        known = self._cache.get(directory)
        if known is not None:
            os.close(fd)
            return known
        if len(self._cache) >= _CACHE:
            self.forget()
        self._cache[directory] = fd
        return fd

    def forget(self) -> None:
        """Look-ups may lead elsewhere now."""
        for name, fd in self._cache.items():
            if name:
                os.close(fd)
        self._cache = {"": self.root}

    def replaced(self, name: str) -> None:
        """What ``name`` was is gone, and everything below it."""
        self.made.discard(name)
        below = name + "/"
        for notes in (self._times, self._passed, self._modes):
            for known in [one for one in notes if one == name or one.startswith(below)]:
                del notes[known]
        self.forget()

    def _make(self, directory: str) -> int:
        above, _, base = directory.rpartition("/")
        parent = self.parent(above)
        opaque = False
        try:
            there = os.stat(base, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            if not is_whiteout(there):
                raise InvalidArgument(f"{self._what}: {directory!r} is not a directory")
            os.unlink(base, dir_fd=parent)
            opaque = True
        os.mkdir(base, 0o755, dir_fd=parent)
        fd = os.open(base, FLAGS | os.O_NOFOLLOW, dir_fd=parent)
        try:
            os.fchmod(fd, 0o755)
            if opaque:
                set_opaque(fd)
            elif self._overlay:
                self._copy_from_below(fd, directory)
            else:
                self._times.setdefault(directory, 0)  # nothing says when; equal layers must give equal trees
        except BaseException:
            os.close(fd)
            raise
        self.made.add(directory)
        return fd

    def _copy_from_below(self, fd: int, directory: str) -> None:
        if len(self._lowers) < len(self._lower_paths):
            for path in self._lower_paths[len(self._lowers) :]:
                self._lowers.append(os.open(path, FLAGS))
        for lower in self._lowers:
            try:
                found = rooted.open_in_root(lower, directory, FLAGS)
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                return  # below, it is no directory or deleted: the new one starts afresh
            try:
                below = os.stat(found)
                os.fchown(fd, below.st_uid, below.st_gid)
                for key in os.listxattr(found):
                    if not key.startswith("trusted.overlay."):
                        set_xattr(fd, key, os.getxattr(found, key))
                os.fchmod(fd, stat.S_IMODE(below.st_mode))
                self._times.setdefault(directory, below.st_mtime_ns)
            finally:
                os.close(found)
            return

    # ── Putting right at the end ──

    def set_time(self, directory: str, mtime_ns: int) -> None:
        self._times[directory] = mtime_ns

    def set_mode(self, directory: str, fd: int, mode: int) -> None:
        """The mode that ``directory`` is to have; without privileges its owner keeps access until `finish`."""
        if self._unlocking and mode & stat.S_IRWXU != stat.S_IRWXU:
            self._modes[directory] = mode
            mode |= stat.S_IRWXU
        os.fchmod(fd, mode)

    def finish(self) -> None:
        for name, mtime_ns in self._passed.items():
            self._set_time(name, mtime_ns)
        above, parent = "", self.root
        for name in sorted(self._times):
            directory, _, base = name.rpartition("/")
            if not name:
                os.utime(self.root, ns=(self._times[name], self._times[name]))
                continue
            if directory != above:
                above, parent = directory, self.parent(directory)
            os.utime(base, ns=(self._times[name], self._times[name]), dir_fd=parent, follow_symlinks=False)
        self.forget()
        for name in sorted(self._modes, key=lambda one: one.count("/"), reverse=True):
            fd = self.open(name)
            try:
                os.fchmod(fd, self._modes[name])
            finally:
                os.close(fd)

    def _set_time(self, name: str, mtime_ns: int) -> None:
        try:
            fd = rooted.open_in_root(self.root, name, FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            return  # a later entry replaced it
        try:
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(fd)

    def _unlock(self, directory: str) -> None:
        """Give this user access to each directory on the way."""
        parts = directory.split("/") if directory else []
        for count in range(len(parts) + 1):
            name = "/".join(parts[:count])
            fd = rooted.open_in_root(self.root, name, os.O_PATH | os.O_DIRECTORY)
            try:
                mode = stat.S_IMODE(os.stat(fd).st_mode)
                if mode & stat.S_IRWXU != stat.S_IRWXU:
                    self._modes.setdefault(name, mode)
                    os.chmod(f"/proc/self/fd/{fd}", mode | stat.S_IRWXU)
            finally:
                os.close(fd)


def is_whiteout(found: os.stat_result) -> bool:
    """An overlay's mark that a name is gone: the character device 0:0."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def set_opaque(fd: int) -> None:
    """An overlay's mark that nothing below shows through."""
    os.setxattr(fd, OPAQUE_XATTR, b"y")
