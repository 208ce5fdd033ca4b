"""The container's mounts, in the spec's order.

Every target is opened, and made where it is missing, from the root's descriptor (openat2 with RESOLVE_IN_ROOT), so
a symbolic link in the image cannot lead a mount out of it; what is mounted on is that descriptor.
Sources of bind mounts are opened on the host's side as detached mounts before the new namespaces exist.
"""

import os
from errno import EEXIST

from boxship.errors import InvalidArgument
from boxship.libcontainer.plan.ops import (
    CWD,
    CheckFile,
    CopyUp,
    MakeMount,
    MoveMount,
    OpenTarget,
    OpenTree,
    SetMountAttributes,
    Symlink,
)
from boxship.linux.abi.mount import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    AT_SYMLINK_NOFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    MS_SLAVE,
    O_NOFOLLOW,
    O_PATH,
    OPEN_TREE_CLONE,
)

from . import namespaces
from .cgroup_mounts import cgroup
from .context import TARGET_FILE, TARGET_NO_FOLLOW, TARGET_NOT_PROC, Context, clean
from .options import Options, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIRECTORY = 0o040000
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


def _inside(c: Context, path: str) -> str:
    """A path of the host that lies in the root file system, as a path of the container; "" for others."""
    rootfs = c.request.rootfs + "/"
    return clean(path[len(rootfs) :]) if path.startswith(rootfs) and not c.request.rootfs_mounts else ""


def _target(c: Context, destination: str) -> str:
    """A destination as a path below the root; one that names the root file system's own place is meant inside it."""
    return _inside(c, destination) or clean(destination)


def _is_bind(mount: "dict[str, Any]", options: Options) -> bool:
    return (mount.get("type") == "bind" or options.bind) and not options.remount


def _host_sysfs(c: Context, type: str) -> bool:
    """Whether a sysfs can only be the host's: a user namespace mounts one for a network namespace of its own."""
    return type == "sysfs" and c.userns and "network" not in c.created


def open_bind_sources(c: Context) -> None:
    """Detached copies of all bind mounts' sources, id-mapped where they shall be."""
    for index, mount in enumerate(c.spec.get("mounts") or ()):
        options = parse(mount.get("options") or ())
        if _host_sysfs(c, mount.get("type") or ""):
            c.purpose("open the host's /sys: a user namespace without a network of its own cannot mount another")
            c.bind_sources[index] = c.slot()
            # Without privileges what is mounted below comes along: it hides something.
            flags = OPEN_TREE_CLONE | (0 if c.privileged else AT_RECURSIVE)
            c.add(OpenTree(c.bind_sources[index], CWD, "/sys", flags))
            continue
        if not _is_bind(mount, options):
            if options.idmap:
                raise InvalidArgument(
                    f"mounts[{index}] on {mount.get('destination')}: only a bind mount can be id-mapped"
                )
            continue
        source = _source(c, mount)
        if options.copy_symlink and c.host_now.link_target(source):
            continue  # the link itself is made anew
        c.purpose(f"open {source}, to be bind-mounted on {mount.get('destination')}")
        slot = c.slot()
        c.bind_sources[index] = slot
        mapped = options.idmap or mount.get("uidMappings") or mount.get("gidMappings")
        if mapped:
            from . import idmaps

            idmaps.prepare(c, index, mount, options, _inside(c, source))
        if _inside(c, source):
            c.inner_sources[index] = _inside(c, source)  # what earlier mounts put there is part of it
            continue
        flags = OPEN_TREE_CLONE | (AT_RECURSIVE if options.recursive else 0)
        c.add(OpenTree(slot, CWD, source, flags | (AT_SYMLINK_NOFOLLOW if options.source_no_follow else 0)))
        if mapped:
            idmaps.apply(c, index, options, slot)


