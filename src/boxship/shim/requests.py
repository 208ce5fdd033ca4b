"""What requests carry in several shapes, in the one that the service uses."""

from ..api.task.options import GenericOptions, RuncOptions, ShimOptions
from ..errors import InvalidArgument
from ..protobuf import Any
from .logs import JsonFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any as Anything


def runtime_options(packed: "Any | None") -> ShimOptions:
    """The runtime options of a Create in the one form that we use; those of other runtimes mean nothing."""
    if packed is None or not packed.type_url:
        return ShimOptions()
    if packed.holds(GenericOptions):
        generic = packed.unpack(GenericOptions)
        packed = Any(type_url=generic.type_url, value=generic.config_body)
    if packed.holds(ShimOptions):
        return packed.unpack(ShimOptions)
    if packed.holds(RuncOptions):
        runc = packed.unpack(RuncOptions)
        return ShimOptions(
            runtime_root=runc.root, no_pivot_root=runc.no_pivot_root, systemd_cgroup=runc.systemd_cgroup,
            io_uid=runc.io_uid, io_gid=runc.io_gid,
        )  # fmt: skip
    return ShimOptions()


def open_log(options: ShimOptions) -> "JsonFile | None":
    if not options.log_driver:
        return None
    if options.log_driver != "json-file":
        raise InvalidArgument(f"log driver {options.log_driver} is not the shim's", remedy="json-file")
    try:
        return JsonFile(
            options.log_path, max_size=options.log_max_size, max_files=options.log_max_files or 1,
            attrs=options.log_attrs,
        )  # fmt: skip
    except OSError as error:
        raise InvalidArgument(f"log {options.log_path}", cause=error.strerror or str(error)) from error


def json_object(packed: Any, what: str) -> "dict[str, Anything]":
    """The JSON object inside an Any, whatever its type is called (typeurl: types.containerd.io/...)."""
    from json import loads

    try:
        value = loads(packed.value)
    except ValueError as error:
        raise InvalidArgument(f"the {what} is not JSON", cause=str(error)) from error
    if not isinstance(value, dict):
        raise InvalidArgument(f"the {what} is not a JSON object")
    return value
