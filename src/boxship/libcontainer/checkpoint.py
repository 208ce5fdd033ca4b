"""Saving a running container to files with CRIU (checkpoint, pre-dump)."""

import os

from boxship.api.criu import Features, Request, RequestType, Swrk
from boxship.api.criu.messages import PageServer
from boxship.errors import BoxshipError, FailedPrecondition, InvalidArgument, PeerError
from boxship.oci import cold_json

from .criu import (
    DESCRIPTORS,
    EXTERNAL_NAMESPACES,
    Criu,
    as_mounts,
    common_options,
    explained,
    external_mounts,
    is_directory,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from boxship.api.criu import Notify, Options

    from .container import Container

LOG = "dump.log"


def checkpoint(container: "Container", criu: Criu) -> None:
    """Write the container into ``criu.images``; its processes have ended then, unless the options say otherwise.

    The container's record stays; delete it. Raises FailedPrecondition with criu's reason.
    """
    options, opened = common_options(criu, LOG)
    try:
        _complete(options, container, criu)
        if criu.pre_dump or criu.lazy_pages:
            _require(criu)
        if not criu.pre_dump:
            options.ext_mnt.extend(as_mounts(_external(container)))
            _write_descriptors(container.pid, criu.images)
        kind = RequestType.PRE_DUMP if criu.pre_dump else RequestType.DUMP
        status = _Status(criu.status_fd)
        try:
            with Swrk(criu.program) as process:
                process.ask(Request(type=kind, opts=options), status.notified)
        except (FailedPrecondition, PeerError) as error:
            raise explained(error, criu.work or criu.images, LOG) from error
    finally:
        for fd in opened:
            os.close(fd)


class _Status:
    """Says on ``fd`` that lazy pages can be asked for, once."""

    def __init__(self, fd: int) -> None:
        if fd >= 0:
            from fcntl import F_GETFL, fcntl

            try:
                flags = fcntl(fd, F_GETFL)
            except OSError as error:
                raise InvalidArgument(f"--status-fd {fd}: not open", cause=error.strerror or "") from error
            if not flags & (os.O_WRONLY | os.O_RDWR):
                raise InvalidArgument(f"--status-fd {fd}: not writable")
        self.fd = fd

    def notified(self, notify: "Notify", handles: "list[int]") -> None:
        for handle in handles:
            os.close(handle)
        if notify.script == "status-ready" and self.fd >= 0:
            os.write(self.fd, b"\0")
            os.close(self.fd)
            self.fd = -1


def _complete(options: "Options", container: "Container", criu: Criu) -> None:
    """What only saving needs."""
    options.root = container.rootfs
    options.pid = container.pid
    options.leave_running = criu.leave_running
    options.tcp_skip_in_flight = criu.tcp_skip_in_flight
    options.link_remap = criu.link_remap
    paths = container.cgroups.paths
    freezer = paths.get("freezer", paths.get("", ""))
    if freezer:
        options.freeze_cgroup = freezer  # else criu stops the processes one by one, with ptrace(2)
    if criu.page_server:
        options.ps = PageServer(address=criu.page_server[0], port=criu.page_server[1])
    if criu.parent:
        options.parent_img = criu.parent
        options.track_mem = True
    for namespace in (container.spec.get("linux") or {}).get("namespaces") or ():
        if namespace.get("path") and namespace["type"] in EXTERNAL_NAMESPACES:
            kind, key = EXTERNAL_NAMESPACES[namespace["type"]]
            options.external.append(f"{kind}[{os.stat(namespace['path']).st_ino}]:{key}")


def _external(container: "Container") -> "list[tuple[str, str]]":
    """(mount point, its name) of what comes from outside; the name is the mount point, for masks it is /dev/null."""
    spec = container.spec
    found = [
        (target, target)
        for target, _ in external_mounts(
            spec, container.bundle, container.rootfs, container.layout, container.cgroups.paths
        )
    ]
    root = f"/proc/{container.pid}/root"
    masked = (spec.get("linux") or {}).get("maskedPaths") or ()
    files = (path for path in masked if os.path.exists(root + path) and not is_directory(root + path))
    return found + [(path, "/dev/null") for path in files]


def _write_descriptors(pid: int, images: str) -> None:
    """What the standard streams were: pipes are connected again by their names at restore."""
    streams = [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]
    with open(os.path.join(images, DESCRIPTORS), "w") as f:
        f.write(cold_json.dumps(streams))


def _require(criu: Criu) -> None:
    """Raises FailedPrecondition when criu or this kernel lacks what the options need."""
    wanted: dict[str, Any] = {}
    if criu.pre_dump:
        wanted["mem_track"] = True
    if criu.lazy_pages:
        wanted["lazy_pages"] = True
    try:
        with Swrk(criu.program) as process:
            answer = process.ask(Request(type=RequestType.FEATURE_CHECK, features=Features(**wanted)))
    except BoxshipError as error:
        raise FailedPrecondition(f"ask criu for its features: {error}") from error
    for name in wanted:
        if answer.features is None or not getattr(answer.features, name):
            raise FailedPrecondition(f"criu on this kernel lacks {name}", remedy="see criu check --feature")
