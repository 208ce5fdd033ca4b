"""Cgroups below a container's own, where an exec may run: ``exec --cgroup [CONTROLLER[,CONTROLLER...]:]PATH``.

They are made by the container, which owns what is below its cgroup, never by us.
"""

from boxship.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(arguments: "Sequence[str]") -> "dict[str, str]":
    """The paths by controller, "" for one without. Raises InvalidArgument for what contradicts itself."""
    paths: dict[str, str] = {}
    for argument in arguments:
        controllers, colon, path = argument.partition(":")
        if not colon:
            controllers, path = "", argument
        for controller in controllers.split(",") if colon else [""]:
            if colon and not controller:
                raise InvalidArgument(f"--cgroup {argument!r}: a controller is missing before ':'")
            if controller in paths:
                what = f"controller {controller}" if controller else "a path without a controller"
                raise InvalidArgument(f"--cgroup {argument!r}: {what} is there twice")
            paths[controller] = path
    return paths
