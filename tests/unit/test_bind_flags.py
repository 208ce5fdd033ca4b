"""What the words of a bind mount do to its flags: a table of words, the source's flags, and the outcome."""

import pytest

from boxship.libcontainer.compile.bind_flags import RELATIME, SIMPLE, MountRefused, attributes
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

RO, NOSUID, NODEV, NOEXEC = MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC
TIMES = MOUNT_ATTR_ATIME | MOUNT_ATTR_NODIRATIME


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        ("bind", (0, 0)),
        ("rbind rprivate", (0, 0)),
        ("bind ro", (RO, SIMPLE & ~RO)),
        ("bind dev", (0, SIMPLE)),  # the source's others are cleared too
        ("bind ro rw nosuid", (NOSUID, SIMPLE & ~NOSUID)),
        ("bind atime", (0, SIMPLE)),  # says nothing about access times
        ("bind norelatime", (0, SIMPLE)),
        ("bind relatime", (0, SIMPLE | TIMES)),
        ("bind noatime", (MOUNT_ATTR_NOATIME, SIMPLE | TIMES)),
        ("bind strictatime noatime", (MOUNT_ATTR_STRICTATIME, SIMPLE | TIMES)),
        ("bind nodiratime", (MOUNT_ATTR_NODIRATIME, SIMPLE | MOUNT_ATTR_ATIME)),
    ],
)
def test_the_mount_has_what_the_words_name(words: str, outcome: "tuple[int, int]") -> None:
    assert attributes(words.split()) == outcome


def test_in_a_user_namespace_the_sources_flags_stay() -> None:
    source = RO | NODEV | NOEXEC | MOUNT_ATTR_NOSYMFOLLOW | RELATIME
    # nosymfollow is not locked.
    assert attributes(["bind", "nosuid"], source) == (RO | NODEV | NOEXEC | NOSUID, MOUNT_ATTR_NOSYMFOLLOW)
    assert attributes(["bind", "suid"], source) == (RO | NODEV | NOEXEC, NOSUID | MOUNT_ATTR_NOSYMFOLLOW)
    assert attributes(["bind", "relatime", "ro"], source)[0] & TIMES == 0


@pytest.mark.parametrize(
    ("words", "source", "message"),
    [
        ("bind rw", RO | RELATIME, "cannot clear locked flags ro: operation not permitted"),
        ("bind dev suid", NODEV | NOSUID | NOEXEC | RELATIME, "cannot clear locked flags nosuid, nodev"),
        ("bind noatime", RELATIME, "cannot change locked atime flags"),
        ("bind relatime", MOUNT_ATTR_STRICTATIME, "cannot change locked atime flags"),
        ("bind nodiratime", RELATIME, "cannot change locked atime flags"),
    ],
)
def test_a_locked_flag_cannot_be_cleared(words: str, source: int, message: str) -> None:
    with pytest.raises(MountRefused, match=f"error mounting /a to rootfs at /b: {message}"):
        attributes(words.split(), source, "error mounting /a to rootfs at /b")
