"""The user's home directory, for HOME when the spec leaves it out, as every runtime sets it.

Read from the root file system on the host, before the container exists: the file is data of the image, so a link
in it is followed as in the container (openat2 with RESOLVE_IN_ROOT), and a strange one means no answer.
"""

import os
from errno import ELOOP, ENOTDIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST = 1 << 20


def _follow(root: str) -> int:
    """An image where it is a link: followed as the container would; -1 when there is no such file."""
    from boxship.linux.files import open_in_root

    try:
        top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return open_in_root(top, "etc/passwd", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(top)
    except OSError:
        return -1


def _read_passwd(root: str) -> "str | None":
    """The text of etc/passwd below ``root``, or None when there is none that can be read."""
    try:
        etc = os.open(root + "/etc", _FLAGS | os.O_DIRECTORY)
    except OSError as error:
        fd = _follow(root) if error.errno in (ELOOP, ENOTDIR) else -1
    else:
        try:
            fd = os.open("passwd", _FLAGS | os.O_NONBLOCK, dir_fd=etc)
        except OSError as error:
            fd = _follow(root) if error.errno == ELOOP else -1
        finally:
            os.close(etc)
    if fd < 0:
        return None
    try:
        return os.read(fd, _LONGEST).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)


def _directories(rootfs: str, mounts: "Sequence[tuple[str, str, Sequence[str]]]") -> "list[str]":
    """Where the root's files are on the host, topmost first."""
    if not mounts:
        return [rootfs]
    type, source, options = mounts[-1]
    if type != "overlay":
        return [source]
    found: list[str] = []
    for option in options:
        if option.startswith("upperdir="):
            found.insert(0, option[9:])
        elif option.startswith("lowerdir="):
            found += option[9:].split(":")
    return found


def home(uid: int, rootfs: str, mounts: "Sequence[tuple[str, str, Sequence[str]]]" = ()) -> str:
    """The home directory of ``uid`` in the image's /etc/passwd; ``/`` for one that is not there, as runc has it."""
    for directory in _directories(rootfs, mounts):
        text = _read_passwd(directory)
        if text is None:
            continue
        for line in text.splitlines():
            fields = line.split(":")
            if len(fields) > 5 and fields[2] == str(uid):
                return fields[5] or "/"
        break
    return "/"
