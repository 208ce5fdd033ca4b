"""The seccomp agent: whoever answers the calls that a filter hands over (SCMP_ACT_NOTIFY).

It listens on a unix stream socket, linux.seccomp.listenerPath.
For each process with such a filter it gets one connection with one message: the container process state
(runtime-spec, config-linux.md) with the filter's listener over SCM_RIGHTS.
The creator makes the connection and the text; the process itself sends both when its filter is loaded
(native/notify.h).
"""

from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

from boxship.errors import FailedPrecondition
from boxship.oci import cold_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def connect(path: str) -> socket:
    """A connection to the agent; raises FailedPrecondition when nobody listens there."""
    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise FailedPrecondition(
            f"failed to connect with seccomp agent {path}",
            cause=(error.strerror or str(error)).lower(),
            remedy="start it, or correct linux.seccomp.listenerPath",
        ) from error
    return connection


def message(version: str, pid: int, metadata: str, state: "dict[str, Any]") -> bytes:
    """The container process state of the process ``pid``."""
    value: dict[str, Any] = {"ociVersion": version, "fds": ["seccompFd"], "pid": pid}
    if metadata:
        value["metadata"] = metadata
    value["state"] = state
    return cold_json.dumps(value).encode()
