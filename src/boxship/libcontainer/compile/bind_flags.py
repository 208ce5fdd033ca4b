"""What the option words of a bind mount do to the flags of what is bound.

As runc has it: without any such word the source's flags stay; with one, the mount has exactly the flags that are
named, and the source's others are cleared. The access times are kept as they are unless a word sets them; one that
only clears ("atime") says nothing (mount(8) does the same).
In a user namespace the source's flags are locked (mount_namespaces(7)): they stay, and who asks for one to be
cleared is refused. We open the source outside, where the kernel would not stop us, so it is decided here.
"""

import os
from errno import EPERM

from boxship.errors import FailedPrecondition
from boxship.linux.abi.mount import (
    MOUNT_ATTR_ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

RELATIME = 1 << 32  # as a mount attribute it is zero; it needs a bit to be told from nothing
LOCKED = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
SIMPLE = LOCKED | MOUNT_ATTR_NOSYMFOLLOW
TIMES = MOUNT_ATTR_NOATIME | MOUNT_ATTR_STRICTATIME | MOUNT_ATTR_NODIRATIME | RELATIME

# word: (flag, whether it clears it)
WORDS = {
    "ro": (MOUNT_ATTR_RDONLY, False),
    "rw": (MOUNT_ATTR_RDONLY, True),
    "nosuid": (MOUNT_ATTR_NOSUID, False),
    "suid": (MOUNT_ATTR_NOSUID, True),
    "nodev": (MOUNT_ATTR_NODEV, False),
    "dev": (MOUNT_ATTR_NODEV, True),
    "noexec": (MOUNT_ATTR_NOEXEC, False),
    "exec": (MOUNT_ATTR_NOEXEC, True),
    "nosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, False),
    "symfollow": (MOUNT_ATTR_NOSYMFOLLOW, True),
    "noatime": (MOUNT_ATTR_NOATIME, False),
    "atime": (MOUNT_ATTR_NOATIME, True),
    "relatime": (RELATIME, False),
    "norelatime": (RELATIME, True),
    "strictatime": (MOUNT_ATTR_STRICTATIME, False),
    "nostrictatime": (MOUNT_ATTR_STRICTATIME, True),
    "nodiratime": (MOUNT_ATTR_NODIRATIME, False),
    "diratime": (MOUNT_ATTR_NODIRATIME, True),
}
# statvfs(3): what a mount's flags are.
_STATVFS = {
    1: MOUNT_ATTR_RDONLY,
    2: MOUNT_ATTR_NOSUID,
    4: MOUNT_ATTR_NODEV,
    8: MOUNT_ATTR_NOEXEC,
    1024: MOUNT_ATTR_NOATIME,
    2048: MOUNT_ATTR_NODIRATIME,
    4096: RELATIME,
    8192: MOUNT_ATTR_NOSYMFOLLOW,
}


class MountRefused(FailedPrecondition):
    """A mount that the user namespace does not allow; said as a failure of the container's own start."""

    in_init = True


def source_flags(path: str) -> int:
    """The flags of the mount that holds ``path`` on the host; none when it cannot be looked at."""
    try:
        found = os.statvfs(path).f_flag
    except OSError:
        return 0  # opening it fails, and says so
    flags = 0
    for bit, flag in _STATVFS.items():
        if found & bit:
            flags |= flag
    return flags if flags & TIMES & ~MOUNT_ATTR_NODIRATIME else flags | MOUNT_ATTR_STRICTATIME


def attributes(words: "Iterable[str]", source: "int | None" = None, where: str = "") -> "tuple[int, int]":
    """(to set, to clear) for mount_setattr(2).

    ``source`` are the flags of the source where they are locked, None where they are not.
    Raises MountRefused, naming ``where``, when one of those were to be cleared.
    """
    wanted = cleared = 0
    for word in words:
        if word in WORDS:
            flag, clears = WORDS[word]
            if clears:
                wanted, cleared = wanted & ~flag, cleared | flag
            else:
                wanted, cleared = wanted | flag, cleared & ~flag
    if not wanted and not cleared:
        return 0, 0
    times = wanted & TIMES
    if source is not None:
        times = _locked(wanted, cleared, source, where)
        wanted |= source & LOCKED
    to_set = wanted & SIMPLE
    to_clear = SIMPLE & ~to_set
    if times:
        to_clear |= MOUNT_ATTR_ATIME | MOUNT_ATTR_NODIRATIME
        to_set |= times & MOUNT_ATTR_NODIRATIME
        if times & MOUNT_ATTR_STRICTATIME:
            to_set |= MOUNT_ATTR_STRICTATIME
        elif times & MOUNT_ATTR_NOATIME:
            to_set |= MOUNT_ATTR_NOATIME
    return to_set, to_clear & ~(to_set & ~MOUNT_ATTR_ATIME)


def _locked(wanted: int, cleared: int, source: int, where: str) -> int:
    """The access times to set in a user namespace: none, as those of the source stay."""
    refused = source & cleared & LOCKED
    if refused:
        names = [word for word, (flag, clears) in WORDS.items() if flag & refused and not clears]
        raise MountRefused(f"{where}: cannot clear locked flags {', '.join(names)}: {os.strerror(EPERM).lower()}")
    if wanted & TIMES and _effective(wanted) != _effective(source):
        raise MountRefused(f"{where}: cannot change locked atime flags: {os.strerror(EPERM).lower()}")
    return 0


def _effective(flags: int) -> int:
    """What the kernel makes of access time flags: strict wins over none, and relative is the default."""
    kind = MOUNT_ATTR_STRICTATIME if flags & MOUNT_ATTR_STRICTATIME else flags & MOUNT_ATTR_NOATIME
    return kind | flags & MOUNT_ATTR_NODIRATIME
