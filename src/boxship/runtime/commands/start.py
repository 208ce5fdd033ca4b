"""``start``: the created container executes its program."""

from boxship.libcontainer.container import Container

from ..main import Call


def run(call: Call) -> int:
    Container.load(call.id(), root=call.root).start()
    return 0
