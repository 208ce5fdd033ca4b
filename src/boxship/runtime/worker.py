"""A worker of the plan server: does what a command line says, for a launcher that stays the one who acts.

A worker is a process with the interpreter and all of our modules loaded. For the time of one request it stands in the
client's place: its working directory, umask, environment and standard streams are the client's, so the very code of
the cold start runs, and its output and errors are the same.
What a worker must not be is the parent of a container's process: that inherits session, limits and privileges.
So where the cold start spawns the native executor, a worker sends it to the launcher
(native/warm.h), which spawns it; the plan then goes from here straight to the executor.

The conversation, one SEQPACKET packet each, MESSAGE in this direction::

    worker    HELLO, "pid:start time"               (only to a client that could do by itself all that we can)
    launcher  arguments, environment, umask; descriptors: working directory, standard streams
    worker    TAKEN
    launcher  "g"                                    (a client that gave up does not say it, and nothing happens)
    worker    SPAWN + control socket, executor, streams    (whenever a process is needed)
    worker    WAIT pid, what to do should we be gone then  (only for commands that stay in the foreground)
    launcher  the exit code, an int
    worker    EXIT code, or COLD: nothing was done, start yourself
"""

import os
import sys
from _socket import (
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    SCM_RIGHTS,
    SO_PEERCRED,
    SOL_SOCKET,
    socket,
)
from struct import Struct, pack

from boxship.libcontainer import executor, host
from boxship.libcontainer.cgroups import layout
from boxship.libcontainer.state import start_time

from . import foreground, main, options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from boxship.libcontainer.host import Host

PROTOCOL = 1
MESSAGE = Struct("=IIq")
REQUEST = Struct("=IIII")
HELLO, TAKEN, SPAWN, WAIT, EXIT, COLD = 1, 2, 3, 4, 5, 6
FOREGROUND, STREAMS = 1, 2
PACKET = 100 * 1024

WARM = frozenset(("create", "run", "start", "exec", "kill", "delete", "state", "list", "pause", "resume"))
"""The verbs that gain from it. The others write into the working directory, stay, or are asked for by people."""

NAMESPACES = ("mnt", "pid", "net", "user", "ipc", "uts", "cgroup", "time")
_SAME = ("Uid:", "Gid:", "Groups:", "NoNewPrivs:", "Seccomp:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:")


# systemd is told the pid of the executor's first stage, which here is the launcher's child and not known.
NOT_HERE = ("preserve-fds", "systemd-cgroup", "cgroup-manager")


class StartCold(BaseException):
    """The launcher must do this command by itself; whatever was begun is being undone."""


class Gone(BaseException):
    """The launcher has ended or given up."""


def identity(pid: "int | str") -> "tuple[object, ...]":
    """What a process may do and where it is, comparable; OSError when it cannot be looked at."""
    lines = tuple(line for line in _read(f"/proc/{pid}/status").splitlines() if line.startswith(_SAME))
    root = os.stat(f"/proc/{pid}/root")
    return lines, (root.st_dev, root.st_ino), tuple(os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES)


