"""The plan server: warm workers for ``boxship-runc``, so that its commands need no interpreter start.

The server itself only keeps workers: as many as there are processors wait for clients, one more is forked when none
waits (a command that stays in the foreground keeps its worker), up to MOST.
A worker that dies is replaced; a server that dies takes its idle workers with it, and nothing else: containers belong
to nobody here, and the launcher starts cold when there is no server.
It ends by itself when its socket file is no longer its own, or when the code on disk is newer than it.
"""

import gc
import os
import sys
from _signal import (  # type: ignore[import-not-found]  # signal imports enum
    SIG_DFL,
    SIG_IGN,
    SIGCHLD,
    SIGHUP,
    SIGINT,
    SIGPIPE,
    SIGTERM,
    set_wakeup_fd,
    signal,
)
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socket
from mmap import mmap
from select import EPOLLEXCLUSIVE, EPOLLIN, POLLIN, epoll, poll

from boxship.errors import AlreadyExists, FailedPrecondition, PermissionDenied
from boxship.linux.inotify import (
    IN_CLOEXEC,
    IN_CREATE,
    IN_DELETE,
    IN_MODIFY,
    IN_MOVED_TO,
    IN_NONBLOCK,
    inotify_add_watch,
    inotify_init1,
)

MOST = 64
LOOK_AROUND = 5000
"""Milliseconds between two looks at the socket file, and at our own code should nobody tell us that it changed."""
REQUESTS = 2000
"""Of one worker's life: what a long life collects goes with it."""
PACKAGES = ("cgroups", "compile", "plan", "seccomp")
"""Of libcontainer, loaded whole: what few bundles need is imported late in a cold start."""
FREE, WAITS, WORKS = 0, 1, 2


def default_path() -> str:
    """Where the launcher looks (native/warm.h); "" for a user without a runtime directory."""
    if "BOXSHIP_PLAN_SERVER" in os.environ:
        return os.environ["BOXSHIP_PLAN_SERVER"]
    if os.geteuid() == 0:
        return "/run/boxship/plans.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return runtime + "/boxship/plans.sock" if runtime else ""


def loaded_files() -> "list[str]":
    """The files that our modules came from."""
    found = [getattr(module, "__file__", None) for name, module in sys.modules.items() if name.startswith("boxship.")]
    return [file for file in found if file]


def stamps(files: "list[str]") -> "list[int]":
    """When each file was last changed, 0 for one that is gone: an upgrade under us shows here."""
    found = []
    for file in files:
        try:
            found.append(os.stat(file).st_mtime_ns)
        except FileNotFoundError:
            found.append(0)
    return found


def warm_up() -> None:
    """Load all that a worker may need, so that it is shared, and keep the collector away from it."""
    from boxship import libcontainer

    from . import main, worker

    root = os.path.dirname(os.path.abspath(libcontainer.__file__))
    for package in PACKAGES:
        for name in sorted(os.listdir(f"{root}/{package}")):
            if name.endswith(".py"):
                __import__(f"boxship.libcontainer.{package}.{name[:-3]}")
    for name in ("container", "execute", "hooks", "making"):
        __import__(f"boxship.libcontainer.{name}")
    for verb in sorted(worker.WARM):
        main._handler(verb)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)


