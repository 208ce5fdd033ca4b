"""A container from the files of a checkpoint, with CRIU.

CRIU makes the processes with their namespaces and mounts; ours is what lies outside: the record, the cgroups, mount
points in the root file system, and what takes the place of pipes, bind mounts and joined namespaces.
"""

import os
from contextlib import ExitStack, contextmanager

from boxship.api.criu import Request, RequestType, Swrk
from boxship.api.criu.client import FIRST_EXTRA
from boxship.api.criu.messages import CgroupRoot, InheritDescriptor, JoinNamespace
from boxship.errors import FailedPrecondition, InvalidArgument, NotFound, PeerError
from boxship.linux.detached import open_mount
from boxship.linux.files import open_in_root
from boxship.linux.libc import attach_mount, detach_mount
from boxship.oci import cold_json

from . import making
from . import state as store
from .container import Container
from .criu import (
    DESCRIPTORS,
    EXTERNAL_NAMESPACES,
    Criu,
    as_mounts,
    common_options,
    explained,
    external_mounts,
    inside,
    is_bind,
    is_directory,
    source_of,
)
from .resources import for_cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from boxship.api.criu import Notify, Options

LOG = "restore.log"
ROOT = "criu-root"


def restore(
    id: str,
    bundle: str,
    criu: Criu,
    *,
    root: str = store.DEFAULT_ROOT,
    spec: "dict[str, Any] | None" = None,
    keep_spec: bool = True,
    streams: "tuple[int, int, int]" = (-1, -1, -1),
    cgroup_manager: str = "cgroupfs",
) -> Container:
    """The running container. Its first process is our child; ``console`` is its terminal's master if it had one.

    ``streams`` take the place of pipes that were standard streams. Parameters else as for ``Container.create``.
    Raises AlreadyExists, NotFound, FailedPrecondition with criu's reason; nothing is left then.
    """
    if not os.path.isdir(criu.images):
        raise NotFound(f"--image-path {criu.images}: no such directory")
    pipes = _read_descriptors(criu.images)
    container = making.claim(id, bundle, root=root, spec=spec, keep_spec=keep_spec)
    try:
        making.begin_restore(container)
        _Restore(container, criu, pipes, streams, cgroup_manager).run()
    except BaseException:
        container.undo()
        raise
    return container


def _read_descriptors(images: str) -> "list[str]":
    path = os.path.join(images, DESCRIPTORS)
    try:
        with open(path, "rb") as f:
            value = cold_json.loads(f.read(), path)
    except FileNotFoundError as error:
        raise NotFound(f"{path} not found", remedy="is this the directory of a checkpoint?") from error
    if not isinstance(value, list):
        raise InvalidArgument(f"{path}: must be a list of texts")
    return [str(entry) for entry in value]


