"""Device nodes, the links of /dev, and the terminal.

Nodes are made with mknod; in a user namespace, where that is not allowed, the host's are bound in.
runtime-spec, config-linux.md: Default Devices and Dev symbolic links.
"""

import os
from errno import EEXIST, ENOENT

from boxship.errors import InvalidArgument
from boxship.libcontainer.plan.ops import (
    CWD,
    Chmod,
    Chown,
    Mknod,
    MoveMount,
    OpenTerminal,
    OpenTree,
    SendHandle,
    Symlink,
    Unlink,
)
from boxship.linux.abi.mount import (
    AT_EMPTY_PATH,
    MOVE_MOUNT_F_EMPTY_PATH,
    O_DIRECTORY,
    O_PATH,
    OPEN_TREE_CLONE,
)

from .context import Context, clean
from .options import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# name in /dev: (major, minor)
DEFAULT_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
DEFAULT_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
    "ptmx": "pts/ptmx",
}
TYPES = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}


def _has_own_dev(c: Context) -> bool:
    """False when the spec binds somebody else's directory on /dev: then it is left as it is."""
    for mount in c.spec.get("mounts") or ():
        if clean(mount.get("destination") or "") == "dev":
            return mount.get("type") != "bind" and not parse(mount.get("options") or ()).bind
    return True


def _wanted(c: Context) -> "dict[str, dict[str, Any]]":
    """Every device by its cleaned path; the spec's own entries replace defaults."""
    devices: dict[str, dict[str, Any]] = {
        "dev/" + name: {"type": "c", "major": major, "minor": minor, "fileMode": 0o666}
        for name, (major, minor) in DEFAULT_DEVICES.items()
    }
    for device in c.linux.get("devices") or ():
        path = clean(device.get("path") or "")
        if not path:
            raise InvalidArgument("linux.devices: path is missing")
        if path in ("dev/ptmx", "dev/console"):
            continue  # those two belong to the terminal
        devices[path] = device
    return devices


def open_device_sources(c: Context) -> None:
    """In a user namespace: the host's nodes as detached mounts."""
    if not c.userns or not _has_own_dev(c):
        return
    c.purpose("open the host's devices")
    for path in _wanted(c):
        slot = c.slot()
        c.device_sources[path] = slot
        c.add(OpenTree(slot, CWD, "/" + path, OPEN_TREE_CLONE))


def devices(c: Context) -> None:
    """Default devices and ``linux.devices``, with the links."""
    if not _has_own_dev(c):
        return
    c.purpose("make devices")
    c.plan.nodes_first = not c.entered_cgroups
    c.make_directory("dev")
    dev = c.dev_slot()
    for path, device in _wanted(c).items():
        parent, _, name = path.rpartition("/")
        if parent == "dev":
            at = dev
        else:
            c.purpose(f"make device /{path}")
            c.make_directory(parent)
            c.open_in_root(c.scratch, parent, O_PATH | O_DIRECTORY)
            at = c.scratch
        if path in c.device_sources:
            c.add(Mknod(at, name, 0o100666, 0, tolerate=(EEXIST,)))
            c.add(MoveMount(c.device_sources[path], at, name, MOVE_MOUNT_F_EMPTY_PATH))
            continue
        kind = device.get("type", "")
        if kind not in TYPES:
            raise InvalidArgument(f"linux.devices: /{path} has the unknown type {kind!r}")
        mode = device.get("fileMode")
        number = os.makedev(device.get("major", 0), device.get("minor", 0)) if kind != "p" else 0
        c.add(Mknod(at, name, TYPES[kind] | (0o666 if mode is None else mode & 0o7777), number, tolerate=(EEXIST,)))
        uid, gid = device.get("uid") or 0, device.get("gid") or 0
        if uid or gid:
            c.add(Chown(at, name, uid, gid, 0x100))
            if mode is not None:
                c.add(Chmod(at, name, mode & 0o7777))  # a change of owner clears set-id bits
    c.purpose("make the links in /dev")
    for name, target in DEFAULT_LINKS.items():
        if name == "ptmx":
            c.add(Unlink(dev, name, tolerate=(ENOENT,)))  # an image's own would be the host's (as runc does)
        c.add(Symlink(target, dev, name, tolerate=(EEXIST,)))


def terminal(c: Context) -> None:
    """A pty of the container's own devpts; its other side also becomes /dev/console."""
    if not c.request.terminal:
        return
    c.purpose("open a terminal in /dev/pts")
    master, c.slave = c.slot(), c.slot()
    c.add(OpenTerminal(master, c.slave, c.root, "dev/pts/ptmx", c.request.columns, c.request.rows))
    uid = (c.process.get("user") or {}).get("uid", 0)
    if uid:
        c.add(Chown(c.slave, "", uid, -1, AT_EMPTY_PATH))
    c.purpose("bind the terminal on /dev/console")
    dev = c.dev_slot()
    c.add(Mknod(dev, "console", 0o100600, 0, tolerate=(EEXIST,)))
    c.add(OpenTree(c.tree, c.slave, "", OPEN_TREE_CLONE | AT_EMPTY_PATH))
    c.add(MoveMount(c.tree, dev, "console", MOVE_MOUNT_F_EMPTY_PATH))
    c.add(SendHandle(master))


def exec_terminal(c: Context) -> None:
    """A further pty for an exec, from inside; /dev/console stays init's."""
    if not c.request.terminal:
        return
    c.purpose("open a terminal in /dev/pts")
    master, c.slave = c.slot(), c.slot()
    c.add(OpenTerminal(master, c.slave, CWD, "/dev/pts/ptmx", c.request.columns, c.request.rows))
    uid = (c.process.get("user") or {}).get("uid", 0)
    if uid:
        c.add(Chown(c.slave, "", uid, -1, AT_EMPTY_PATH))
    c.add(SendHandle(master))
