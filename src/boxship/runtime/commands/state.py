"""``state``: the container's state as JSON (runtime-spec, runtime.md, State; runc adds rootfs, created, owner)."""

from boxship.libcontainer.container import Container
from boxship.oci import cold_json

from ..main import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def entry(container: Container) -> "dict[str, Any]":
    """One container as ``state`` and ``list`` print it."""
    found = container.state()
    annotations = found.pop("annotations", None)
    found["rootfs"] = container.rootfs
    found["created"] = container.created
    if annotations:
        found["annotations"] = annotations
    found["owner"] = ""
    return found


def run(call: Call) -> int:
    print(cold_json.dumps_indented(entry(Container.load(call.id(), root=call.root))))
    return 0