def _read(path: str) -> str:
    """A file of the kernel's, whole; as text files Python's own open takes three times as long."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 65536).decode()
    finally:
        os.close(fd)


def _become(environment: "dict[str, str]") -> None:
    """Make ``os.environ`` this, name by name: after a cold start it is less than a whole MutableMapping."""
    for name in list(os.environ.keys()):
        if name not in environment:
            del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


class Worker:
    """Serves one client after the other; ``keep`` are descriptors that stay open between them."""

    def __init__(self, keep: "list[int]") -> None:
        self._identity = identity("self")
        self._host = host.detect()
        self._layouts: dict[str, layout.Layout] = {}
        with open("/proc/self/mountinfo") as f:
            self._mounts = "\n".join(line for line in f.read().splitlines() if " - cgroup" in line)
        self._greeting = f"{os.getpid()}:{start_time(os.getpid())[1]}".encode()
        self._client: socket | None = None
        self._arguments: list[str] = []
        self._foreground = False
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._keep = sorted({*keep, self._null})
        executor.spawn_elsewhere = self._spawn
        foreground.Foreground = _Foreground  # type: ignore[misc,assignment]  # the launcher waits, not we
        _Foreground.worker = self
        self._settle()  # what the server has open is not ours either

    def serve(self, client: socket) -> None:
        """Do what a client wants, and close it; one that goes away, or breaks the rules, is let go."""
        self._client = client
        try:
            peer = int.from_bytes(client.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)[:4], sys.byteorder, signed=True)
            if self._admit(peer):
                self._say(HELLO, PROTOCOL, os.getpid(), self._greeting)
                self._converse(peer)
        except (Gone, OSError):
            pass  # the launcher has ended; a container that was being made has been undone
        finally:
            self._client.close()
            self._client = None
            self._settle()

    def _admit(self, pid: int) -> bool:
        """Only for who could do all by itself: same user, privileges, namespaces and root directory as ours."""
        try:
            return pid > 0 and identity(pid) == self._identity
        except OSError:
            return False

    def _converse(self, peer: int) -> None:
        client = self._client
        assert client is not None
        data, ancillary, _, _ = client.recvmsg(PACKET, CMSG_SPACE(16), MSG_CMSG_CLOEXEC)
        handles = [
            int.from_bytes(rights[at : at + 4], sys.byteorder)
            for _, _, rights in ancillary
            for at in range(0, len(rights), 4)
        ]
        if len(data) < REQUEST.size or len(handles) != 4:
            return
        protocol, arguments, variables, mask = REQUEST.unpack_from(data)
        words = os.fsdecode(data[REQUEST.size :]).split("\0")
        if protocol != PROTOCOL or len(words) != arguments + variables + 1:
            return
        self._arguments = words[:arguments]
        environment = dict(word.partition("=")[::2] for word in words[arguments:-1])
        if not self._suits(environment):
            self._say(COLD)
            return
        self._say(TAKEN)
        if client.recv(1) != b"g":
            return
        self._stand_in(peer, environment, handles, mask)
        self._foreground = False
        try:
            code = main.main(self._arguments)
            sys.stdout.flush()
        except StartCold:
            self._say(COLD)
            return
        except BrokenPipeError:
            code = 1
        self._say(EXIT, 0, code)

    def _suits(self, environment: "dict[str, str]") -> bool:
        """Whether we can do it as well as the cold start: the client's other descriptors are not here."""
        verb = next((word for word in self._arguments if word in options.VERBS), "")
        return (
            verb in WARM
            and "BOXSHIP_EXECUTOR" not in environment
            and not environment.get("LISTEN_FDS")
            and not environment.get("NOTIFY_SOCKET")  # that waits for the program
            and not any(word.lstrip("-").startswith(NOT_HERE) for word in self._arguments)
        )

    def _stand_in(self, peer: int, environment: "dict[str, str]", handles: "list[int]", mask: int) -> None:
        directory, *streams = handles
        os.fchdir(directory)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        for handle in handles:
            os.close(handle)
        os.umask(mask)
        _become(environment)
        host._host = self._host_of(peer)

    def _host_of(self, peer: int) -> "Host":
        """The host as the client sees it: what it inherits to a process is its own."""
        text = _read(f"/proc/{peer}/cgroup")
        found = self._layouts.get(text)
        if found is None:
            self._layouts.clear()  # one text at a time: callers are much alike
            found = self._layouts[text] = layout.parse(self._mounts, text)
        return self._host.seen_by(peer, found, int(_read(f"/proc/{peer}/oom_score_adj")))

    def _settle(self) -> None:
        """Be nobody's again: nothing of the last client stays."""
        os.fchdir(self._root())
        os.umask(0o022)
        for number in (0, 1, 2):
            os.dup2(self._null, number)
        low = 3
        for fd in self._keep:
            os.closerange(low, fd)
            low = fd + 1
        os.closerange(low, max(low, 1024))

    def _root(self) -> int:
        return os.open("/", os.O_PATH | os.O_CLOEXEC)  # closed with the others

    def _say(
        self, kind: int, flags: int = 0, value: int = 0, text: bytes = b"", handles: "tuple[int, ...]" = ()
    ) -> None:
        assert self._client is not None
        rights = [(SOL_SOCKET, SCM_RIGHTS, pack(f"{len(handles)}i", *handles))] if handles else []
        try:
            self._client.sendmsg([MESSAGE.pack(kind, flags, value) + text], rights)
        except OSError as error:
            raise Gone from error

    # ── What the command's code meets instead of its own process ──

    def _spawn(self, image: int, control: int, streams: "tuple[int, int, int]") -> None:
        """``executor.spawn_elsewhere``: the launcher spawns the executor; its own streams are 0, 1 and 2."""
        flags = FOREGROUND if self._foreground else 0
        if streams == (0, 1, 2):
            self._say(SPAWN, flags, 0, b"", (control, image))
            return
        if self._foreground:
            raise StartCold  # a terminal in the foreground: copying is the cold start's business
        handles = tuple(fd if fd >= 0 else self._null for fd in streams)
        self._say(SPAWN, flags | STREAMS, 0, b"", (control, image, *handles))

    def stay(self) -> None:
        """The command will wait for the process that comes next."""
        self._foreground = True

    def wait(self, pid: int) -> int:
        """Have the launcher wait; its process's exit code."""
        assert self._client is not None
        self._say(WAIT, len(text := self._follow_up()), pid, text)
        data = self._client.recv(4)
        if len(data) != 4:
            raise Gone
        return int.from_bytes(data, sys.byteorder)

    def _follow_up(self) -> bytes:
        """What the launcher does after a ``run`` should we have died meanwhile: arguments, each with a NUL."""
        parsed = options.parse(options.GLOBAL, self._arguments, "")
        verb, *rest = parsed.operands
        if verb != "run":
            return b""
        flags = options.parse(options.VERBS[verb][1], rest, "", verb)
        if flags.flag("keep"):
            return b""
        root = os.path.abspath(parsed.text("root") or main.default_root())
        words = ("--root", root, "delete", "--force", flags.operands[0])
        return b"".join(os.fsencode(word) + b"\0" for word in words)


class _Foreground:
    """Stands in for ``foreground.Foreground``."""

    worker: "Worker"

    def __init__(self, *_: "Any") -> None:
        self.worker.stay()

    def wait(self, pid: int, console: int = -1) -> int:
        assert console < 0, "a terminal in the foreground starts cold"
        return self.worker.wait(pid)

