"""Notification when processes of a container are killed for want of memory.

v1: an eventfd registered for memory.oom_control in cgroup.event_control (cgroup-v1/memory.rst, section OOM Control).
v2: memory.events, which can be polled for POLLPRI and counts ``oom_kill`` (cgroup-v2.rst).
"""

import os
from errno import errorcode
from select import POLLIN, POLLPRI

from boxship.errors import FailedPrecondition

from . import tree
from .writes import pairs


def kills(directory: str) -> int:
    """How many processes of a manager's ``oom_directory`` were killed for want of memory; 0 where nobody counts."""
    if not directory:
        return 0
    for file in ("memory.events", "memory.oom_control"):  # v2; v1 since Linux 4.13
        try:
            with open(f"{directory}/{file}") as f:
                return pairs(f.read()).get("oom_kill", 0)
        except OSError:
            continue  # the other version, no memory controller, or the group has gone
    return 0


class OomWatch:
    """Poll ``fileno()`` for ``mask``, then ``take()`` says how many there were. Closing twice is fine.

    ``directory`` is the manager's ``oom_directory``. Raises FailedPrecondition without a memory controller.
    """

    def __init__(self, directory: str) -> None:
        self._fds: list[int] = []
        self._directory = directory
        self._v1 = os.path.exists(directory + "/memory.oom_control") if directory else False
        self._seen = 0
        try:
            if not directory:
                raise FileNotFoundError(2, "")
            if self._v1:
                self.mask = POLLIN
                self._fds.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
                self._fds.append(os.open(directory + "/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC))
                tree.write(directory, "cgroup.event_control", f"{self._fds[0]} {self._fds[1]}")
            else:
                self.mask = POLLPRI
                self._fds.append(os.open(directory + "/memory.events", os.O_RDONLY | os.O_CLOEXEC))
                self._seen = self._count()
        except OSError as error:
            self.close()
            raise FailedPrecondition(
                f"watch for lack of memory in {directory or 'the container'}",
                cause=errorcode.get(error.errno or 0, str(error)),
                remedy="the container has no memory controller",
            ) from error

    def fileno(self) -> int:
        return self._fds[0]

    def _count(self) -> int:
        return pairs(os.pread(self._fds[0], 4096, 0).decode()).get("oom_kill", 0)

    def take(self) -> int:
        """How often it happened since the last call; 0 also when the group has gone, which wakes a poll too."""
        if self._v1:
            try:
                times = os.eventfd_read(self._fds[0])
            except BlockingIOError:
                return 0
            return times if os.path.exists(self._directory + "/cgroup.event_control") else 0
        try:
            before, self._seen = self._seen, self._count()
        except OSError:
            return 0  # ENODEV: the group has gone
        return max(0, self._seen - before)

    def close(self) -> None:
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)

    def __enter__(self) -> "OomWatch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
