"""``resume``: let a paused container go on."""

from boxship.libcontainer.container import Container

from ..main import Call


def run(call: Call) -> int:
    Container.load(call.id(), root=call.root).resume()
    return 0
