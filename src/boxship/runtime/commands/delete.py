"""``delete``: nothing of the container is left."""

from boxship.errors import NotFound
from boxship.libcontainer.container import Container

from ..main import Call


def run(call: Call) -> int:
    force = call.options.flag("force")
    if call.options.flag("regex"):
        from .regex import matching

        for container in matching(call.id(), call.root):
            container.delete(force=force)
        return 0
    try:
        container = Container.load(call.id(), root=call.root)
    except NotFound:
        if force:
            return 0
        raise
    said = len(container.notes)
    container.delete(force=force)
    for note in container.notes[said:]:
        call.log.error(note)  # a poststop hook that failed
    return 0
