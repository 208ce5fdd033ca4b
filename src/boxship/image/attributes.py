"""Owner, mode, xattrs and times: what a tar header says about a file, put on the file.

The order matters: chown clears the set-id bits and file capabilities, so it comes first, the mode after the xattrs,
the time last. An `IdMap` says whose the file is on this host; without privileges (``rootless``) nothing is given
away, and what root alone may set is left out, except that a file never silently loses what the caller could have set.
"""

import errno
import os

from boxship.image.idmap import ROOTLESS_XATTR, IdMap
from boxship.image.tar import SYMLINK, Entry

# Another host's security labels mean nothing here: neither taken from layers nor put into them, as by umoci.
HOST_XATTRS = frozenset({"security.selinux", "system.nfs4_acl"})


class Attributes:
    """Puts the attributes of entries on files, the way that ``idmap`` and this process's rights allow."""

    def __init__(self, idmap: IdMap) -> None:
        self._idmap = idmap
        self._plain = idmap.is_identity
        self._rootless = idmap.rootless

    def on_descriptor(self, fd: int, entry: Entry) -> None:
        """Owner and xattrs; the mode comes after them, the time last."""
        if self._plain:
            os.fchown(fd, entry.uid, entry.gid)
            if entry.xattrs:
                self._xattrs(fd, entry)
        else:
            if not self._rootless:
                os.fchown(fd, *self._idmap.to_host(entry.uid, entry.gid))
            self._xattrs(fd, entry)

    def on_name(self, parent: int, base: str, entry: Entry) -> None:
        """Everything, for what cannot be opened: symlinks, devices, FIFOs. ``base`` in ``parent`` was just made."""
        if not self._rootless:
            uid, gid = self._idmap.to_host(entry.uid, entry.gid)
            os.chown(base, uid, gid, dir_fd=parent, follow_symlinks=False)
        if entry.xattrs or not self._plain:
            self._xattrs(f"/proc/self/fd/{parent}/{base}", entry)
        if entry.type != SYMLINK:
            os.chmod(base, entry.mode, dir_fd=parent)  # not a symlink: it was made a moment ago by its name
        os.utime(base, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def clear_xattrs(self, fd: int) -> None:
        """A directory that a layer brings again has the xattrs of the new entry only."""
        for key in os.listxattr(fd):
            if key not in HOST_XATTRS:
                os.removexattr(fd, key)

    def _xattrs(self, target: "int | str", entry: Entry) -> None:
        for key, value in entry.xattrs.items():
            if key not in HOST_XATTRS and not (self._rootless and key == ROOTLESS_XATTR):
                set_xattr(target, key, value, lenient=self._rootless)
        owner = self._idmap.record(entry.uid, entry.gid)
        if owner is not None:
            set_xattr(target, ROOTLESS_XATTR, owner)


def set_xattr(target: "int | str", key: str, value: bytes, *, lenient: bool = False) -> None:
    """Set it where the file system can; ``lenient`` leaves out what this process may not set."""
    try:
        os.setxattr(target, key, value, follow_symlinks=isinstance(target, int))
    except OSError as error:
        # The file system may lack a namespace (user.* on a symlink or device, or tmpfs), as for containerd;
        # capabilities are different: a file that silently loses them is a broken image.
        tolerated = error.errno in (errno.ENOTSUP, errno.EPERM)
        if not tolerated or (key == "security.capability" and not (lenient and error.errno == errno.EPERM)):
            raise
