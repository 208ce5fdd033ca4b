"""``kill``: a signal, by name or number, to init or to all."""

from boxship.errors import FailedPrecondition, InvalidArgument
from boxship.libcontainer.container import STOPPED, Container
from boxship.linux.abi.process import signal_number

from ..main import Call


def run(call: Call) -> int:
    operands = call.options.operands
    name = operands[1] if len(operands) > 1 else "TERM"
    number = signal_number(name)
    if not number:
        raise InvalidArgument(f"unknown signal {name!r}")
    container = Container.load(call.id(), root=call.root)
    if call.options.flag("all"):
        # As runc: with all, a stopped container is no error, its other processes may still be there.
        container.kill(number, all=True)
        return 0
    if container.status() == STOPPED:
        raise FailedPrecondition("container not running")
    container.kill(number)
    return 0
