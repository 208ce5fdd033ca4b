"""sd_notify(3) for containers: when we are started with NOTIFY_SOCKET, the container gets a socket of its own.

Lifecycle: ``offer`` adds a mount and a variable to the spec before the container is made, ``Proxy.make`` makes the
directory that is mounted, ``bind`` the socket in it, right before the program starts; ``forward`` then waits for
READY, tells the host, names the process to watch, and waits until the host has taken notice (BARRIER).
It is part of the state directory and goes with it.
"""

import os
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_DGRAM, SOL_SOCKET, socket
from select import POLLHUP, POLLIN, poll

from boxship.errors import FailedPrecondition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VARIABLE = "NOTIFY_SOCKET"
INSIDE = "/run/notify"
DIRECTORY, NAME = "notify", "notify.sock"
BARRIER_MILLISECONDS = 30_000  # who does not know barriers never closes the pipe


class Proxy:
    """Between a container's notification socket and the host's."""

    def __init__(self, host: str, state_directory: str) -> None:
        self.host = host
        self.directory = state_directory + "/" + DIRECTORY
        self._socket: socket | None = None

    def offer(self, spec: "dict[str, Any]") -> None:
        """Let the container know."""
        mount = {
            "destination": INSIDE,
            "type": "bind",
            "source": self.directory,
            "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
        }
        spec["mounts"] = [*(spec.get("mounts") or ()), mount]
        process = spec["process"]
        process["env"] = [*(process.get("env") or ()), f"{VARIABLE}={INSIDE}/{NAME}"]

    def make(self) -> None:
        os.mkdir(self.directory, 0o755)

    @property
    def made(self) -> bool:
        return os.path.isdir(self.directory)

    def bind(self) -> None:
        """Listen; anyone in the container may write, whatever its user."""
        self._socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)
        directory = os.open(self.directory, os.O_PATH | os.O_CLOEXEC)
        try:
            self._socket.bind(f"/proc/self/fd/{directory}/{NAME}")
            os.chmod(NAME, 0o777, dir_fd=directory)
        finally:
            os.close(directory)

    def forward(self, pid: int, main_pid: int) -> None:
        """Wait for READY, or for the end of the container's process ``pid``; then tell the host of ``main_pid``."""
        assert self._socket is not None
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            poller = poll()
            poller.register(self._socket.fileno(), POLLIN)
            poller.register(pidfd, POLLIN)
            while True:
                ready = dict(poller.poll())
                if self._socket.fileno() in ready:
                    lines = self._socket.recv(4096).split(b"\n")
                    found = next((line for line in lines if line.startswith(b"READY=")), None)
                    if found is not None:
                        self._tell(found, main_pid)
                        return
                elif pidfd in ready:
                    return
        finally:
            os.close(pidfd)
            self._socket.close()

    def _tell(self, ready: bytes, main_pid: int) -> None:
        host = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)
        read, write = os.pipe()
        try:
            # A name that begins with @ is in the abstract namespace.
            host.connect("\0" + self.host[1:] if self.host.startswith("@") else self.host)
            host.send(ready + b"\n")
            host.send(f"MAINPID={main_pid}\n".encode())
            host.sendmsg([b"BARRIER=1"], [(SOL_SOCKET, SCM_RIGHTS, write.to_bytes(4, "little"))])
            os.close(write)
            write = -1
            poller = poll()
            poller.register(read, POLLHUP)
            poller.poll(BARRIER_MILLISECONDS)
        except OSError as error:
            raise FailedPrecondition(f"notify {self.host}", cause=error.strerror or str(error)) from error
        finally:
            host.close()
            os.close(read)
            if write >= 0:
                os.close(write)


def proxy(state_directory: str) -> "Proxy | None":
    """The proxy for a container, or None when nobody asked for one."""
    host = os.environ.get(VARIABLE, "")
    return Proxy(host, state_directory) if host else None
