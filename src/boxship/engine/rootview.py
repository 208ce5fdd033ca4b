"""Looking into a container's root file system from outside: who a user is, which directories exist.

A running container is seen through ``/proc/PID/root``, a stopped one through a detached mount of its snapshot.
All paths are looked up below the descriptor (openat2, RESOLVE_IN_ROOT): the image decides nothing outside of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from boxship.api.containerd.types import Mount
from boxship.errors import Internal, InvalidArgument
from boxship.image.rooted import open_in_root
from boxship.linux.detached import open_mount

from .spec import Identity

MAX_FILE = 1 << 20  # of /etc/passwd and /etc/group: a longer one is not believed


@contextmanager
def of_mounts(mounts: Sequence[Mount]) -> Iterator[int]:
    """The root directory of a snapshot as a descriptor; the mount ends with the block."""
    if len(mounts) != 1:
        raise Internal(f"a snapshot of {len(mounts)} mounts cannot be looked into")
    mount = mounts[0]
    try:
        fd = open_mount(mount.type, mount.source, list(mount.options))
    except OSError as error:
        raise Internal("mount the container's root file system", cause=str(error)) from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def of_process(pid: int) -> Iterator[int]:
    """The root directory of a running process as a descriptor."""
    fd = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def read_text(root: int, path: str) -> str:
    """A small file's text, "" when there is none."""
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    with open(fd, "rb") as f:
        return f.read(MAX_FILE).decode("utf-8", "replace")


def _rows(text: str, width: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= width and not line.startswith("#"):
            yield fields


def _number(text: str, what: str) -> int:
    if not text.isdigit() or int(text) > 2**31 - 1:
        raise InvalidArgument(f"unable to find {what} {text}: no matching entries in passwd file")
    return int(text)


def identity(root: int, user: str, further: Sequence[str] = ()) -> Identity:
    """Who ``user`` (``name|uid[:group|gid]``, "" is root) is inside, with the ``further`` groups of --group-add.

    Raises InvalidArgument as dockerd words it.
    """
    name, colon, group = user.partition(":")
    passwd, groups_text = read_text(root, "etc/passwd"), read_text(root, "etc/group")
    uid, gid, home, login = 0, 0, "/", ""
    for fields in _rows(passwd, 6):
        if fields[0] == name or fields[2] == (name or "0"):
            login, uid, gid, home = fields[0], int(fields[2]), int(fields[3] or 0), fields[5] or "/"
            break
    else:
        if name:
            uid = _number(name, "user")
    supplementary: list[int] = []
    found_group = False
    for fields in _rows(groups_text, 4):
        if colon and group and (fields[0] == group or fields[2] == group):
            gid, found_group = int(fields[2]), True
        elif login and login in fields[3].split(","):
            supplementary.append(int(fields[2]))
    if colon and group:
        supplementary = []  # an explicit group is the only one, as dockerd has it
        if not found_group:
            if not group.isdigit():
                raise InvalidArgument(f"unable to find group {group}: no matching entries in group file")
            gid = _number(group, "group")
    known = {fields[0]: int(fields[2]) for fields in _rows(groups_text, 4)}
    for text in further:
        if text not in known and not text.isdigit():
            raise InvalidArgument(f"Unable to find group {text}: no matching entries in group file")
        supplementary.append(known[text] if text in known else _number(text, "group"))
    return Identity(uid, gid, tuple(dict.fromkeys([gid, *supplementary])), home)
