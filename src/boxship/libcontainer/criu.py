"""What checkpoint and restore have in common: options, external mounts and namespaces, criu's log.

CRIU knows nothing of what lies outside the container: bind mounts, v1 cgroups, joined namespaces, pipes. Each gets a
name when it is saved, and by that name what takes its place when it is restored.
"""

import os
import stat
from dataclasses import dataclass, field

from boxship.api.criu import CgroupMode, Options
from boxship.api.criu.messages import ExternalMount
from boxship.errors import BoxshipError, FailedPrecondition, InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from boxship.libcontainer.cgroups.layout import Layout

DESCRIPTORS = "descriptors.json"
CLONE_NEWNET = 0x40000000
MODES = {
    "": CgroupMode.DEFAULT,
    "soft": CgroupMode.SOFT,
    "full": CgroupMode.FULL,
    "strict": CgroupMode.STRICT,
    "ignore": CgroupMode.IGNORE,
}
# Namespaces that criu takes as they are, by a key of ours; the others it joins.
EXTERNAL_NAMESPACES = {"network": ("net", "extRootNetNS"), "pid": ("pid", "extRootPidNS")}


@dataclass(frozen=True)
class Criu:
    """How a container is saved or restored; the names are those of the command line's flags.

    ``images`` and ``work`` are directories, made when they are missing; ``work`` "" is ``images``.
    ``parent`` is relative to ``images``. ``status_fd`` gets a NUL byte once lazy pages can be asked for.
    """

    images: str
    work: str = ""
    parent: str = ""
    program: str = "criu"
    leave_running: bool = False
    pre_dump: bool = False
    lazy_pages: bool = False
    tcp_established: bool = False
    tcp_skip_in_flight: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    file_locks: bool = False
    link_remap: bool = False
    auto_dedup: bool = False
    manage_cgroups_mode: str = ""
    page_server: "tuple[str, int] | None" = None
    status_fd: int = -1
    lsm_profile: str = ""
    lsm_mount_context: str = ""
    config_file: "str | None" = field(default="/etc/criu/runc.conf")

    def __post_init__(self) -> None:
        if self.manage_cgroups_mode not in MODES:
            raise InvalidArgument(
                f"--manage-cgroups-mode {self.manage_cgroups_mode!r}: must be soft, full, strict or ignore"
            )
        if self.parent.startswith("/"):
            raise InvalidArgument(
                f"--parent-path {self.parent}: must be relative", remedy="to --image-path, so that both can be moved"
            )
        if self.parent and not os.path.isdir(os.path.join(self.images, self.parent)):
            raise NotFound(f"--parent-path {self.parent}: no such directory in {self.images}")


def common_options(criu: Criu, log: str) -> "tuple[Options, list[int]]":
    """The options that both directions have, and the directories opened for them, which the caller closes."""
    opened = [_directory(criu.images)]
    options = Options(
        images_dir_fd=opened[0],
        log_level=4,
        log_file=log,
        manage_cgroups=True,  # an older criu's word for it
        manage_cgroups_mode=MODES[criu.manage_cgroups_mode],
        notify_scripts=True,
        shell_job=criu.shell_job,
        tcp_established=criu.tcp_established,
        ext_unix_sk=criu.ext_unix_sk,
        file_locks=criu.file_locks,
        empty_ns=CLONE_NEWNET,  # the interfaces of a container are whoever's who connected it
        orphan_pts_master=True,
        auto_dedup=criu.auto_dedup,
        lazy_pages=criu.lazy_pages,
    )
    if criu.config_file:
        options.config_file = criu.config_file
    if criu.work:
        opened.append(_directory(criu.work))
        options.work_dir_fd = opened[1]
    return options, opened


def _directory(path: str) -> int:
    os.makedirs(path, 0o700, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def config_file(annotations: "dict[str, str]") -> "str | None":
    """criu's own configuration: the annotation org.criu.config names it, empty for none (as runc has it)."""
    return annotations.get("org.criu.config", "/etc/criu/runc.conf") or None


def inside(rootfs: str, path: str) -> str:
    """Where ``path`` of a container leads, as an absolute path of the container: its links are followed in the root.

    What does not exist yet is taken as it is written.
    """
    done: list[str] = []
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
            continue
        here = "/".join([rootfs, *done, part])
        try:
            target = os.readlink(here)
        except OSError:
            done.append(part)  # no link, or nothing there
            continue
        links += 1
        if links > 40:
            raise FailedPrecondition(f"{path} in {rootfs}", cause="too many levels of symbolic links")
        if target.startswith("/"):
            done.clear()
        todo += [part for part in reversed(target.split("/")) if part not in ("", ".")]
    return "/" + "/".join(done)


def is_bind(mount: "dict[str, Any]") -> bool:
    return mount.get("type") == "bind" or any(word in ("bind", "rbind") for word in mount.get("options") or ())


def source_of(bundle: str, mount: "dict[str, Any]") -> str:
    """A bind mount's source on the host; a relative one is the bundle's."""
    return os.path.normpath(os.path.join(bundle, mount.get("source") or ""))


def cgroup_binds(
    spec: "dict[str, Any]", layout: "Layout", paths: "dict[str, str]", target: str
) -> "Iterator[tuple[str, str]]":
    """(mount point, directory of the host) of one cgroup mount that is bound from the host's.

    With a cgroup namespace they are mounts of the container's own, and criu makes them.
    """
    namespaces = (spec.get("linux") or {}).get("namespaces") or ()
    if any(namespace["type"] == "cgroup" for namespace in namespaces) or layout.mode == "none":
        return
    if layout.mode == "v2":
        yield target, paths.get("", layout.unified)
        return
    seen = set()
    for controller, directory in layout.v1.items():
        if directory not in seen:
            seen.add(directory)
            yield f"{target}/{directory.rpartition('/')[2]}", paths.get(controller, directory)


def external_mounts(
    spec: "dict[str, Any]", bundle: str, rootfs: str, layout: "Layout", paths: "dict[str, str]"
) -> "Iterator[tuple[str, str]]":
    """(mount point in the container, source on the host) of every mount that comes from outside, except masks."""
    for mount in spec.get("mounts") or ():
        target = inside(rootfs, mount["destination"])
        if is_bind(mount):
            yield target, source_of(bundle, mount)
        elif mount.get("type") in ("cgroup", "cgroup2"):
            yield from cgroup_binds(spec, layout, paths, target)


def as_mounts(pairs: "list[tuple[str, str]]") -> "list[ExternalMount]":
    return [ExternalMount(key=key, val=value) for key, value in pairs]


# What criu complains of while it looks at the kernel, and then does without.
_HARMLESS = ("Unable to create tun", "Can't setup RLIMIT_NOFILE for self")


def log_errors(directory: str, name: str) -> "list[str]":
    """The lines of criu's log that say what went wrong; the first is the reason, mostly."""
    try:
        with open(os.path.join(directory, name), errors="replace") as f:
            return [line.strip() for line in f if "Error" in line and not any(text in line for text in _HARMLESS)]
    except OSError:
        return []  # it did not come that far


def explained(error: BoxshipError, directory: str, name: str) -> BoxshipError:
    """The same error with criu's own reason and the place of its log."""
    lines = log_errors(directory, name)
    cause = lines[0] if lines else error.cause
    return FailedPrecondition(error.message, cause=cause, remedy=f"see {os.path.join(directory, name)}")


def is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False
