"""Containers from Python, without a daemon.

    from boxship.libcontainer import run
    code, out, err = run(["echo", "hello"], rootfs="/srv/rootfs")

=====================  ==============================================================================================
``run``                one container from start to end: (exit code, standard output, standard error)
``Container``          one that lives longer: create, start, exec, wait, pause, update, stats, events, delete
``Process``            a further process in it, with its streams
``build_spec``         a runtime-spec from a few words; ``default_spec`` is the bare default
``aio``                the same for asyncio
``diagnose``           what this host and user can do, and what to change
=====================  ==============================================================================================

docs/how-to/containers-from-python.md shows them at work.

This package imports nothing until a name is asked for: the command line starts with its inner modules only.
``container.Container`` is the layer below, which the runtime and the shim use.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import aio as aio
    from .defaults import default as default_spec
    from .doctor import diagnose as diagnose
    from .handles import Container as Container
    from .handles import Process as Process
    from .handles import Result as Result
    from .handles import run as run
    from .specs import build_resources as build_resources
    from .specs import build_spec as build_spec
    from .step_errors import CommandFailed as CommandFailed
    from .streams import DEVNULL as DEVNULL
    from .streams import INHERIT as INHERIT
    from .streams import PIPE as PIPE
    from .streams import STDOUT as STDOUT
    from .watch import Event as Event

_WHERE = {
    "CommandFailed": "step_errors",
    "Container": "handles",
    "DEVNULL": "streams",
    "Event": "watch",
    "INHERIT": "streams",
    "PIPE": "streams",
    "Process": "handles",
    "Result": "handles",
    "STDOUT": "streams",
    "build_resources": "specs",
    "build_spec": "specs",
    "default_spec": "defaults",
    "diagnose": "doctor",
    "run": "handles",
}

__all__ = [  # noqa: RUF022 - the order of the table above
    "run", "Container", "Process", "Result", "Event", "PIPE", "DEVNULL", "INHERIT", "STDOUT",
    "build_spec", "build_resources", "default_spec", "CommandFailed", "aio", "diagnose",
]  # fmt: skip


def __getattr__(name: str) -> object:
    module = _WHERE.get(name)
    if module is None and name != "aio":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if module is None:
        return import_module(".aio", __name__)
    value = getattr(import_module("." + module, __name__), "default" if name == "default_spec" else name)
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return sorted([*globals(), *__all__])
