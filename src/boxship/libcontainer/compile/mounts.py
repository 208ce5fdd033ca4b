"""The container's mounts, in the spec's order.

Every target is made and looked up from the root's descriptor (openat2 with RESOLVE_IN_ROOT), so a symbolic link
in the image cannot lead a mount out of it.
Sources of bind mounts are opened on the host's side as detached mounts before the new namespaces exist.
"""

from errno import EBADF, EEXIST, ENOENT, ENOTDIR

from boxship.errors import InvalidArgument
from boxship.libcontainer.plan.ops import (
    CWD,
    MakeMount,
    Mkdir,
    Mknod,
    MoveMount,
    OpenTree,
    SetMountAttributes,
    Symlink,
)
from boxship.linux.abi.mount import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    AT_SYMLINK_NOFOLLOW,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    MS_SLAVE,
    O_DIRECTORY,
    O_PATH,
    OPEN_TREE_CLONE,
)

from . import namespaces
from .context import Context, clean
from .options import Options, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ONTO = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH

# What may be mounted over in /proc: anything else there would let an image fake what the runtime and security
# modules write to (CVE-2019-16884, CVE-2023-27561).
PROC_EXCEPTIONS = (
    "proc/cpuinfo", "proc/diskstats", "proc/meminfo", "proc/stat", "proc/swaps", "proc/uptime", "proc/loadavg",
    "proc/slabinfo", "proc/net/dev", "proc/sys/kernel/ns_last_pid", "proc/sys/crypto/fips_enabled",
)  # fmt: skip


def _source(c: Context, mount: "dict[str, Any]") -> str:
    """A bind mount's source; a relative one is relative to the bundle (runtime-spec, Mounts)."""
    source: str = mount.get("source") or ""
    return source if source.startswith("/") else c.request.bundle + "/" + source


def open_bind_sources(c: Context) -> None:
    """Detached copies of all bind mounts' sources."""
    for index, mount in enumerate(c.spec.get("mounts") or ()):
        options = parse(mount.get("options") or ())
        if mount.get("type") != "bind" and not options.bind:
            continue
        source = _source(c, mount)
        c.purpose(f"open {source}, to be bind-mounted on {mount.get('destination')}")
        slot = c.slot()
        c.bind_sources[index] = slot
        c.add(OpenTree(slot, CWD, source, OPEN_TREE_CLONE | (AT_RECURSIVE if options.recursive else 0)))


def mounts(c: Context) -> None:
    """All of ``mounts``."""
    for index, mount in enumerate(c.spec.get("mounts") or ()):
        destination = mount.get("destination") or ""
        type = mount.get("type") or ""
        options = parse(mount.get("options") or ())
        if not destination:
            raise InvalidArgument(f"mounts[{index}]: destination is missing")
        if options.idmap or mount.get("uidMappings") or mount.get("gidMappings"):
            raise InvalidArgument(f"mount on {destination}: id-mapped mounts are not supported")
        target = clean(destination)
        if target.startswith("proc/") and type != "proc" and target not in PROC_EXCEPTIONS:
            raise InvalidArgument(f"mount on {destination}: nothing may be mounted inside /proc there")
        if index in c.bind_sources:
            _bind(c, mount, c.bind_sources[index], target, options)
        elif type in ("cgroup", "cgroup2"):
            if _touched_later(c, index, target):
                namespaces.enter_cgroups(c)
                _cgroup(c, target, options)
            else:
                c.later.append((target, options))
        else:
            c.purpose(f"mount {type or 'nothing'} on {destination}")
            if not type:
                raise InvalidArgument(f"mounts[{index}] on {destination}: type is missing")
            _file_system(c, type, mount.get("source") or type, target, options)


def _touched_later(c: Context, index: int, target: str) -> bool:
    """Whether a later mount lies above or below this one: then their order can be seen, and is kept."""
    for mount in (c.spec.get("mounts") or ())[index + 1 :]:
        other = clean(mount.get("destination") or "")
        if (other + "/").startswith(target + "/") or (target + "/").startswith(other + "/"):
            return True
    return False


