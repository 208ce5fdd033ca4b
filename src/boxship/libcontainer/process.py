"""Processes of a container and what they are connected to."""

import os

from boxship.errors import FailedPrecondition


class Stdio:
    """Descriptors that become the process's standard input, output and error; -1 is /dev/null.

    They stay the caller's: the process gets copies.
    """

    __slots__ = ("stderr", "stdin", "stdout")

    def __init__(self, stdin: int = -1, stdout: int = -1, stderr: int = -1) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr

    def triple(self) -> "tuple[int, int, int]":
        return (self.stdin, self.stdout, self.stderr)


class Terminal:
    """Instead of Stdio: a pty from the container's own devpts; its size in characters, 0 for the kernel's default.

    ``relayed``: its output is copied to another terminal, which adds the carriage returns.
    """

    __slots__ = ("height", "relayed", "width")

    def __init__(self, width: int = 0, height: int = 0, *, relayed: bool = False) -> None:
        self.width = width
        self.height = height
        self.relayed = relayed


INHERIT = Stdio(0, 1, 2)


def exit_code(status: int) -> int:
    """The exit code of a wait status: the program's own, or 128 + the signal that ended it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def wait(pid: int) -> int:
    """Wait for a child and reap it. Raises FailedPrecondition when it is not our child, or was reaped already."""
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError as error:
        raise FailedPrecondition(
            f"wait for process {pid}",
            cause="ECHILD",
            remedy="only the process that created it can, once, and not while SIGCHLD is ignored",
        ) from error
    return exit_code(status)


def wait_for_end(pidfd: int, milliseconds: int) -> bool:
    """Wait until the process ends, or the time is over: whether it has ended."""
    from select import poll

    poller = poll()
    poller.register(pidfd, 1)
    return bool(poller.poll(milliseconds))


class Process:
    """A further process in a container, started by exec; a child of the caller, who reaps it.

    ``console`` is the master of its terminal, owned by the caller, or -1.
    """

    __slots__ = ("_code", "console", "pid")

    def __init__(self, pid: int, console: int = -1) -> None:
        self.pid = pid
        self.console = console
        self._code: int | None = None

    def wait(self) -> int:
        """Wait for its end and reap it: its exit code, or 128 + signal."""
        if self._code is None:
            self._code = wait(self.pid)
        return self._code

    def reap(self) -> None:
        """Reap it if it has ended; ``wait`` still gives its exit code then."""
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                return  # whoever reaped it has the code
            if pid:
                self._code = exit_code(status)


def stdio_owners(stdio: "tuple[int, int, int]", uid: int) -> "list[int]":
    """Which of the three the process's user should own: all that are not his yet, but never /dev/null."""
    owners = []
    for number, fd in enumerate(stdio):
        if fd < 0:
            continue
        try:
            status = os.fstat(fd)
        except OSError as error:
            raise FailedPrecondition(f"use descriptor {fd} as standard stream {number}", cause="EBADF") from error
        if status.st_uid != uid and status.st_rdev != 0x103:
            owners.append(number)
    return owners
