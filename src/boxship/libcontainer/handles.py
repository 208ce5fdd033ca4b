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

import os
import signal as signals
import stat
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from boxship.errors import FailedPrecondition, InvalidArgument, PermissionDenied

from . import container as inner
from . import watch
from .specs import build_resources, build_spec
from .streams import DEVNULL, PIPE, ErrorStream, Handle, Stream, Streams, TerminalSize

if TYPE_CHECKING:
    from typing import Self

    from .cgroups import Stats

Status = Literal["creating", "created", "running", "paused", "stopped"]
Spec = dict[str, Any]


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


class Process(Handle):
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


class Container(Handle):
    """A container. ``inner`` is the object of the layer below, with everything that is not here."""

    def __init__(self, found: inner.Container, streams: Streams | None = None) -> None:
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
        streams = Streams(stdin, stdout, stderr, terminal)
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
        streams = Streams(stdin, stdout, stderr, terminal or bool(process.get("terminal")))
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


def _reap_quietly(handle: Handle) -> None:
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
