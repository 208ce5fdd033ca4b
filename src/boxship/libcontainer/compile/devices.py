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
    MakeMount,
    Mknod,
    MoveMount,
    OpenTarget,
    OpenTerminal,
    OpenTree,
    SendHandle,
    SetMountAttributes,
    Symlink,
    Unlink,
)
from boxship.linux.abi.mount import (
    AT_EMPTY_PATH,
    AT_SYMLINK_NOFOLLOW,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    OPEN_TREE_CLONE,
)

from .context import TARGET_FILE, TARGET_NO_FOLLOW, Context, clean
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


def _number(path: str, device: "dict[str, Any]") -> int:
    """makedev(3) of a device. Raises InvalidArgument naming what is wrong."""
    kind = device.get("type", "")
    if kind not in TYPES:
        raise InvalidArgument(f"linux.devices: /{path} has the unknown type {kind!r}")
    if kind == "p":
        return 0
    numbers = [device.get(key) for key in ("major", "minor")]
    for key, value in zip(("major", "minor"), numbers, strict=True):
        if not isinstance(value, int) or not 0 <= value < 1 << 32:
            raise InvalidArgument(f"linux.devices: /{path}: {key} must be a number, not {value!r}")
    return os.makedev(*numbers)  # type: ignore[arg-type]  # both are numbers here


def _make(c: Context, at: int, name: str, path: str, device: "dict[str, Any]") -> None:
    """mknod(2), then the owner; an existing node is kept (an image's, or a bind mount's)."""
    number = _number(path, device)
    mode = device.get("fileMode")
    c.add(
        Mknod(
            at, name, TYPES[device["type"]] | (0o666 if mode is None else mode & 0o7777), number, tolerate=(EEXIST,)
        )
    )
    uid, gid = device.get("uid") or 0, device.get("gid") or 0
    if uid or gid:
        c.add(Chown(at, name, uid, gid, AT_SYMLINK_NOFOLLOW))
        if mode is not None:
            c.add(Chmod(at, name, mode & 0o7777))  # a change of owner clears set-id bits


def open_device_sources(c: Context) -> None:
    """In a user namespace mknod(2) makes nothing that can be opened: the nodes are made before, to be bound in.

    By root on a tmpfs of the creator's user namespace, so they need not exist on the host and have the owners
    that the spec says; without root the host's own nodes are taken.
    """
    if not c.userns or not _has_own_dev(c):
        return
    wanted = _wanted(c)
    if c.privileged:
        c.purpose("make the devices, to be bound into the user namespace")
        c.device_nodes = c.slot()
        c.add(MakeMount(c.device_nodes, "tmpfs", ["source", "tmpfs", "mode", "755"]))
        for index, (path, device) in enumerate(wanted.items()):
            owned = {**device, "uid": _host_id(c, "uid", device), "gid": _host_id(c, "gid", device)}
            _make(c, c.device_nodes, str(index), path, owned)
        return
    c.purpose("open the host's devices")
    for path in wanted:
        slot = c.slot()
        c.device_sources[path] = slot
        c.add(OpenTree(slot, CWD, "/" + path, OPEN_TREE_CLONE))


def _host_id(c: Context, kind: str, device: "dict[str, Any]") -> int:
    """The host's id for a device's owner, who is given as one of the container's."""
    id = device.get(kind) or 0
    for each in c.linux.get(kind + "Mappings") or ():
        if each["containerID"] <= id < each["containerID"] + each["size"]:
            return int(each["hostID"] + id - each["containerID"])
    return int(id)


def attach_nodes(c: Context) -> None:
    """Before Linux 6.15 only an attached mount can be bound: below the root file system, where nobody sees it.

    It goes with the old root.
    """
    if c.device_nodes >= 0:
        c.purpose("attach the device nodes")
        c.add(MoveMount(c.device_nodes, CWD, "/", MOVE_MOUNT_F_EMPTY_PATH))
        c.over_old_root += 1


def devices(c: Context) -> None:
    """Default devices and ``linux.devices``, with the links."""
    if not _has_own_dev(c):
        return
    c.purpose("make devices")
    c.plan.nodes_first = not c.entered_cgroups
    dev = c.dev_slot()
    for index, (path, device) in enumerate(_wanted(c).items()):
        if c.device_nodes >= 0:
            c.add(OpenTree(c.tree, c.device_nodes, str(index), OPEN_TREE_CLONE | AT_SYMLINK_NOFOLLOW))
            _bind(c, path, c.tree)
            continue
        if path in c.device_sources:
            _bind(c, path, c.device_sources[path])
            continue
        parent, _, name = path.rpartition("/")
        at = dev
        if parent != "dev":
            c.purpose(f"make device /{path}")
            at = c.scratch
            c.add(OpenTarget(at, c.root, parent))
        _make(c, at, name, path, device)
    c.purpose("make the links in /dev")
    for name, target in DEFAULT_LINKS.items():
        if name == "core" and not c.host.kernel_path_kind(target):
            continue  # a kernel without CONFIG_PROC_KCORE
        if name == "ptmx":
            c.add(Unlink(dev, name, tolerate=(ENOENT,)))  # an image's own would be the host's (as runc does)
        c.add(Symlink(target, dev, name, tolerate=(EEXIST,)))


def _bind(c: Context, path: str, slot: int) -> None:
    """A node is for opening: nothing is executed from it."""
    c.add(SetMountAttributes(slot, "", AT_EMPTY_PATH, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC))
    c.add(OpenTarget(c.target, c.root, path, TARGET_FILE))
    c.add(MoveMount(slot, c.target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))


def terminal(c: Context) -> None:
    """A pty of the container's own devpts; its other side also becomes /dev/console."""
    if not c.request.terminal:
        return
    c.purpose("open a terminal in /dev/pts")
    master, c.slave = c.slot(), c.slot()
    c.add(OpenTerminal(master, c.slave, c.root, "dev/pts/ptmx", c.request.columns, c.request.rows, c.request.relayed))
    uid = (c.process.get("user") or {}).get("uid", 0)
    if uid:
        c.add(Chown(c.slave, "", uid, -1, AT_EMPTY_PATH))
    c.purpose("bind the terminal on /dev/console")
    dev = c.dev_slot()
    c.add(OpenTree(c.tree, c.slave, "", OPEN_TREE_CLONE | AT_EMPTY_PATH))
    # A link that an image has there is not followed (CVE-2025-52565).
    c.add(OpenTarget(c.target, dev, "console", TARGET_FILE | TARGET_NO_FOLLOW))
    c.add(MoveMount(c.tree, c.target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
    c.add(SendHandle(master))


def exec_terminal(c: Context) -> None:
    """A further pty for an exec, from inside; /dev/console stays init's."""
    if not c.request.terminal:
        return
    c.purpose("open a terminal in /dev/pts")
    master, c.slave = c.slot(), c.slot()
    c.add(OpenTerminal(master, c.slave, CWD, "/dev/pts/ptmx", c.request.columns, c.request.rows, c.request.relayed))
    uid = (c.process.get("user") or {}).get("uid", 0)
    if uid:
        c.add(Chown(c.slave, "", uid, -1, AT_EMPTY_PATH))
    c.add(SendHandle(master))
