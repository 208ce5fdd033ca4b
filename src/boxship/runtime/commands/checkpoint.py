"""``checkpoint``: save a running container to files, with CRIU."""

import os

from boxship.errors import FailedPrecondition, InvalidArgument, NotFound
from boxship.libcontainer.checkpoint import checkpoint
from boxship.libcontainer.container import PAUSED, RUNNING, Container
from boxship.libcontainer.criu import Criu, config_file

from ..main import Call


def options(call: Call, annotations: "dict[str, str]") -> Criu:
    """What the flags of ``checkpoint`` and ``restore`` say. Raises InvalidArgument."""
    given = call.options
    for kind in given.texts("empty-ns"):
        if kind != "network":
            raise InvalidArgument(f"--empty-ns {kind!r} is not supported", remedy="only network is")
    server = None
    if given.text("page-server"):
        address, _, port = given.text("page-server").rpartition(":")
        if not address or not port.isdigit() or not 0 < int(port) < 65536:
            raise InvalidArgument(f"--page-server {given.text('page-server')!r}: must be ADDRESS:PORT")
        server = (address.strip("[]"), int(port))
    return Criu(
        images=os.path.abspath(given.text("image-path") or "checkpoint"),
        work=os.path.abspath(given.text("work-path")) if given.text("work-path") else "",
        parent=given.text("parent-path"),
        program=call.criu or "criu",
        leave_running=given.flag("leave-running"),
        pre_dump=given.flag("pre-dump"),
        lazy_pages=given.flag("lazy-pages"),
        tcp_established=given.flag("tcp-established"),
        tcp_skip_in_flight=given.flag("tcp-skip-in-flight"),
        ext_unix_sk=given.flag("ext-unix-sk"),
        shell_job=given.flag("shell-job"),
        file_locks=given.flag("file-locks"),
        link_remap=given.flag("link-remap"),
        auto_dedup=given.flag("auto-dedup"),
        manage_cgroups_mode=given.text("manage-cgroups-mode"),
        page_server=server,
        status_fd=given.number("status-fd", -1),
        lsm_profile=given.text("lsm-profile"),
        lsm_mount_context=given.text("lsm-mount-context"),
        config_file=config_file(annotations),
    )


def warn_without_root(call: Call) -> None:
    if os.geteuid() != 0:
        call.log.warning("CRIU without root is untested here: it may fail, or need capabilities of the criu program")


def run(call: Call) -> int:
    container = Container.load(call.id(), root=call.root)
    status = container.status()
    if status not in (RUNNING, PAUSED):
        raise FailedPrecondition(f"Container cannot be checkpointed in {status} state", remedy="start it first")
    warn_without_root(call)
    given = options(call, container.spec.get("annotations") or {})
    try:
        checkpoint(container, given)
    except NotFound as error:
        raise NotFound(f"checkpoint {container.id!r}: {error.message}", remedy=error.remedy) from error
    if not given.leave_running and not given.pre_dump:
        container.delete(force=True)
    return 0