def mounts(c: Context) -> None:
    """All of ``mounts``."""
    for index, mount in enumerate(c.spec.get("mounts") or ()):
        destination = mount.get("destination") or ""
        type = mount.get("type") or ""
        options = parse(mount.get("options") or ())
        if not destination:
            raise InvalidArgument(f"mounts[{index}].destination is missing")
        target = _target(c, destination)
        if target.startswith("proc/") and type != "proc" and target not in PROC_EXCEPTIONS:
            raise InvalidArgument(f"mounts[{index}] on {destination}: nothing may be mounted inside /proc there")
        if target == "proc" and type != "proc" and not _is_proc(c, mount, options):
            raise InvalidArgument(
                f"mounts[{index}] on /proc: only a proc file system may be there", remedy='give it the type "proc"'
            )
        if index in c.bind_sources:
            if index in c.inner_sources:
                _open_inner_source(c, index, options)
            _bind(c, mount, c.bind_sources[index], target, options)
        elif options.remount:
            c.purpose(f"change the mount on {destination}")
            c.open_in_root(c.target, target)
            _attributes(c, c.target, options)
            _propagate(c, c.target, options)
        elif options.copy_symlink and options.bind:
            _copy_link(c, index, mount, target)
        elif type in ("cgroup", "cgroup2"):
            if _touched_later(c, index, target):
                namespaces.enter_cgroups(c)
                cgroup(c, target, options)
            else:
                c.later.append((target, options))
        else:
            c.purpose(f"mount {type or 'nothing'} on {destination}")
            if not type:
                raise InvalidArgument(f"mounts[{index}] on {destination}: type is missing")
            if type == "proc" and target != "proc":
                c.note(f"mounts[{index}]: proc is mounted on {destination}, not on /proc")
            _file_system(c, f"mounts[{index}]", type, mount.get("source") or type, target, options)


def _is_proc(c: Context, mount: "dict[str, Any]", options: Options) -> bool:
    """Whether a bind mount is of a whole proc file system of the host."""
    source = os.path.realpath(_source(c, mount))
    return _is_bind(mount, options) and source in c.host_now.mounts_of("proc")


def _kind(target: str, options: Options) -> int:
    """How the place is opened. A link in the image must not lead into /proc (CVE-2019-19921, CVE-2023-27561)."""
    kind = TARGET_NO_FOLLOW if options.target_no_follow else 0
    return kind if target.startswith("proc/") or target == "proc" else kind | TARGET_NOT_PROC


def _touched_later(c: Context, index: int, target: str) -> bool:
    """Whether a later mount lies above or below this one: then their order can be seen, and is kept."""
    for mount in (c.spec.get("mounts") or ())[index + 1 :]:
        other = _target(c, mount.get("destination") or "")
        if (other + "/").startswith(target + "/") or (target + "/").startswith(other + "/"):
            return True
    return False


def _file_system(c: Context, where: str, type: str, source: str, target: str, options: Options) -> None:
    attributes = options.set | options.recursive_set
    copies = options.copy_up and type == "tmpfs"
    if options.copy_up and not target:
        raise InvalidArgument(f"{where} on /: tmpcopyup has nothing to copy there", remedy="leave tmpcopyup away")
    if type in ("proc", "sysfs"):
        # Where the kernel's files are expected nothing else may be, and no link that changes (CVE-2023-28642).
        c.add(OpenTarget(c.target, c.root, target, TARGET_NO_FOLLOW))
        c.add(CheckFile(c.target, DIRECTORY))
    else:
        c.add(OpenTarget(c.target, c.root, target, _kind(target, options)))
    like = -1
    if type == "tmpfs" and not any(key == "mode" for key, _ in options.data):
        like = c.target  # as other runtimes: the image says what may be done there
    pairs = ["source", source] if source else []
    label = _label(c, type)
    for key, value in options.data:
        if label and key == "context":
            label = ""
        pairs += (key, value or "")
    if label:
        pairs += ("context", label)
    # What is mounted below a tmpfs, and made in it, needs a place: it becomes read-only at the end (as runc has it).
    later = type == "tmpfs" and bool(attributes & MOUNT_ATTR_RDONLY)
    c.add(MakeMount(c.tree, type, pairs, attributes & ~MOUNT_ATTR_RDONLY if later else attributes, like))
    if copies:
        c.add(CopyUp(c.target, c.tree))
    c.add(MoveMount(c.tree, c.target, "", ONTO))
    _propagate(c, c.tree, options)
    if later:
        kept = c.keep(c.tree)
        c.read_only_later.append(kept)
        _covered(c, target, kept)
    else:
        _covered(c, target, c.tree)


def read_only(c: Context) -> None:
    """Each tmpfs that is to be read-only, now that all is in it."""
    if c.read_only_later:
        c.purpose("make mounts read-only")
    for slot in c.read_only_later:
        c.add(SetMountAttributes(slot, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY))


def _label(c: Context, type: str) -> str:
    """linux.mountLabel, for the file systems that take an SELinux context (not proc and sysfs)."""
    label = str(c.linux.get("mountLabel") or "")
    return label if label and c.host.selinux and type in ("tmpfs", "devpts", "overlay") else ""


