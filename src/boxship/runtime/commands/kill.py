"""``kill``: a signal, by name or number, to init or to all."""

from boxship.errors import FailedPrecondition, InvalidArgument
from boxship.libcontainer.container import STOPPED, Container
from boxship.linux.abi.process import signal_number

from ..main import Call


def run(call: Call) -> int:
    operands = call.options.operands
    if len(operands) > 2:
        raise InvalidArgument(f'"kill" takes an id and a signal, not {" ".join(operands)}')
    name = operands[1] if len(operands) > 1 else "TERM"
    number = signal_number(name)
    if not number and name != "0":
        raise InvalidArgument(f"unknown signal {name!r}", remedy="give a number from 0 to 64, or a name like TERM")
    if call.options.flag("regex"):
        from .regex import matching

        for container in matching(call.id(), call.root):
            if container.status() != STOPPED:
                container.kill(number, all=call.options.flag("all"))
        return 0
    container = Container.load(call.id(), root=call.root)
    if call.options.flag("all"):
        # As runc: with all, a stopped container is no error, its other processes may still be there.
        container.kill(number, all=True)
        return 0
    try:
        container.kill(number)
    except FailedPrecondition as error:
        raise FailedPrecondition(f"container not running ({call.id()})") from error
    return 0
