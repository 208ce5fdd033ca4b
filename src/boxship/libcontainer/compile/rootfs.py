"""The root file system: opened on the host, attached in the new mount namespace, pivoted into.

It is a detached mount until it is moved onto ``/`` of the new namespace, so neither a bind mount of a path nor
the file systems of ``rootfs_mounts`` ever show up on the host, and no path is looked up twice.
"""

from errno import EINVAL, ENOENT

from boxship.errors import InvalidArgument
from boxship.libcontainer.plan.ops import (
    CWD,
    ChDir,
    CheckRoot,
    ChRoot,
    FchDir,
    MakeMount,
    Mount,
    MoveMount,
    Open,
    OpenTree,
    PivotRoot,
    SetMountAttributes,
    Unmount,
)
from boxship.linux.abi.mount import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    LEGACY_FLAGS,
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    MOVE_MOUNT_F_EMPTY_PATH,
    MS_SHARED,
    MS_SLAVE,
    O_DIRECTORY,
    O_PATH,
    OPEN_TREE_CLONE,
    PROPAGATION,
)

from .context import Context, clean
from .options import parse

# fsconfig(2) takes at most 256 bytes for a value; overlay's lowerdir is the one that gets longer.
LONGEST_VALUE = 255


def open_rootfs(c: Context) -> None:
    """Detached mounts of the root file system, in order; the last is the top."""
    if c.request.rootfs_mounts:
        for type, source, options in c.request.rootfs_mounts:
            c.rootfs_slots.append(_open_mount(c, type, source, list(options)))
        return
    path = c.request.rootfs
    c.purpose(f"open the root file system {path}")
    slot = c.slot()
    c.rootfs_slots.append(slot)
    c.add(OpenTree(slot, CWD, path, OPEN_TREE_CLONE | AT_RECURSIVE))


def _open_mount(c: Context, type: str, source: str, options: "list[str]") -> int:
    """One of ``rootfs_mounts`` as a detached mount; -1 when only mount(2) can make it (later, in place)."""
    c.purpose(f"open the root file system's {type} mount of {source}")
    slot = c.slot()
    parsed = parse(options)
    if type == "bind" or parsed.bind:
        flags = OPEN_TREE_CLONE | (AT_RECURSIVE if parsed.recursive else 0)
        c.add(OpenTree(slot, CWD, source, flags))
        if parsed.set or parsed.clear:
            c.add(SetMountAttributes(slot, "", AT_EMPTY_PATH, parsed.set, parsed.clear))
        return slot
    layers = [value or "" for key, value in parsed.data if type == "overlay" and key == "lowerdir"]
    one_by_one = layers and c.host.kernel >= (6, 7)
    if layers and not one_by_one and len(layers[0]) > LONGEST_VALUE:
        c.legacy_rootfs.append((slot, type, source, options))
        return slot
    pairs = ["source", source] if source else []
    for key, value in parsed.data:
        if key == "lowerdir" and one_by_one:
            for layer in _split_layers(value or ""):
                pairs += ("lowerdir+", layer)
        else:
            pairs += (key, value or "")
    c.add(MakeMount(slot, type, pairs, parsed.set))
    return slot


def _split_layers(value: str) -> "list[str]":
    r"""The directories of a lowerdir option: separated by ``:``, with ``\:`` and ``\\`` escaped."""
    if "\\" not in value:
        return value.split(":")
    layers, current, escaped = [], "", False
    for char in value:
        if escaped:
            current += char
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == ":":
            layers.append(current)
            current = ""
        else:
            current += char
    return [*layers, current]


def private_mounts(c: Context) -> None:
    """No mount that we make may show on the host; what the host mounts later may show here (as runc has it)."""
    if c.shares_mounts:
        c.note("the mount namespace is shared: the container's mounts stay, and it enters its root by chroot")
        return
    c.purpose("make all mounts slaves of the host's")
    c.add(SetMountAttributes(CWD, "/", AT_RECURSIVE, 0, 0, MS_SLAVE))


