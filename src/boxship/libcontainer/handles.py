"""The library as a notebook or a program uses it: ``run`` and ``Container``, with streams instead of descriptors.

    with Container.create(build_spec("/srv/rootfs", ["sleep", "100"])) as container:
        container.start()
        process = container.exec(["cat", "/etc/hostname"])
        out, err = process.communicate()

Lifecycle: ``create`` makes everything and stops right before the program, ``start`` executes it, ``wait`` gives its
exit code, ``delete`` removes everything; leaving the ``with`` deletes by force, whatever happened.
Each standard stream is PIPE (a file object on our side), DEVNULL, INHERIT (ours), STDOUT (for stderr: where stdout
goes), or a descriptor or file of the caller's; with ``terminal`` all three are a pty.
Nothing here starts a thread or forks the interpreter: processes are spawned, so a program with threads may use it.
One object may be used by one thread at a time, but ``kill`` and ``wait`` by any.
"""

from __future__ import annotations

import io
import os
import signal as signals
import stat
from _thread import allocate_lock
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from select import POLLIN, POLLOUT, poll
from time import monotonic
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from boxship.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, PermissionDenied

from . import container as inner
from . import watch
from .process import Stdio, exit_code
from .process import Terminal as InnerTerminal
from .specs import build_resources, build_spec

if TYPE_CHECKING:
    from typing import Self

    from .cgroups import Stats

PIPE: Literal["pipe"] = "pipe"
DEVNULL: Literal["devnull"] = "devnull"
INHERIT: Literal["inherit"] = "inherit"
STDOUT: Literal["stdout"] = "stdout"

Status = Literal["creating", "created", "running", "paused", "stopped"]
Spec = dict[str, Any]


class HasFileno(Protocol):
    def fileno(self) -> int: ...


Stream = Literal["pipe", "devnull", "inherit"] | int | HasFileno
ErrorStream = Stream | Literal["stdout"]
TerminalSize = bool | tuple[int, int]


