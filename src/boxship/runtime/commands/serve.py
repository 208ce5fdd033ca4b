"""``serve``: keep workers warm for this user's other commands (see ``plan_server``)."""

import os

from boxship.errors import InvalidArgument, Unavailable

from ..main import Call
from ..plan_server import PlanServer, default_path, warm_up


def run(call: Call) -> int:
    options = call.options
    if options.operands:
        raise InvalidArgument(f"serve takes no operand, not {' '.join(options.operands)}")
    path = options.text("socket") or default_path()
    if not path.startswith("/"):
        raise InvalidArgument(
            f"no absolute path to listen on: {path!r}", remedy="give --socket, and the same in BOXSHIP_PLAN_SERVER"
        )
    if options.flag("detach"):
        return _in_the_background(path)
    os.chdir("/")
    warm_up()
    PlanServer(path).serve()
    return 0


def _in_the_background(path: str) -> int:
    """Return when it can be asked. What goes wrong before that is said here."""
    ready, told = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(told)
        if os.read(ready, 1) == b"r":
            return 0
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) != 1:  # 1: it has said why itself
            raise Unavailable(f"the plan server at {path} ended at its start")
        return 1
    os.setsid()
    os.chdir("/")
    warm_up()
    server = PlanServer(path)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.write(told, b"r")
    os.close(told)
    server.serve()
    return 0
