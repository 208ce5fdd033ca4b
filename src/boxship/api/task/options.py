"""Runtime options: what Create may carry beside the bundle.

Field numbers of the first two: containerd api/types/runc/options/oci.proto,
api/types/runtimeoptions/v1/api.proto; the last is ours.
"""

from boxship.protobuf import Message, binary, boolean, int64, mapping, string, uint32


class RuncOptions(Message, name="containerd.runc.v1.Options"):
    """What clients of containerd-shim-runc-v2 send.

    Our shim takes ``no_pivot_root``, ``root``, ``io_uid``, ``io_gid`` and ``systemd_cgroup``; it has no runc
    to run, so ``binary_name`` means nothing to it.
    """

    no_pivot_root: bool = boolean(1)
    no_new_keyring: bool = boolean(2)
    shim_cgroup: str = string(3)
    io_uid: int = uint32(4)
    io_gid: int = uint32(5)
    binary_name: str = string(6)
    root: str = string(7)
    systemd_cgroup: bool = boolean(9)
    criu_image_path: str = string(10)
    criu_work_path: str = string(11)
    task_api_address: str = string(12)
    task_api_version: int = uint32(13)


class ProcessDetails(Message, name="containerd.runc.v1.ProcessDetails"):
    """In PidsResponse: which exec a process belongs to."""

    exec_id: str = string(1)


class GenericOptions(Message, name="runtimeoptions.v1.Options"):
    """Options of a runtime that the client does not know, as a file's path or content."""

    type_url: str = string(1)
    config_path: str = string(2)
    config_body: bytes = binary(3)


class ShimOptions(Message, name="boxship.shim.v1.Options"):
    """What our engine asks of our shim.

    ``log_driver`` is ``json-file`` (docker's line format, written by the shim to ``log_path``) or empty.
    ``log_max_size`` is in bytes, 0 is no limit; ``log_max_files`` counts the current file, 0 means 1.
    ``log_attrs`` go into every line as ``attrs`` (docker's ``labels`` and ``env`` log options).
    ``runtime_root`` is the directory that libcontainer keeps this container's state in, empty for
    ``<exec root>/runtime/<namespace>``.
    """

    log_driver: str = string(1)
    log_path: str = string(2)
    log_max_size: int = int64(3)
    log_max_files: int = uint32(4)
    log_attrs: dict[str, str] = mapping(5, string)
    runtime_root: str = string(6)
    no_pivot_root: bool = boolean(7)
    systemd_cgroup: bool = boolean(8)
    io_uid: int = uint32(9)
    io_gid: int = uint32(10)
