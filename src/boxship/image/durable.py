"""Files that a crash leaves whole, and what their errors mean to a person."""

import errno
import os

from boxship.errors import BoxshipError, Internal, InvalidArgument, ResourceExhausted


def describe(error: OSError, what: str) -> BoxshipError:
    """The BoxshipError for an OSError met while doing ``what``."""
    cause = errno.errorcode.get(error.errno or 0, str(error))
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return ResourceExhausted(what, cause=cause, remedy="the disk is full: free some space, then retry")
        case errno.ENOTDIR | errno.ELOOP | errno.ENAMETOOLONG | errno.EISDIR | errno.EEXIST | errno.ENOENT:
            return InvalidArgument(what, cause=cause)
        case errno.EPERM | errno.EACCES:
            return Internal(what, cause=cause, remedy="unpacking needs root, or a rootless mapping (--rootless)")
        case _:
            return Internal(what, cause=cause)


def fsync_directory(path: str) -> None:
    """Make renames in ``path`` survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
