"""Socket files: whose they are."""

import os
import socket

from boxship.errors import FailedPrecondition


def remove_stale_socket(path: str) -> None:
    """Make room for a socket at ``path``; raises FailedPrecondition when somebody answers there."""
    os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise FailedPrecondition(
        f"another process serves {path}", remedy="stop it, or choose another address or state directory"
    )