def cgroup_mounts(c: Context) -> None:
    """The container's view of its cgroups, as late as it may be: the creator makes them meanwhile."""
    namespaces.enter_cgroups(c)
    for target, options in c.later:
        _cgroup(c, target, options)


def _file_system(c: Context, type: str, source: str, target: str, options: Options) -> None:
    if options.copy_up:
        c.note(f"mount on /{target}: tmpcopyup is not carried out, the mount starts empty")
    c.make_directory(target)
    c.add(MakeMount(c.tree, type, _pairs(source, options), options.set | options.recursive_set))
    c.open_in_root(c.target, target)
    c.add(MoveMount(c.tree, c.target, "", ONTO))
    _propagate(c, c.tree, options)
    c.covered(target)


def _pairs(source: str, options: Options) -> "list[str]":
    pairs = ["source", source] if source else []
    for key, value in options.data:
        pairs += (key, value or "")
    return pairs


def _propagate(c: Context, slot: int, options: Options) -> None:
    for flag, recursive in options.propagation:
        flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
        c.add(SetMountAttributes(slot, "", flags, 0, 0, flag))


def _bind(c: Context, mount: "dict[str, Any]", slot: int, target: str, options: Options) -> None:
    destination, source = mount["destination"], _source(c, mount)
    c.purpose(f"bind {source} on {destination}")
    if c.host.path_kind(source) != "file":  # a missing one is reported by the step that opens it
        c.make_directory(target)
    else:
        parent, _, name = target.rpartition("/")
        c.make_directory(parent)
        if parent:
            c.open_in_root(c.scratch, parent, O_PATH | O_DIRECTORY)
        c.add(Mknod(c.scratch if parent else c.root, name, 0o100644, 0, tolerate=(EEXIST,)))
    # Not a peer of the host's mount, unless the spec asks for it: what we mount below must not show there.
    if not options.propagation:
        c.add(SetMountAttributes(slot, "", AT_EMPTY_PATH | AT_RECURSIVE, 0, 0, MS_SLAVE))
    if options.set or options.clear:
        c.add(SetMountAttributes(slot, "", AT_EMPTY_PATH, options.set, options.clear))
    if options.recursive_set or options.recursive_clear:
        c.add(
            SetMountAttributes(slot, "", AT_EMPTY_PATH | AT_RECURSIVE, options.recursive_set, options.recursive_clear)
        )
    _propagate(c, slot, options)
    c.open_in_root(c.target, target)
    c.add(MoveMount(slot, c.target, "", ONTO))
    c.covered(target)


