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
    entry = {key: found[key] for key in ("ociVersion", "id", "pid", "status", "bundle")}  # in runc's order
    entry.update(rootfs=container.rootfs, created=container.created)
    if found.get("annotations"):
        entry["annotations"] = found["annotations"]
    entry["owner"] = ""
    return entry


def run(call: Call) -> int:
    print(cold_json.dumps_indented(entry(Container.load(call.id(), root=call.root))))
    return 0