def _propagation(c: Context) -> "tuple[int, bool]":
    """(flag, recursive) of linux.rootfsPropagation; (0, False) for none."""
    word = c.linux.get("rootfsPropagation")
    if word and word not in PROPAGATION:
        raise InvalidArgument(
            f"linux.rootfsPropagation: unknown value {word!r}", remedy="one of " + ", ".join(PROPAGATION)
        )
    return PROPAGATION[word] if word else (0, False)


def attach_rootfs(c: Context) -> None:
    """Onto ``/`` of the new namespace: a mount that pivot_root(2) can take, found again by its handle.

    Hooks that run before the pivot look for it at its path on the host (runtime-spec, createContainer Hooks): where
    there are some, it is attached there.
    """
    c.purpose("attach the root file system")
    flag, recursive = _propagation(c)
    # Before anything is mounted below it: those have a propagation of their own.
    here = flag if recursive and flag != MS_SHARED else MS_SLAVE
    hooks = c.spec.get("hooks") or {}
    watched = any(hooks.get(kind) for kind in ("prestart", "createRuntime", "createContainer"))
    watched = watched and not c.userns and not c.request.no_pivot
    at_its_path = "mount" not in c.joined and (c.shares_mounts or watched)
    place = c.request.rootfs if at_its_path else "/"
    legacy = {slot: (type, source, options) for slot, type, source, options in c.legacy_rootfs}
    for slot in c.rootfs_slots:
        if slot in legacy:
            type, source, options = legacy[slot]
            flags = sum(LEGACY_FLAGS.get(option, 0) for option in options)
            data = ",".join(option for option in options if option not in LEGACY_FLAGS and option != "rw")
            c.add(Mount(source or type, place, type, flags, data))
            # The lookup of "/" stops at the process's own root; ".." from there crosses to what covers it.
            c.add(Open(slot, CWD, "/.." if place == "/" else place, O_PATH | O_DIRECTORY))
            continue
        c.add(SetMountAttributes(slot, "", AT_EMPTY_PATH | AT_RECURSIVE, 0, 0, here))
        c.add(MoveMount(slot, CWD, place, MOVE_MOUNT_F_EMPTY_PATH))
    c.on_old_root = place == "/"
    if c.on_old_root:
        c.over_old_root += len(c.rootfs_slots) - 1
    c.root = c.rootfs_slots[-1]


def pivot(c: Context) -> None:
    """pivot_root(".", "."): the old root ends up on top of the new one, and is let go of there (pivot_root(2))."""
    c.purpose("pivot into the root file system")
    c.add(FchDir(c.root))
    if c.shares_mounts:
        c.add(ChRoot("."))  # others have their root here
    elif c.request.no_pivot:
        # It was moved onto "/" already. What stays below could give a bare /proc or /sys back to who makes a mount
        # namespace of his own: the kernel allows a new mount only where such a one is visible (mount_too_revealing).
        for path in c.host_now.mounts_of("proc", "sysfs"):
            c.add(Unmount(path, MNT_DETACH, tolerate=(EINVAL, ENOENT)))
        c.add(FchDir(c.root))
        c.add(ChRoot("."))
    else:
        c.add(PivotRoot(".", "."))
        # What lay on the old root (the lower ones of several root mounts, the device nodes) lies there still, and a
        # lookup finds the topmost first: all of it goes, then the old root.
        for _ in range(c.over_old_root + 1):
            c.add(Unmount(".", MNT_DETACH))
    c.add(ChDir("/"))
    if not c.shares_mounts:
        c.add(CheckRoot())


def propagation(c: Context) -> None:
    """linux.rootfsPropagation of the root mount itself; shared only now, because pivot_root(2) refuses that."""
    flag, recursive = _propagation(c)
    if flag and not (recursive and flag != MS_SHARED):
        c.purpose(f"make the root mount {c.linux['rootfsPropagation']}")
        c.add(SetMountAttributes(CWD, "/", 0, 0, 0, flag))


def read_only(c: Context) -> None:
    """root.readonly, which a readonlyPath may say too."""
    paths = c.linux.get("readonlyPaths") or ()
    if (c.spec.get("root") or {}).get("readonly") or not all(map(clean, paths)):
        c.purpose("make the root file system read-only")
        c.add(SetMountAttributes(CWD, "/", 0, MOUNT_ATTR_RDONLY))
