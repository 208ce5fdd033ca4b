"""Mounts of type cgroup: the container's own view of its cgroups.

One mount on v2; on v1 a tmpfs with one mount for each hierarchy: "ro" is for these, the tmpfs stays writable (runc).
With a cgroup namespace the kernel shows the container's part; without one it is bound from the host's.
"""

from errno import EEXIST

from boxship.libcontainer.plan.ops import (
    CWD,
    MakeMount,
    Mkdir,
    MoveMount,
    OpenTarget,
    OpenTree,
    SetMountAttributes,
    Symlink,
)
from boxship.linux.abi.mount import (
    AT_EMPTY_PATH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    OPEN_TREE_CLONE,
)

from . import affinity, hooks, namespaces
from .context import Context, clean
from .options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ONTO = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH


def in_order(c: Context) -> None:
    """Enter the cgroups and mount them, where what comes next depends on it."""
    if not _can_wait(c):
        at_last(c)


def at_last(c: Context) -> None:
    """The same as late as it may be, right before the pivot: the creator makes the cgroups meanwhile."""
    if c.cgroups_mounted:
        return
    c.cgroups_mounted = True
    namespaces.enter_cgroups(c)
    affinity.everywhere(c)
    for target, options in c.later:
        cgroup(c, target, options)


def _can_wait(c: Context) -> bool:
    """Whether nobody can tell: no hook looks, nothing is hidden or made read-only there."""
    if any(hooks.of(c.spec, kind) for kind in ("prestart", "createRuntime", "createContainer")):
        return False
    covered = [clean(path) for key in ("maskedPaths", "readonlyPaths") for path in c.linux.get(key) or ()]
    return not any(
        (path + "/").startswith(target + "/") or (target + "/").startswith(path + "/")
        for target, _ in c.later
        for path in covered
    )


def cgroup(c: Context, target: str, options: Options) -> None:
    """Make one cgroup mount."""
    layout = c.host.cgroups
    own_namespace = "cgroup" in c.created
    c.purpose(f"mount cgroup on /{target}")
    if layout.mode == "none":
        c.note(f"no cgroup is mounted on this host: /{target} stays empty")
        return
    if layout.mode == "v2":
        c.add(OpenTarget(c.target, c.root, target))
        if own_namespace:
            pairs = ["source", "cgroup"]
            for key, value in options.data:
                pairs += (key, value or "")
            c.add(MakeMount(c.tree, "cgroup2", pairs, options.set))
        else:
            c.fresh(_open_of_host(c.tree, "", layout.unified))
            c.add(SetMountAttributes(c.tree, "", AT_EMPTY_PATH, options.set, options.clear))
        c.add(MoveMount(c.tree, c.target, "", ONTO))
        return
    c.add(OpenTarget(c.target, c.root, target))
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    c.add(MakeMount(c.tree, "tmpfs", ["source", "tmpfs", "mode", "755"], attributes))
    c.add(MoveMount(c.tree, c.target, "", ONTO))
    above = c.slot()
    c.open_in_root(above, target)
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
            c.fresh(_open_of_host(c.tree, controllers[0], directory))
            c.add(SetMountAttributes(c.tree, "", AT_EMPTY_PATH, options.set, options.clear))
        c.add(MoveMount(c.tree, above, name, MOVE_MOUNT_F_EMPTY_PATH))
        for controller in controllers:
            if controller != name and not controller.startswith("name=") and len(controllers) > 1:
                c.add(Symlink(name, above, controller, tolerate=(EEXIST,)))


def _open_of_host(into: int, controller: str, otherwise: str) -> "Callable[[Context], None]":
    """The pass that opens the container's cgroup of one hierarchy by its path on the host, v2's for ""."""

    def run(c: Context) -> None:
        path = c.request.cgroup_paths.get(controller) if controller else c.request.cgroup
        c.add(OpenTree(into, CWD, path or otherwise, OPEN_TREE_CLONE))

    return run
