"""Cgroups below a container's own, where an exec may run: ``exec --cgroup [CONTROLLER[,CONTROLLER...]:]PATH``.

They are made by the container, which owns what is below its cgroup, never by us.
"""

import os

from boxship.errors import InvalidArgument, NotFound
from boxship.libcontainer import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from boxship.libcontainer.cgroups.layout import Layout
    from boxship.libcontainer.cgroups.manager import Manager


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


def below(manager: "Manager", paths: "dict[str, str]", layout: "Layout") -> "Manager":
    """A manager of the groups that an exec enters: those of ``paths`` below the container's, elsewhere its own.

    Raises InvalidArgument for a controller that there is not and for a path that leads out, NotFound for a group that
    nobody has made.
    """
    found = dict(manager.paths)
    for controller, path in paths.items():
        if ".." in path.split("/"):
            raise InvalidArgument(f"--cgroup {path!r}: bad sub cgroup path", remedy="it must not contain '..'")
        if controller and controller not in found:
            raise InvalidArgument(
                f"--cgroup {controller}:{path}: unknown controller {controller}",
                remedy=f"this container has {', '.join(sorted(found)) or 'none'}",
            )
        for key in [controller] if controller else list(found):
            directory = os.path.normpath(manager.paths[key] + "/" + path)
            if not os.path.isdir(directory):
                raise NotFound(f"--cgroup {path!r}: adding pid to {directory}: no such file or directory")
            found[key] = directory
    return cgroups.from_paths(layout, found)