def state_root() -> str:
    """Where containers of the library keep their state, for this user."""
    if os.geteuid() == 0:
        return "/run/boxship/library"
    return (os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/boxship-{os.geteuid()}") + "/boxship/library"


def _own_root() -> str:
    """``state_root``, made if it is not there. Raises PermissionDenied when somebody else has put it into /tmp."""
    path = state_root()
    if path.startswith("/tmp/"):
        top = path[: path.index("/", 5)]
        try:
            os.mkdir(top, 0o700)
        except FileExistsError:
            found = os.lstat(top)
            if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
                raise PermissionDenied(
                    f"keep containers in {top}: it belongs to uid {found.st_uid}",
                    remedy="set XDG_RUNTIME_DIR, or name a directory with root=",
                ) from None
    return path


class Result(NamedTuple):
    """What a finished container has left: unpack it, or ask for its parts by name."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def output(self) -> str:
        """Standard output as text."""
        return self.stdout.decode("utf-8", "replace")


class _Streams:
    """The three streams of one process: what it gets (``stdio``), and our ends."""

    def __init__(self, stdin: Stream, stdout: Stream, stderr: ErrorStream, terminal: TerminalSize) -> None:
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        self.terminal: io.FileIO | None = None
        self.stdio: Stdio | InnerTerminal
        self._theirs: list[int] = []
        if terminal:
            columns, rows = terminal if isinstance(terminal, tuple) else (80, 24)
            self.stdio = InnerTerminal(columns, rows)
            return
        try:
            given = self._child_end("stdin", stdin, 0)
            out = self._child_end("stdout", stdout, 1)
            err = out if stderr == STDOUT else self._child_end("stderr", stderr, 2)
        except BaseException:
            self.started()
            self.close()
            raise
        self.stdio = Stdio(given, out, err)

    def _child_end(self, name: str, stream: object, inherited: int) -> int:
        if stream == PIPE:
            read, write = os.pipe2(os.O_CLOEXEC)
            ours, theirs = (write, read) if name == "stdin" else (read, write)
            self._theirs.append(theirs)
            setattr(self, name, io.FileIO(ours, "w" if name == "stdin" else "r"))
            return theirs
        if stream == DEVNULL:
            return -1
        if stream == INHERIT:
            return inherited
        if isinstance(stream, int) and not isinstance(stream, bool) and stream >= 0:
            return stream
        fileno = getattr(stream, "fileno", None)
        if fileno is None:
            raise InvalidArgument(
                f"{name}={stream!r} is no stream", remedy="use PIPE, DEVNULL, INHERIT, a descriptor or a file"
            )
        return int(fileno())

    def started(self, console: int = -1) -> None:
        """The process has its copies."""
        theirs, self._theirs = self._theirs, []
        for fd in theirs:
            os.close(fd)
        if console >= 0:
            self.terminal = io.FileIO(console, "r+")

    def close(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr, self.terminal):
            if stream is not None:
                stream.close()


class _Handle:
    """What containers and further processes have alike: a pid, streams, an end."""

    def __init__(self, pid: int, streams: _Streams | None) -> None:
        self.pid = pid
        self._streams = streams
        self._code: int | None = None
        self._lock = allocate_lock()

    @property
    def stdin(self) -> IO[bytes] | None:
        """Our end of standard input, unbuffered, when it is a PIPE; close it to end the input."""
        return self._streams.stdin if self._streams else None

    @property
    def stdout(self) -> IO[bytes] | None:
        """Our end of standard output, unbuffered, when it is a PIPE."""
        return self._streams.stdout if self._streams else None

    @property
    def stderr(self) -> IO[bytes] | None:
        """Our end of standard error, unbuffered, when it is a PIPE."""
        return self._streams.stderr if self._streams else None

    @property
    def terminal(self) -> io.FileIO | None:
        """The master of its terminal, when it has one; reading it raises OSError (EIO) after the end."""
        return self._streams.terminal if self._streams else None

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of its terminal. Raises FailedPrecondition without one."""
        if self.terminal is None:
            raise FailedPrecondition("resize: it has no terminal")
        import termios

        termios.tcsetwinsize(self.terminal.fileno(), (rows, columns))

    def poll(self) -> int | None:
        """Its exit code when it has ended, else None."""
        try:
            return self.wait(0)
        except DeadlineExceeded:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end: the exit code, or 128 + signal. Asking again gives the same.

        Raises DeadlineExceeded after ``timeout`` seconds, FailedPrecondition when it is not a child of this process.
        """
        if self._code is not None:
            return self._code
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            pidfd = -1
        try:
            if pidfd >= 0:
                poller = poll()
                poller.register(pidfd, POLLIN)
                if not poller.poll(None if timeout is None else max(0, timeout * 1000)):
                    raise DeadlineExceeded(f"wait for process {self.pid}: it has not ended within {timeout:g} s")
            return self._reap()
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    def _reap(self) -> int:
        with self._lock:
            if self._code is None:
                try:
                    self._code = exit_code(os.waitpid(self.pid, 0)[1])
                except ChildProcessError as error:
                    raise FailedPrecondition(
                        f"wait for process {self.pid}",
                        cause="ECHILD",
                        remedy="only the process that created it can, and not while SIGCHLD is ignored",
                    ) from error
            return self._code

    def communicate(self, input: bytes = b"", *, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Send ``input``, end it, and read what it writes until it has no more to say: (stdout, stderr).

        Only streams that are PIPEs (or the terminal, as stdout) take part.
        Raises DeadlineExceeded after ``timeout`` seconds; the process runs on, and what it wrote so far is lost.
        """
        deadline = None if timeout is None else monotonic() + timeout
        poller = poll()
        found: dict[int, list[bytes]] = {}
        source = self.stdin or (self.terminal if input else None)
        out = self.stdout or self.terminal
        for stream in (out, self.stderr):
            if stream is not None:
                poller.register(stream.fileno(), POLLIN)
                found[stream.fileno()] = []
        results = [found.get(stream.fileno(), []) if stream else [] for stream in (out, self.stderr)]
        rest = memoryview(input)
        if source is not None:
            if rest:
                os.set_blocking(source.fileno(), False)
                poller.register(source.fileno(), POLLOUT | (POLLIN if source is self.terminal else 0))
            elif source is self.stdin:
                source.close()
        open_streams = len(found)
        while open_streams or rest:
            left = None if deadline is None else max(0, (deadline - monotonic()) * 1000)
            ready = poller.poll(left)
            if not ready:
                raise DeadlineExceeded(f"process {self.pid} has not ended within {timeout:g} s")
            for fd, events in ready:
                if source is not None and rest and fd == source.fileno() and events & ~POLLIN:
                    rest = self._send(source, rest)
                    if not rest:
                        if source is self.stdin:
                            poller.unregister(fd)
                            source.close()
                        else:
                            poller.modify(fd, POLLIN)
                        source = None
                        continue
                if fd in found and events & ~POLLOUT:
                    data = _read(fd)
                    if data:
                        found[fd].append(data)
                    elif data is not None:
                        poller.unregister(fd)
                        open_streams -= 1
        return b"".join(results[0]), b"".join(results[1])

    @staticmethod
    def _send(stream: IO[bytes], rest: memoryview) -> memoryview:
        try:
            return rest[os.write(stream.fileno(), rest[:65536]) :]
        except BlockingIOError:
            return rest
        except OSError:
            return rest[:0]  # nobody reads it any more

    def close(self) -> None:
        """Close our ends of its streams; closing twice is fine."""
        if self._streams:
            self._streams.close()


def _read(fd: int) -> bytes | None:
    """What there is; b"" at the end, None when there is nothing now."""
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return None
    except OSError:
        return b""  # a terminal whose other side is closed gives EIO


class Process(_Handle):
    """One more process in a container; ``with`` kills it, if it still runs, and reaps it."""

    def kill(self, signal: int = signals.SIGTERM) -> None:
        """Send a signal; to one that has ended, nothing happens."""
        with self._lock:
            if self._code is None:
                try:
                    os.kill(self.pid, signal)
                except ProcessLookupError:
                    return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill(signals.SIGKILL)
        self.close()
        self.wait()


class Container(_Handle):
    """A container. ``inner`` is the object of the layer below, with everything that is not here."""

    def __init__(self, found: inner.Container, streams: _Streams | None = None) -> None:
        super().__init__(found.pid, streams)
        self.inner = found
        self._executed: list[Process] = []

    # ── Making and finding ──

    @classmethod
    def create(
        cls,
        spec: Spec,
        *,
        root: str | None = None,
        id: str | None = None,
        bundle: str | os.PathLike[str] | None = None,
        stdin: Stream = DEVNULL,
        stdout: Stream = PIPE,
        stderr: ErrorStream = PIPE,
        terminal: TerminalSize | None = None,
        rootfs_mounts: Sequence[tuple[str, str, Sequence[str]]] = (),
        cgroup_manager: str | None = None,
        preserve_fds: int = 0,
    ) -> Self:
        """Make everything and stop right before the program; ``start`` executes it.

        ``spec`` is a config.json as a dict, see ``build_spec``; a relative ``root.path`` is below ``bundle``.
        ``root`` is the directory where states are kept, so that ``load`` and ``boxship-runc --root`` find them.
        ``id`` is made up when there is none.
        ``terminal`` is True or (columns, rows), and process.terminal of the spec when not given.
        ``rootfs_mounts`` are mounts (type, source, options) to make as the root, instead of a directory.
        ``cgroup_manager`` is "cgroupfs", "systemd" or "none"; by default none without root.
        ``preserve_fds`` hands descriptors 3, 4, ... of the caller to the program.
        Raises InvalidArgument naming the place in the spec, AlreadyExists for a taken id, CommandFailed for a program
        that is not there, StepFailed with the step that the kernel refused; nothing is left then.
        """
        if not isinstance(spec, dict):
            raise InvalidArgument(f"a spec must be a dict, not {type(spec).__name__}", remedy="see build_spec")
        if terminal is None:
            terminal = bool((spec.get("process") or {}).get("terminal"))
        if cgroup_manager is None:
            cgroup_manager = "cgroupfs" if os.geteuid() == 0 else "none"
        streams = _Streams(stdin, stdout, stderr, terminal)
        try:
            found = inner.Container.create(
                id or "box-" + os.urandom(6).hex(),
                os.fspath(bundle) if bundle is not None else os.getcwd(),
                root=root or _own_root(),
                spec=spec,
                stdio=streams.stdio,
                rootfs_mounts=rootfs_mounts,
                cgroup_manager=cgroup_manager,
                preserve_fds=preserve_fds,
            )
        except BaseException:
            streams.started()
            streams.close()
            raise
        streams.started(found.console)
        return cls(found, streams)

    @classmethod
    def load(cls, id: str, *, root: str | None = None) -> Self:
        """A container that exists, made by whomever; its streams are not ours then. Raises NotFound."""
        return cls(inner.Container.load(id, root=root or state_root()))

    @classmethod
    def list(cls, *, root: str | None = None) -> Sequence[Self]:
        """All containers whose state is in ``root``."""
        return [cls(found) for found in inner.Container.list(root=root or state_root())]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.delete(force=True)

    def __repr__(self) -> str:
        return f"<Container {self.id} {self.status}>"

    # ── What it is ──

    @property
    def id(self) -> str:
        return self.inner.id

    @property
    def status(self) -> Status:
        """As it is now."""
        found: Status = self.inner.status()  # type: ignore[assignment]  # one of the five, runtime.md
        return found

    @property
    def spec(self) -> Spec:
        return self.inner.spec

    @property
    def notes(self) -> Sequence[str]:
        """What was adapted to this host, like a limit that was lowered."""
        return tuple(self.inner.notes)

    def state(self) -> dict[str, Any]:
        """The state as runtime-spec has it (runtime.md, State)."""
        return self.inner.state()

    def pids(self) -> Sequence[int]:
        """The pids of all its processes, as the host sees them."""
        return self.inner.pids()

    def stats(self) -> Stats:
        """One reading of its counters."""
        return self.inner.stats(whole=True)

    def events(self, interval: float = 5.0) -> Generator[watch.Event, None, None]:
        """A reading every ``interval`` seconds and each want of memory, until it stops."""
        return watch.events(self.inner, interval)

    # ── What can be done with it ──

    def start(self) -> None:
        """Execute the program. Raises FailedPrecondition unless created, StepFailed, CommandFailed."""
        self.inner.start()

    def exec(
        self,
        args: Sequence[str] | None = None,
        *,
        process: Spec | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: int | tuple[int, int] | None = None,
        stdin: Stream = DEVNULL,
        stdout: Stream = PIPE,
        stderr: ErrorStream = PIPE,
        terminal: TerminalSize = False,
        sub_cgroups: dict[str, str] | None = None,
        preserve_fds: int = 0,
    ) -> Process:
        """Run one more process; returns when it is executed.

        It has the container's environment and ``env``, its directory, user and capabilities unless told otherwise.
        ``process`` gives all of it instead, in the form of runtime-spec's ``process``.
        Raises FailedPrecondition unless the container runs, CommandFailed for a program that is not there.
        """
        if process is None:
            if isinstance(args, str) or not args:
                raise InvalidArgument(f"args must be a list of words, not {args!r}")
            process = {**(self.spec.get("process") or {}), "args": list(args), "terminal": bool(terminal)}
            process["env"] = [*(process.get("env") or ()), *(f"{k}={v}" for k, v in (env or {}).items())]
            if cwd is not None:
                process["cwd"] = cwd
            if user is not None:
                uid, gid = user if isinstance(user, tuple) else (user, user)
                process["user"] = {**(process.get("user") or {}), "uid": uid, "gid": gid}
        streams = _Streams(stdin, stdout, stderr, terminal or bool(process.get("terminal")))
        try:
            found = self.inner.exec(process, stdio=streams.stdio, sub_cgroups=sub_cgroups, preserve_fds=preserve_fds)
        except BaseException:
            streams.started()
            streams.close()
            raise
        streams.started(found.console)
        started = Process(found.pid, streams)
        self._executed.append(started)
        return started

    def kill(self, signal: int = signals.SIGTERM, *, all: bool = False) -> None:
        """Send a signal to its first process, or to all. Raises FailedPrecondition when it has ended."""
        self.inner.kill(signal, all=all)

    def pause(self) -> None:
        """Freeze all its processes."""
        self.inner.pause()

    def resume(self) -> None:
        """Let them go on."""
        self.inner.resume()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Frozen inside the ``with``."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def update(
        self,
        resources: dict[str, Any] | None = None,
        *,
        memory: int | str | None = None,
        cpus: float | None = None,
        cpuset: str | None = None,
        pids: int | None = None,
    ) -> None:
        """Change limits: ``resources`` in the form of runtime-spec's linux.resources, or the usual ones by name."""
        self.inner.update(
            {**(resources or {}), **build_resources(memory=memory, cpus=cpus, cpuset=cpuset, pids=pids)}
        )

    def delete(self, *, force: bool = False) -> None:
        """Remove everything, and close our ends of the streams; a running container only with ``force``.

        Deleting twice is fine. The exit codes of its processes can still be asked for.
        """
        if force:
            for process in self._executed:
                process.kill(signals.SIGKILL)
                _reap_quietly(process)
            try:
                self.inner.kill(signals.SIGKILL)
            except FailedPrecondition:
                pass  # it has ended, or there never was a process
            _reap_quietly(self)
        self.inner.delete(force=force)
        for process in self._executed:
            process.close()
            _reap_quietly(process)
        _reap_quietly(self)
        self.close()