class PlanServer:
    """The keeper of the workers at ``path``; ``serve`` returns when told to end, or when nobody can find it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = _listen(path)
        self._identity = self._socket_identity()
        self._notes, self._notes_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._life, self._life_in = os.pipe2(os.O_CLOEXEC)
        self._states = mmap(-1, MOST + 1)  # shared: a worker writes its own; the last says that our code is old
        self._workers: dict[int, int] = {}  # pid: which byte of _states
        self._files = loaded_files()
        self._stamps = stamps(self._files)
        self._changes = _watch({os.path.dirname(file) for file in self._files})
        self._ending = False
        self._least = max(2, min(8, len(os.sched_getaffinity(0))))

    def serve(self) -> None:
        def end(*_: object) -> None:
            self._ending = True

        signal(SIGCHLD, lambda *_: None)  # that it came is told by the wakeup descriptor
        for number in (SIGINT, SIGTERM, SIGHUP):
            signal(number, end)
        set_wakeup_fd(self._notes_in, warn_on_full_buffer=False)
        ready = poll()
        ready.register(self._notes, POLLIN)
        if self._changes >= 0:
            ready.register(self._changes, POLLIN)
        while not self._ending and self._socket_identity() == self._identity and stamps(self._files) == self._stamps:
            self._keep_enough()
            for fd, _ in ready.poll(LOOK_AROUND):
                os.read(fd, 65536)
            self._reap()
        self._states[MOST] = 1
        if self._socket_identity() == self._identity:
            os.unlink(self._path)
        os.close(self._life_in)  # workers that wait end now, others when they are done

    def _keep_enough(self) -> None:
        waiting = self._states[:MOST].count(WAITS)
        while len(self._workers) < MOST and (not waiting or len(self._workers) < self._least):
            slot = self._states[:MOST].index(FREE)
            self._states[slot] = WAITS
            pid = os.fork()
            if pid == 0:
                self._be_a_worker(slot)
            self._workers[pid] = slot
            waiting += 1

    def _be_a_worker(self, slot: int) -> None:
        code = 1
        try:
            set_wakeup_fd(-1)
            for number in (SIGCHLD, SIGINT, SIGTERM, SIGHUP):
                signal(number, SIG_DFL)
            signal(SIGPIPE, SIG_IGN)
            os.close(self._life_in)
            self._work(slot)
            code = 0
        finally:
            os._exit(code)

    def _work(self, slot: int) -> None:
        """A worker's life: until the server has gone, our code is old, or enough others wait."""
        from .worker import Worker

        ready = epoll()
        worker = Worker([self._listener.fileno(), self._notes_in, self._life, ready.fileno()])
        ready.register(self._listener.fileno(), EPOLLIN | EPOLLEXCLUSIVE)  # a client wakes one of us
        ready.register(self._life, EPOLLIN)
        for _ in range(REQUESTS):
            if any(fd == self._life for fd, _ in ready.poll()):
                return
            try:
                connection, _ = self._listener._accept()  # type: ignore[attr-defined]  # accept() is socket.py's
            except BlockingIOError:
                continue  # another was faster
            self._states[slot] = WORKS
            if WAITS not in self._states[:MOST]:
                os.write(self._notes_in, b"w")
            if self._states[MOST]:
                os.close(connection)  # the client starts cold, from the new code
                return
            worker.serve(socket(AF_UNIX, SOCK_SEQPACKET, 0, connection))
            if self._states[:MOST].count(WAITS) >= self._least:
                return
            self._states[slot] = WAITS

    def _reap(self) -> None:
        while self._workers:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._states[self._workers.pop(pid)] = FREE

    def _socket_identity(self) -> "tuple[int, int, int] | None":
        """Which socket file is at our path; with its time, because inode numbers are used again."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns


def _watch(directories: "set[str]") -> int:
    """An inotify descriptor that tells of changed code; -1 where this user may not have one more."""
    try:
        fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        for directory in directories:
            inotify_add_watch(fd, directory, IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE)
    except OSError:
        return -1
    return fd


def _listen(path: str) -> socket:
    """A listening socket at ``path`` for our own user; raises AlreadyExists when a server answers there."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
        probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
        try:
            probe.connect(path)
            remedy = "end it, or choose another --socket"
            raise AlreadyExists(f"a plan server is there already, at {path}", remedy=remedy)
        except (FileNotFoundError, ConnectionRefusedError):
            pass  # nobody listens, so the path is ours
        finally:
            probe.close()
        listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
        temporary = f"{path}.{os.getpid()}"
        mask = os.umask(0o177)
        try:
            listener.bind(temporary)
        finally:
            os.umask(mask)
        listener.listen(128)
        listener.setblocking(False)
        os.rename(temporary, path)
    except PermissionError as error:
        raise PermissionDenied(f"listen on {path}", cause="EACCES", remedy="choose another --socket") from error
    except OSError as error:
        cause = error.strerror or str(error)
        raise FailedPrecondition(f"listen on {path}", cause=cause, remedy="choose another --socket") from error
    return listener
