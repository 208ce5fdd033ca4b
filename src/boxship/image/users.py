"""Who a process is to be: an image config's ``User`` and the image's /etc/passwd and /etc/group.

``User`` is ``user[:group]``, each a name or a number (image-spec, config.md). A user who is in passwd brings a group
and a home directory, and without a group in ``User`` also the groups that list them (conversion.md).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from boxship.errors import InvalidArgument, NotFound
from boxship.image.rooted import open_in_root

_ID_LIMIT = (1 << 31) - 1
_FILE_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class User:
    uid: int = 0
    gid: int = 0
    groups: "tuple[int, ...]" = ()
    home: str = ""


def lookup(text: str, rootfs: "str | None") -> User:
    """``rootfs`` None: numbers only. Raises NotFound for a name that is not there, InvalidArgument."""
    name, _, group = text.partition(":")
    name = name or "0"
    number = _number(name)
    uid, gid, home, known = number or 0, 0, "", ""
    for fields in _lines(rootfs, "etc/passwd", 6):
        if fields[0] == name or (number is not None and fields[2] == str(number)):
            known, uid, gid, home = fields[0], _id(fields[2]), _id(fields[3]), fields[5]
            break
    else:
        if number is None:
            raise NotFound(f"the image's user {text!r} is not in its /etc/passwd")
    groups = list(_lines(rootfs, "etc/group", 3))
    if group:
        return User(uid, _group(group, groups, text), (), home)
    listed = tuple(_id(one[2]) for one in groups if known and len(one) > 3 and known in one[3].split(","))
    return User(uid, gid, listed, home)


def _group(group: str, groups: "list[list[str]]", text: str) -> int:
    number = _number(group)
    for one in groups:
        if one[0] == group or (number is not None and one[2] == str(number)):
            return _id(one[2])
    if number is None:
        raise NotFound(f"the group of the image's user {text!r} is not in its /etc/group")
    return number


def _number(text: str) -> "int | None":
    return _id(text) if text.isascii() and text.isdigit() else None


def _id(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= _ID_LIMIT:
        raise InvalidArgument(f"{text!r} is no user or group ID")
    return number


def _lines(rootfs: "str | None", path: str, least: int) -> "Iterator[list[str]]":
    """The fields of each line of a file of the image; none when it has no such file."""
    if rootfs is None:
        return
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            text = file.read(_FILE_LIMIT).decode("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return
    finally:
        os.close(root)
    for line in text.splitlines():
        fields = line.split(":")
        if line and not line.startswith("#") and len(fields) >= least and fields[2].isdigit():
            yield fields
