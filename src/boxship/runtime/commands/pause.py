"""``pause``: freeze every process of the container."""

from boxship.libcontainer.container import Container

from ..main import Call


def run(call: Call) -> int:
    Container.load(call.id(), root=call.root).pause()
    return 0
