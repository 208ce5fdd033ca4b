"""The messages of images/rpc.proto that we use; fields that we do not know are kept.

The file is proto2: everything has presence, and what is required is sent also where it is zero.
"""

from boxship.protobuf import Enum, Message, boolean, enum, int32, message, repeated, string, uint32


class RequestType(Enum, name="criu_req_type"):
    DUMP = 1
    RESTORE = 2
    CHECK = 3
    PRE_DUMP = 4
    PAGE_SERVER = 5
    NOTIFY = 6
    FEATURE_CHECK = 9
    VERSION = 10


class CgroupMode(Enum, name="criu_cg_mode"):
    """Who cares for the cgroups, and for how much of them."""

    IGNORE = 0
    NONE = 1
    PROPS = 2
    SOFT = 3
    FULL = 4
    STRICT = 5
    DEFAULT = 6


class PageServer(Message, name="criu_page_server_info"):
    address: str | None = string(1, optional=True)
    port: int | None = int32(2, optional=True)
    pid: int | None = int32(3, optional=True)
    fd: int | None = int32(4, optional=True)


class ExternalMount(Message, name="ext_mount_map"):
    """``key`` to ``val``: on dump a mount point and its name, on restore the name and where it comes from."""

    key: str | None = string(1, optional=True)
    val: str | None = string(2, optional=True)


class JoinNamespace(Message, name="join_namespace"):
    ns: str | None = string(1, optional=True)
    ns_file: str | None = string(2, optional=True)
    extra_opt: str | None = string(3, optional=True)


class InheritDescriptor(Message, name="inherit_fd"):
    """What was ``key`` (``pipe:[123]``) becomes descriptor ``fd`` of the criu process."""

    key: str | None = string(1, optional=True)
    fd: int | None = int32(2, optional=True)


class CgroupRoot(Message, name="cgroup_root"):
    ctrl: str | None = string(1, optional=True)
    path: str | None = string(2, optional=True)


class Options(Message, name="criu_opts"):
    """Descriptors are numbers in the caller's process: criu opens them by /proc/PID/fd of its peer."""

    images_dir_fd: int | None = int32(1, optional=True)
    pid: int | None = int32(2, optional=True)
    leave_running: bool | None = boolean(3, optional=True)
    ext_unix_sk: bool | None = boolean(4, optional=True)
    tcp_established: bool | None = boolean(5, optional=True)
    evasive_devices: bool | None = boolean(6, optional=True)
    shell_job: bool | None = boolean(7, optional=True)
    file_locks: bool | None = boolean(8, optional=True)
    log_level: int | None = int32(9, optional=True)
    log_file: str | None = string(10, optional=True)
    ps: PageServer | None = message(11, PageServer)
    notify_scripts: bool | None = boolean(12, optional=True)
    root: str | None = string(13, optional=True)
    parent_img: str | None = string(14, optional=True)
    track_mem: bool | None = boolean(15, optional=True)
    auto_dedup: bool | None = boolean(16, optional=True)
    work_dir_fd: int | None = int32(17, optional=True)
    link_remap: bool | None = boolean(18, optional=True)
    ext_mnt: list[ExternalMount] = repeated(23, ExternalMount)
    manage_cgroups: bool | None = boolean(24, optional=True)
    cg_root: list[CgroupRoot] = repeated(25, CgroupRoot)
    rst_sibling: bool | None = boolean(26, optional=True)
    inherit_fd: list[InheritDescriptor] = repeated(27, InheritDescriptor)
    manage_cgroups_mode: int | None = enum(34, optional=True)
    external: list[str] = repeated(37, string)
    empty_ns: int | None = uint32(38, optional=True)
    join_ns: list[JoinNamespace] = repeated(39, JoinNamespace)
    freeze_cgroup: str | None = string(44, optional=True)
    tcp_skip_in_flight: bool | None = boolean(46, optional=True)
    lazy_pages: bool | None = boolean(48, optional=True)
    status_fd: int | None = int32(49, optional=True)
    orphan_pts_master: bool | None = boolean(50, optional=True)
    config_file: str | None = string(51, optional=True)
    lsm_profile: str | None = string(53, optional=True)
    lsm_mount_context: str | None = string(63, optional=True)


class Features(Message, name="criu_features"):
    mem_track: bool | None = boolean(1, optional=True)
    lazy_pages: bool | None = boolean(2, optional=True)
    pidfd_store: bool | None = boolean(3, optional=True)


class Request(Message, name="criu_req"):
    type: int | None = enum(1, optional=True)
    opts: Options | None = message(2, Options)
    notify_success: bool | None = boolean(3, optional=True)
    keep_open: bool | None = boolean(4, optional=True)
    features: Features | None = message(5, Features)


class Restored(Message, name="criu_restore_resp"):
    pid: int | None = int32(1, optional=True)


class Notify(Message, name="criu_notify"):
    """A step that criu waits at: ``script`` names it, ``pid`` is the first process of the tree."""

    script: str | None = string(1, optional=True)
    pid: int | None = int32(2, optional=True)


class Version(Message, name="criu_version"):
    major_number: int | None = int32(1, optional=True)
    minor_number: int | None = int32(2, optional=True)
    gitid: str | None = string(3, optional=True)
    sublevel: int | None = int32(4, optional=True)


class Response(Message, name="criu_resp"):
    type: int | None = enum(1, optional=True)
    success: bool | None = boolean(2, optional=True)
    restore: Restored | None = message(4, Restored)
    notify: Notify | None = message(5, Notify)
    ps: PageServer | None = message(6, PageServer)
    cr_errno: int | None = int32(7, optional=True)
    features: Features | None = message(8, Features)
    cr_errmsg: str | None = string(9, optional=True)
    version: Version | None = message(10, Version)