class _Restore:
    """One restoration: collects what criu is told, runs it, and answers what it asks."""

    def __init__(
        self,
        container: Container,
        criu: Criu,
        pipes: "list[str]",
        streams: "tuple[int, int, int]",
        cgroup_manager: str,
    ) -> None:
        self.container = container
        self.criu = criu
        self.pipes = pipes
        self.streams = streams
        self.cgroup_manager = cgroup_manager
        self.namespaces: list[int] = []

    def run(self) -> None:
        container, criu = self.container, self.criu
        with ExitStack() as stack:
            options, opened = common_options(criu, LOG)
            for fd in opened:
                stack.callback(os.close, fd)
            options.root = stack.enter_context(_mounted(container.rootfs, container.directory + "/" + ROOT))
            self._complete(options)
            for fd in self.namespaces:
                stack.callback(os.close, fd)
            _make_mount_points(container)
            process = stack.enter_context(Swrk(criu.program, streams=self.streams, extra=self.namespaces))
            for controller, path in self._enter_cgroups(process.pid):
                options.cg_root.append(CgroupRoot(ctrl=controller, path=path))
            # The mounts of the cgroups are known only now.
            options.ext_mnt.extend(as_mounts(self._external()))
            try:
                process.ask(Request(type=RequestType.RESTORE, opts=options), self._notified)
            except (FailedPrecondition, PeerError) as error:
                raise explained(error, criu.work or criu.images, LOG) from error
        if not container.pid:
            raise FailedPrecondition("criu restored no process", remedy=f"see {criu.work or criu.images}/{LOG}")

    def _complete(self, options: "Options") -> None:
        """What only restoring needs."""
        options.evasive_devices = True
        options.rst_sibling = True
        if self.criu.lsm_profile:
            options.lsm_profile = self.criu.lsm_profile
        if self.criu.lsm_mount_context:
            options.lsm_mount_context = self.criu.lsm_mount_context
        for number, name in enumerate(self.pipes[:3]):
            if name.startswith("pipe:"):
                options.inherit_fd.append(InheritDescriptor(key=name, fd=number))
        for namespace in (self.container.spec.get("linux") or {}).get("namespaces") or ():
            path, kind = namespace.get("path"), namespace["type"]
            if not path:
                continue
            if kind in EXTERNAL_NAMESPACES:
                try:
                    self.namespaces.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                except OSError as error:
                    raise NotFound(f"{kind} namespace {path}", cause=error.strerror or "") from error
                number = FIRST_EXTRA + len(self.namespaces) - 1
                options.inherit_fd.append(InheritDescriptor(key=EXTERNAL_NAMESPACES[kind][1], fd=number))
            elif kind == "cgroup":
                raise InvalidArgument("linux.namespaces: criu cannot join a cgroup namespace")
            else:
                options.join_ns.append(JoinNamespace(ns=kind, ns_file=path))

    def _external(self) -> "list[tuple[str, str]]":
        """(name given at the checkpoint, source on this host)."""
        container = self.container
        spec = container.spec
        found = list(
            external_mounts(spec, container.bundle, container.rootfs, container.layout, container.cgroups.paths)
        )
        if (spec.get("linux") or {}).get("maskedPaths"):
            found.append(("/dev/null", "/dev/null"))
        return found

    def _enter_cgroups(self, pid: int) -> "Iterator[tuple[str, str]]":
        """Make the container's cgroups and put criu into them, so that its children are born there.

        Gives (controllers, path) of each for criu. A process is moved here, and waited for: it is criu, not ours.
        """
        container = self.container
        manager = making.make_cgroups(container, self.cgroup_manager, pid)
        for directory in dict.fromkeys(manager.paths.values()):
            with open(directory + "/cgroup.procs", "w") as f:
                f.write(str(pid))
        manager.apply(for_cgroups(container.spec.get("linux") or {}))
        with open(f"/proc/{pid}/cgroup") as f:
            for line in f:
                _, controllers, path = line.rstrip("\n").split(":", 2)
                yield controllers, path

    def _notified(self, notify: "Notify", handles: "list[int]") -> None:
        container = self.container
        if notify.script == "orphan-pts-master" and handles:
            container.console = handles.pop(0)
        for handle in handles:
            os.close(handle)
        if notify.script == "setup-namespaces":
            making.restoring(container, notify.pid or 0)
        elif notify.script == "post-restore":
            making.restored(container, notify.pid or 0)


@contextmanager
def _mounted(rootfs: str, at: str) -> "Iterator[str]":
    """The root file system as a mount of its own, as criu wants it, for as long as criu needs it."""
    os.mkdir(at, 0o700)
    try:
        tree = open_mount("bind", rootfs, ["rbind"])
        try:
            if not attach_mount(tree, os.fsencode(at)):
                raise FailedPrecondition(f"mount {rootfs} on {at}")
        finally:
            os.close(tree)
        try:
            yield at
        finally:
            detach_mount(os.fsencode(at))
    finally:
        os.rmdir(at)


def _make_mount_points(container: Container) -> None:
    """What the first creation made in the root file system, which may be another one by now.

    On a tmpfs criu restores them itself; below a bind mount they are made in its source.
    """
    mounts = container.spec.get("mounts") or ()
    binds = [("/", container.rootfs)]
    tmpfs: list[str] = []
    for mount in mounts:
        target = inside(container.rootfs, mount["destination"])
        if mount.get("type") in ("cgroup", "cgroup2") or any(target.startswith(t + "/") for t in tmpfs):
            continue
        over = [bind for bind in binds if (target + "/").startswith(bind[0].rstrip("/") + "/")]
        above, source = max(over, key=lambda bind: len(bind[0]))
        bound = source_of(container.bundle, mount) if is_bind(mount) else ""
        if target != above:
            _make(source, target[len(above.rstrip("/")) :], directory=not bound or is_directory(bound))
        if bound:
            binds.append((target, bound))
        elif mount.get("type") == "tmpfs":
            tmpfs.append(target)


def _make(root: str, path: str, *, directory: bool) -> None:
    """Make a directory or an empty file below ``root``; what exists stays. Never outside, whatever links say."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        parts = [part for part in path.split("/") if part]
        so_far = ""
        for index, part in enumerate(parts):
            parent = open_in_root(top, so_far, os.O_PATH | os.O_DIRECTORY)
            try:
                if directory or index < len(parts) - 1:
                    os.mkdir(part, 0o755, dir_fd=parent)
                else:
                    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=parent))
            except FileExistsError:
                pass  # as it should be after the first creation
            finally:
                os.close(parent)
            so_far += "/" + part
    except OSError as error:
        what = f"make the mount point {path} in {root}"
        raise FailedPrecondition(what, cause=error.strerror or str(error)) from error
    finally:
        os.close(top)
