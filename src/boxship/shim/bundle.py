"""What a shim writes into its bundle directory, so that nothing that matters lives only in its memory.

``address``       the Task service's socket (containerd 1.x finds a live shim by it after a restart)
``shim.pid``      the shim's pid, and in a second line where libcontainer keeps the container's state (with the pid
                  of its init), for ``delete`` without a shim
``runtime-root``  the same directory when the task's options name another
``exit``          how init ended: a DeleteResponse, written before anybody is told

Writes are atomic.  They are not flushed to disk: a bundle lives on tmpfs and means nothing after a reboot.
They are few: where it is not on tmpfs, making a file is a good part of what starting a container costs (ext4 looks
at every inode that was freed within the last minutes before it takes one).
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..api.task.task import DeleteResponse


def write(bundle: str, name: str, data: bytes) -> None:
    """Put ``data`` into a file of the bundle, whole or not at all."""
    path = bundle + "/" + name
    temporary = bundle + "/." + name
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    os.rename(temporary, path)


def read(bundle: str, name: str) -> bytes:
    """A file of the bundle, or b"" when it (or the bundle) is not there."""
    try:
        fd = os.open(bundle + "/" + name, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    try:
        data = b""
        while part := os.read(fd, 1 << 20):
            data += part
        return data
    finally:
        os.close(fd)


def runtime_root(bundle: str) -> str:
    """Where libcontainer keeps the state of the bundle's container; "" when the shim never came to serve."""
    named = read(bundle, "runtime-root") or read(bundle, "shim.pid").partition(b"\n")[2]
    return named.decode()


def read_exit(bundle: str) -> "DeleteResponse | None":
    """How init ended, as far as a shim could still write it down."""
    data = read(bundle, "exit")
    if not data:
        return None
    # Not at the top: ``delete`` lives for milliseconds and passes the bytes on.
    from ..api.task.task import DeleteResponse
    from ..errors import PeerError

    try:
        return DeleteResponse.decode(data)
    except PeerError:
        return None
