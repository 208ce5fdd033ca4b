"""What a layer removes: whiteouts (image-spec, layer.md), in an overlay's form or in a plain directory.

``.wh.NAME`` removes NAME of the layers below, ``.wh..wh..opq`` all that they have in its directory. They hide lower
layers only, never what the same layer brings, whichever of the two comes first in the archive.

In an overlay's upper directory they become the character device 0:0 and the xattr trusted.overlay.opaque=y (kernel,
Documentation/filesystems/overlayfs.rst); in a plain directory, where layer comes upon layer, they remove.
"""

import os
import stat

from boxship.errors import InvalidArgument
from boxship.image import rooted
from boxship.image.directories import Directories, set_opaque

PREFIX = ".wh."
_OPAQUE = ".wh..wh..opq"
_META = ".wh..wh."  # aufs' own bookkeeping (plnk, aufs): not content


class Whiteouts:
    """Those of one layer, on the directories that its applier has open."""

    def __init__(self, directories: Directories, *, overlay: bool, what: str) -> None:
        self._directories = directories
        self._overlay = overlay
        self._what = what

    def remove(self, parent: int, base: str, name: str) -> None:
        """Remove ``base`` in the open directory ``parent``, whose name in the image is ``name``."""
        rooted.remove(parent, base)
        self._directories.replaced(name)

    def add(self, directory: str, base: str) -> None:
        """The entry ``base``, which begins with PREFIX, in ``directory``."""
        if base == _OPAQUE:
            parent = self._directories.parent(directory)
            if self._overlay:
                set_opaque(parent)
            else:
                self._clear(parent, directory)
            return
        if base.startswith(_META):
            return
        name = base[len(PREFIX) :]
        if name in ("", ".", ".."):
            raise InvalidArgument(f"{self._what}: whiteout {base!r} names no file")
        path = f"{directory}/{name}" if directory else name
        if not self._overlay:
            self._remove_older(directory, name, path)
            return
        parent = self._directories.parent(directory)
        try:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        else:
            if stat.S_ISDIR(there.st_mode):
                set_opaque(self._directories.parent(path))  # the layer brings the directory: hide only what is below

    def _remove_older(self, directory: str, name: str, path: str) -> None:
        """A whiteout in a plain directory: what the layers before brought goes, what this one brought stays."""
        try:
            os.close(rooted.open_in_root(self._directories.root, directory, os.O_PATH | os.O_DIRECTORY))
        except (FileNotFoundError, NotADirectoryError):
            return  # nothing to remove, and no directory to make for that
        parent = self._directories.parent(directory)
        try:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if path not in self._directories.made:
            self.remove(parent, name, path)
        elif stat.S_ISDIR(there.st_mode):
            self._clear(self._directories.parent(path), path)

    def _clear(self, fd: int, directory: str) -> None:
        """Remove what this layer did not bring in ``directory``, at any depth."""
        fd = os.dup(fd)  # removing closes the cached ones
        try:
            for child in os.listdir(fd):
                path = f"{directory}/{child}" if directory else child
                if path not in self._directories.made:
                    self.remove(fd, child, path)
                elif stat.S_ISDIR(os.stat(child, dir_fd=fd, follow_symlinks=False).st_mode):
                    self._clear(self._directories.parent(path), path)
        finally:
            os.close(fd)
