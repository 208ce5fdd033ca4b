"""A cold start after a plan server's worker died in the middle of the same command.

The launcher tells which worker it was and whether it had asked for a process already (native/warm.h).
Its executor has ended with it, unless the container was complete; what it had made so far is found by the state's
record of its creator.
"""

import os

from boxship.errors import NotFound, Unavailable

VARIABLE = "BOXSHIP_RECLAIM"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .options import Parsed


def reclaim(verb: str, flags: "Parsed", root: str) -> None:
    """Take away what the worker left, so that the command can be done again from its beginning.

    Raises Unavailable where a second time is not the same as the first: the process of an ``exec`` may have run.
    """
    pid, started, spawned = (int(word) for word in os.environ[VARIABLE].split(":"))
    del os.environ[VARIABLE]
    if verb == "exec" and spawned:
        raise Unavailable(
            "the plan server ended while it was starting the process, which may have run",
            remedy="look at the container, then give the command again",
        )
    if verb not in ("create", "run") or not flags.operands:
        return
    from boxship.libcontainer.container import Container

    try:
        container = Container.load(flags.operands[0], root=root)
    except NotFound:
        return
    if container.creator == (pid, started):
        container.delete(force=True)