def _reap_quietly(handle: _Handle) -> None:
    """Leave no zombie; one that is another's child is none of ours."""
    try:
        if handle.pid:
            handle.wait()
    except FailedPrecondition:
        return


def run(
    args: Sequence[str],
    rootfs: str | os.PathLike[str] = "",
    *,
    spec: Spec | None = None,
    input: bytes = b"",
    timeout: float | None = None,
    root: str | None = None,
    stdin: Stream | None = None,
    stdout: Stream = PIPE,
    stderr: ErrorStream = PIPE,
    **options: Any,
) -> Result:
    """Run ``args`` in a container from start to end: (exit code, standard output, standard error).

    ``rootfs`` is the directory of its root file system; other ``options`` are those of ``build_spec`` (env, user,
    memory, mounts, network, ...). With ``spec`` both are taken from there, only the args are ours.
    ``input`` is its standard input, unless ``stdin`` is something else.
    Nothing is left behind, also after an exception: DeadlineExceeded after ``timeout`` seconds, CommandFailed
    (``exit_code`` 127 or 126) for a program that is not there, and what ``Container.create`` raises.
    """
    spec = {**spec, "process": {**(spec.get("process") or {}), "args": list(args)}} if spec else None
    if spec is None:
        if not os.fspath(rootfs):
            raise InvalidArgument("run needs a rootfs or a spec", remedy='run(["echo", "hi"], rootfs="/srv/rootfs")')
        spec = build_spec(rootfs, args, **options)
    elif options or os.fspath(rootfs):
        raise InvalidArgument("run takes either a spec or the words that make one, not both")
    if stdin is None:
        stdin = PIPE if input else DEVNULL
    with Container.create(spec, root=root, stdin=stdin, stdout=stdout, stderr=stderr) as container:
        deadline = None if timeout is None else monotonic() + timeout
        container.start()
        out, err = container.communicate(input, timeout=timeout)
        code = container.wait(None if deadline is None else max(0, deadline - monotonic()))
    return Result(code, out, err)