def _attributes(c: Context, slot: int, options: Options) -> None:
    if options.set or options.clear:
        c.add(SetMountAttributes(slot, "", AT_EMPTY_PATH, options.set, options.clear))
    if options.recursive_set or options.recursive_clear:
        flags = AT_EMPTY_PATH | AT_RECURSIVE
        c.add(SetMountAttributes(slot, "", flags, options.recursive_set, options.recursive_clear))


def _bind_attributes(c: Context, mount: "dict[str, Any]", slot: int, source: str, options: Options) -> None:
    """The flags of a bind mount; where a user namespace locks the source's, those stay."""
    to_set, to_clear = options.set, options.clear
    if (to_set or to_clear) and _is_bind(mount, options):
        from . import bind_flags

        locked = None
        if c.userns or not c.host.initial_user_namespace:
            c.only_once = True
            locked = bind_flags.source_flags(source)
        where = f"error mounting {source} to rootfs at {mount['destination']}"
        to_set, to_clear = bind_flags.attributes(mount.get("options") or (), locked, where)
    if to_set or to_clear:
        c.add(SetMountAttributes(slot, "", AT_EMPTY_PATH, to_set, to_clear))
    if options.recursive_set or options.recursive_clear:
        flags = AT_EMPTY_PATH | AT_RECURSIVE
        c.add(SetMountAttributes(slot, "", flags, options.recursive_set, options.recursive_clear))


def _propagate(c: Context, slot: int, options: Options) -> None:
    for flag, recursive in options.propagation:
        flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
        c.add(SetMountAttributes(slot, "", flags, 0, 0, flag))


def _covered(c: Context, target: str, slot: int) -> None:
    """A mount on / is the root from now on."""
    if not target:
        c.root = c.keep(slot) if slot == c.tree else slot
        c.over_old_root += c.on_old_root


def _open_inner_source(c: Context, index: int, options: Options) -> None:
    """A source in the root file system, when the mounts before it are there."""
    path, slot = c.inner_sources[index], c.bind_sources[index]
    c.purpose(f"open /{path} of the container, to be bind-mounted")
    c.open_in_root(c.scratch, path, O_PATH | (O_NOFOLLOW if options.source_no_follow else 0))
    if index in c.mapped_sources:
        from . import idmaps

        idmaps.by_creator(c, c.mapped_sources[index], slot)
        return
    c.add(OpenTree(slot, c.scratch, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | (AT_RECURSIVE if options.recursive else 0)))
    if index in c.mount_id_maps:
        from . import idmaps

        idmaps.apply(c, index, options, slot)


def _bind(c: Context, mount: "dict[str, Any]", slot: int, target: str, options: Options) -> None:
    destination, source = mount["destination"], _source(c, mount)
    c.purpose(f"bind {source} on {destination}")
    # A missing source is reported by the step that opens it.
    kind = TARGET_FILE if c.path_kind(source, follow=not options.source_no_follow) == "file" else 0
    if _host_sysfs(c, mount.get("type") or ""):
        kind = 0
        if not c.privileged:
            flags = AT_EMPTY_PATH | AT_RECURSIVE
            c.add(SetMountAttributes(slot, "", flags, options.set & MOUNT_ATTR_RDONLY))
    # Not a peer of the host's mount, unless the spec asks for it: what we mount below must not show there.
    if not options.propagation:
        c.add(SetMountAttributes(slot, "", AT_EMPTY_PATH | AT_RECURSIVE, 0, 0, MS_SLAVE))
    _bind_attributes(c, mount, slot, source, options)
    _propagate(c, slot, options)
    c.add(OpenTarget(c.target, c.root, target, kind | _kind(target, options)))
    c.add(MoveMount(slot, c.target, "", ONTO))
    _covered(c, target, slot)


def _copy_link(c: Context, index: int, mount: "dict[str, Any]", target: str) -> None:
    """crun's copy-symlink: a bind mount whose source is a link becomes a link that says the same."""
    parent, _, name = target.rpartition("/")
    if not name:
        raise InvalidArgument(f"mounts[{index}] on /: a link cannot be there")
    c.purpose(f"make the link {mount['destination']}")
    c.add(OpenTarget(c.scratch, c.root, parent))
    c.add(Symlink(c.host_now.link_target(_source(c, mount)), c.scratch, name, tolerate=(EEXIST,)))
