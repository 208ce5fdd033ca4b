"""What ``create``, ``run`` and ``exec`` share: terminals, pid files, descriptors that are handed on."""

import os

from boxship.errors import BoxshipError, FailedPrecondition, InvalidArgument, StepFailed
from boxship.libcontainer.process import INHERIT, Stdio, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from boxship.libcontainer.compile import Plan

    from .main import Call
    from .options import Parsed
    from .report import Log


def debug_plan(log: "Log", plan: "Plan | None", *, entered: bool) -> None:
    """With --debug, what the executor did."""
    if log.debug_too and plan is not None:
        from .debug import debug_plan

        debug_plan(log, plan, entered=entered)


class StartFailed(BoxshipError):
    """A container's or process's start failed; in the words that callers of runc look for.

    ``cli_exit_code`` is runc's: 255 for exec, so that nobody takes it for the program's own, 1 for the others.
    """

    def __init__(self, what: str, error: BoxshipError, otherwise: int) -> None:
        # What went wrong before there was a process (a bad configuration) is said without these words.
        started = ""
        if isinstance(error, StepFailed) or getattr(error, "in_init", False):
            from boxship.libcontainer.step_errors import CommandFailed  # only now: it explains

            started = "unable to start container process: "
            if not isinstance(error, CommandFailed):
                started += "error during container init: "
        super().__init__(f"boxship-runc {what} failed: {started}{error}")
        self.kind = error.kind
        self.code = error.code
        self.cli_exit_code = otherwise


def preserved(options: "Parsed", process: "dict[str, Any]") -> int:
    """How many descriptors from 3 on to hand on: --preserve-fds, and those of socket activation (sd_listen_fds(3)).

    Raises InvalidArgument for one that is not open.
    """
    count = options.number("preserve-fds")
    if count < 0:
        raise InvalidArgument(f"--preserve-fds {count}: must not be negative")
    listening = os.environ.get("LISTEN_FDS", "")
    if listening.isdigit() and int(listening):
        count += int(listening)
        process["env"] = [*(process.get("env") or ()), f"LISTEN_FDS={listening}", "LISTEN_PID=1"]
    for fd in range(3, 3 + count):
        try:
            os.fstat(fd)
        except OSError as error:
            raise InvalidArgument(f"--preserve-fds {count}: descriptor {fd} is not open") from error
    return count


def check_terminal(options: "Parsed", terminal: bool, detached: bool) -> None:
    """A detached terminal needs a socket to send its master to, and nothing else may have one."""
    socket = options.text("console-socket")
    if terminal and detached and not socket:
        raise InvalidArgument("cannot allocate tty if boxship-runc will detach without setting console socket")
    if socket and not (terminal and detached):
        raise InvalidArgument("cannot use console socket if boxship-runc will not detach or allocate tty")


def streams(process: "dict[str, Any]", terminal: bool, relayed: bool) -> "Stdio | Terminal":
    """Our own standard streams, or a terminal of the size that process.consoleSize gives, or that ours has.

    ``relayed``: we copy between it and our own.
    """
    if not terminal:
        return INHERIT
    size = process.get("consoleSize") or {}
    if size.get("width"):
        return Terminal(int(size["width"]), int(size.get("height", 0)), relayed=relayed)
    for fd in (0, 1, 2):
        try:
            columns, rows = os.get_terminal_size(fd)
        except OSError:
            continue  # redirected
        return Terminal(columns, rows, relayed=relayed)
    return Terminal(relayed=relayed)


def send_console(path: str, console: int) -> None:
    """Send the terminal's master to whoever listens on ``path`` (runc's terminal protocol), and close it here."""
    from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket

    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
    try:
        connection.connect(path)
        name = os.readlink(f"/proc/self/fd/{console}").encode()
        connection.sendmsg([name], [(SOL_SOCKET, SCM_RIGHTS, console.to_bytes(4, "little"))])
    except OSError as error:
        cause = error.strerror or str(error)
        raise FailedPrecondition(f"send the terminal to --console-socket {path}", cause=cause) from error
    finally:
        connection.close()
        os.close(console)


def send_pidfd(path: str, pid: int) -> None:
    """Send a pidfd of the process to whoever listens on ``path``."""
    pidfd = os.pidfd_open(pid)
    try:
        send_console(path, os.dup(pidfd))
    finally:
        os.close(pidfd)


def write_pid_file(path: str, pid: int) -> None:
    """Write the pid; a reader sees the whole file or none."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, str(pid).encode())
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        raise FailedPrecondition(f"write --pid-file {path}", cause=error.strerror or str(error)) from error


def map_every_id(spec: "dict[str, Any]") -> None:
    """A user namespace without mappings gets every id onto itself (another user than root: his own), as crun has it.

    runc refuses it, and so do we where it is not crun's command line that we are given.
    """
    linux = spec.get("linux")
    namespaces = linux.get("namespaces") if isinstance(linux, dict) else None
    if not isinstance(linux, dict) or not isinstance(namespaces, list):
        return  # what is wrong with it is said where it is checked
    made = any(isinstance(one, dict) and one.get("type") == "user" and not one.get("path") for one in namespaces)
    if not made or linux.get("uidMappings") or linux.get("gidMappings"):
        return
    for key, file, own in (("uidMappings", "uid_map", os.geteuid()), ("gidMappings", "gid_map", os.getegid())):
        ranges = [(0, own, 1)]
        if os.geteuid() == 0:
            with open(f"/proc/self/{file}") as f:
                ranges = [(int(first), int(first), int(size)) for first, _, size in map(str.split, f)]
        linux[key] = [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in ranges]


def container_parts(call: "Call") -> "tuple[str, str, dict[str, Any], bool, int]":
    """(id, bundle, spec, terminal, preserved descriptors) of ``create`` and ``run``."""
    from boxship.libcontainer.container import read_spec
    from boxship.libcontainer.validate import check

    id = call.id()
    bundle = os.path.abspath(call.options.text("bundle", "."))
    spec = read_spec(bundle, call.options.text("config"))
    if call.as_crun:
        map_every_id(spec)
    check(spec)
    process = spec.get("process") or {}
    return id, bundle, spec, bool(process.get("terminal")), preserved(call.options, process)