def _cgroup(c: Context, target: str, options: Options) -> None:
    """The container's own view of its cgroups: one mount on v2, a tmpfs with one mount a hierarchy on v1."""
    layout = c.host.cgroups
    own_namespace = "cgroup" in c.created
    c.purpose(f"mount cgroup on /{target}")
    if layout.mode == "none":
        c.note(f"no cgroup is mounted on this host: /{target} stays empty")
        return
    if layout.mode == "v2":
        c.make_directory(target)
        if own_namespace:
            c.add(MakeMount(c.tree, "cgroup2", ["source", "cgroup"], options.set))
        else:
            c.add(OpenTree(c.tree, CWD, c.request.cgroup or layout.unified, OPEN_TREE_CLONE))
            c.add(SetMountAttributes(c.tree, "", AT_EMPTY_PATH, options.set, options.clear))
        c.open_in_root(c.target, target)
        c.add(MoveMount(c.tree, c.target, "", ONTO))
        c.covered(target)
        return
    base = Options()
    base.data = [("mode", "755")]
    base.set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    _file_system(c, "tmpfs", "tmpfs", target, base)
    above = c.slot()
    c.open_in_root(above, target, O_PATH | O_DIRECTORY)
    by_directory: dict[str, list[str]] = {}
    for controller, directory in layout.v1.items():
        by_directory.setdefault(directory, []).append(controller)
    for directory, controllers in by_directory.items():
        name = directory.rpartition("/")[2]
        c.purpose(f"mount cgroup {','.join(controllers)} on /{target}/{name}")
        c.add(Mkdir(above, name, 0o755))
        if own_namespace:
            pairs = ["source", "cgroup"]
            for controller in controllers:
                pairs += ("name", controller[5:]) if controller.startswith("name=") else (controller, "")
            c.add(MakeMount(c.tree, "cgroup", pairs, options.set))
        else:
            source = c.request.cgroup_paths.get(controllers[0], directory)
            c.add(OpenTree(c.tree, CWD, source, OPEN_TREE_CLONE))
            c.add(SetMountAttributes(c.tree, "", AT_EMPTY_PATH, options.set, options.clear))
        c.add(MoveMount(c.tree, above, name, MOVE_MOUNT_F_EMPTY_PATH))
        for controller in controllers:
            if controller != name and not controller.startswith("name=") and len(controllers) > 1:
                c.add(Symlink(name, above, controller, tolerate=(EEXIST,)))
    if options.set & MOUNT_ATTR_RDONLY:
        c.add(SetMountAttributes(above, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY))


# ── After the pivot: what the container may not see, or not change ──


def read_only_paths(c: Context) -> None:
    """linux.readonlyPaths: each bound onto itself, then read-only; one that is not there is no error."""
    paths = c.linux.get("readonlyPaths") or ()
    if not paths:
        return
    c.purpose("make the read-only paths read-only")
    for path in paths:
        c.add(OpenTree(c.tree, CWD, path, OPEN_TREE_CLONE | AT_RECURSIVE, tolerate=(ENOENT,)))
        c.add(
            SetMountAttributes(c.tree, "", AT_EMPTY_PATH | AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0, 0, tolerate=(EBADF,))
        )
        # Not there: the kernel looks at the target (ENOENT) or at the empty slot (EBADF) first.
        c.add(MoveMount(c.tree, CWD, path, MOVE_MOUNT_F_EMPTY_PATH, tolerate=(EBADF, ENOENT)))


def masked_paths(c: Context) -> None:
    """linux.maskedPaths: /dev/null over a file, an empty read-only tmpfs over a directory."""
    paths = c.linux.get("maskedPaths") or ()
    # In /proc and /sys the host's own files tell what a path is; elsewhere both ways are tried.
    kinds = [
        (path, c.host.kernel_path_kind(path) if path.startswith(("/proc/", "/sys/")) else "unknown") for path in paths
    ]
    kinds = [(path, kind) for path, kind in kinds if kind]
    if not kinds:
        return
    c.purpose("mask paths")
    for path, kind in kinds:
        if kind != "directory":
            refused = (ENOENT, ENOTDIR) if kind == "unknown" else (ENOENT,)
            if c.dev >= 0:
                # Our own node, by the handle of the directory that we made it in: whatever is at the path by now.
                c.add(OpenTree(c.tree, c.dev, "null", OPEN_TREE_CLONE | AT_SYMLINK_NOFOLLOW))
            else:
                c.add(OpenTree(c.tree, CWD, "/dev/null", OPEN_TREE_CLONE | AT_SYMLINK_NOFOLLOW))
            c.add(MoveMount(c.tree, CWD, path, MOVE_MOUNT_F_EMPTY_PATH, tolerate=refused))
        if kind != "file":
            c.add(MakeMount(c.tree, "tmpfs", ["source", "tmpfs", "nr_inodes", "1"], MOUNT_ATTR_RDONLY))
            c.add(MoveMount(c.tree, CWD, path, MOVE_MOUNT_F_EMPTY_PATH, tolerate=(ENOENT, ENOTDIR)))
