"""``start``: the created container executes its program."""

import os

from boxship.libcontainer.container import Container

from ..main import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..notify import Proxy


def bound_proxy(container: Container) -> "Proxy | None":
    """The listening proxy of a container that was created with NOTIFY_SOCKET; None when it was not."""
    from ..notify import proxy

    found = proxy(container.directory)
    if found is None or not found.made:
        return None
    found.bind()
    return found


def run(call: Call) -> int:
    container = Container.load(call.id(), root=call.root)
    notify = bound_proxy(container) if "NOTIFY_SOCKET" in os.environ else None
    container.start()
    if notify is not None:
        notify.forward(container.pid, container.pid)
    return 0
