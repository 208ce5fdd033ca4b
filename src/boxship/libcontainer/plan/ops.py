"""The vocabulary of plans: every operation that the native executor knows, declared once.

A plan is a straight list of operations.
Conditions were decided before it was made; an operation makes one system call, or a fixed few.
From these declarations come the wire codec (``codec``), the C header (``header``), the text of ``explain``,
the reference page and the round-trip tests.
The order of the classes is their number on the wire, and ``FINGERPRINT`` (a hash over names and fields) stands
in every plan's header, so that an executor of another vintage refuses instead of guessing.

Wire types: ``Slot`` names a kernel handle that the executor keeps (``CWD`` where a call takes AT_FDCWD),
``Int`` and ``Flags`` are 64-bit integers, ``Text`` is a NUL-terminated string, ``Bytes`` is raw data,
``Texts`` a list of strings.
``tolerate`` lists errno numbers (two at most) that let the plan go on.
An operation that opens into a slot empties the slot first; using an empty slot fails with EBADF, so "only if
that opened" is said by tolerating EBADF.

The cold path imports this module: it needs no dataclasses, no enum, no typing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, ClassVar, TypeAlias, dataclass_transform

    Slot: TypeAlias = int
    Int: TypeAlias = int
    Flags: TypeAlias = int
    Text: TypeAlias = str
    Bytes: TypeAlias = bytes
    Texts: TypeAlias = list[str]

    def _field(*, default: Any, kw_only: bool) -> Any: ...

    @dataclass_transform(frozen_default=True, field_specifiers=(_field,))
    class _Declared: ...


CWD = -100
"""AT_FDCWD: look up from the working directory, or by an absolute path."""

STDIO = (-10, -11, -12)
"""In place of a slot: the process's standard input, output and error."""

MAX_SLOTS = 512
MAX_FIELDS = 7

if TYPE_CHECKING:
    # A type checker sees a frozen dataclass in each operation ...

    class Op(_Declared):
        """One operation; a subclass declares its fields as annotations, in wire order, with defaults."""

        NUMBER: ClassVar[int]
        NAME: ClassVar[str]
        FIELDS: ClassVar[tuple[str, ...]]
        WIRE: ClassVar[tuple[str, ...]]
        kind: ClassVar[Kind]
        args: ClassVar[tuple[Any, ...]]
        tolerate: tuple[int, ...] = _field(default=(), kw_only=True)

        def __iter__(self) -> Iterator[Any]: ...

    class Kind:
        NUMBER: int
        NAME: str
        DECLARED: dict[str, str]
        FIELDS: tuple[str, ...]
        WIRE: tuple[str, ...]
        BLOBS: tuple[int, ...]
        PADDING: tuple[int, ...]
        __doc__: str

        def __call__(self, *args: Any, tolerate: tuple[int, ...] = ()) -> Op: ...

    OPS: list[Kind] = []
else:
    # ... and at run time each is a ``Kind`` and its uses are tuples: sixty classes would cost the cold path 3 ms,
    # and a plan is made for every container.
    OPS = []

    class _Op(tuple):
        """One operation: (kind, args, tolerate), with its fields as attributes."""

        __slots__ = ()
        kind = property(lambda self: self[0])
        args = property(lambda self: self[1])
        tolerate = property(lambda self: self[2])

        def __getattr__(self, name):
            kind = self[0]
            if name in kind.FIELDS:
                return self[1][kind.FIELDS.index(name)]
            return getattr(kind, name)

        def __repr__(self):
            kind, args, tolerate = self
            text = ", ".join(f"{name}={value!r}" for name, value in zip(kind.FIELDS, args, strict=True))
            return f"{kind.NAME}({text}{f', tolerate={tolerate!r}' if tolerate else ''})"

    class Kind:
        """What a ``class Name(Op)`` statement makes: Op is an instance of Kind, so Kind makes its "subclass".

        Calling it makes an operation. What follows from the declaration is worked out when it is first asked for:
        a plan uses half of the vocabulary.
        """

        def __init__(self, name, bases, body):
            self.NAME = name
            self.DECLARED = body.get("__annotations__", {})
            self.__doc__ = body.get("__doc__")
            self._body = body
            self.NUMBER = 0
            if bases:
                OPS.append(self)
                self.NUMBER = len(OPS)

        def __getattr__(self, name):
            known = self.__dict__
            if "FIELDS" in known:
                if name in known:
                    return known[name]  # another thread has just worked it out
                raise AttributeError(f"an operation has no {name}")
            declared, body = self.DECLARED, self._body
            self.WIRE = tuple(declared.values())
            self.BLOBS = tuple([i for i, kind in enumerate(self.WIRE) if kind[0] in "TB"])  # Text, Texts, Bytes
            self.DEFAULTS = tuple([body[field] for field in declared if field in body])
            self.COUNT = len(declared)
            self.PADDING = (0,) * (MAX_FIELDS - self.COUNT)
            self.FIELDS = tuple(declared)
            return getattr(self, name)

        def __call__(self, *args, tolerate=(), **named):
            if named or len(args) != self.COUNT:
                args = self._complete(args, named)
            return _Op((self, args, tolerate))

        def __instancecheck__(self, op):
            return type(op) is _Op and (op[0] is self or self.NUMBER == 0)

        def _complete(self, args, named):
            values = list(args)
            first_default = self.COUNT - len(self.DEFAULTS)
            for index in range(len(args), self.COUNT):
                name = self.FIELDS[index]
                if name in named:
                    values.append(named.pop(name))
                elif index >= first_default:
                    values.append(self.DEFAULTS[index - first_default])
                else:
                    raise TypeError(f"{self.NAME}: missing {name}")
            if named or len(values) > self.COUNT:
                raise TypeError(f"{self.NAME}: unknown or too many arguments: {', '.join(named)}")
            return tuple(values)

    Op = Kind("Op", (), {})


# ── The process itself ──


class ResetSignals(Op):
    """Every signal to its default, none blocked: Python ignores SIGPIPE, shells SIGQUIT, threads block some."""


class Prctl(Op):
    """prctl(2)."""

    option: Int
    a: Int = 0
    b: Int = 0
    c: Int = 0


class Umask(Op):
    """umask(2)."""

    mask: Int


class SetSession(Op):
    """setsid(2)."""


class JoinSessionKeyring(Op):
    """keyctl(KEYCTL_JOIN_SESSION_KEYRING): the container does not share its creator's session keyring."""

    name: Text


class Personality(Op):
    """personality(2)."""

    persona: Flags


class Rlimit(Op):
    """prlimit64(2) on the calling process."""

    resource: Int
    soft: Int
    hard: Int


class Scheduler(Op):
    """sched_setattr(2) with a struct sched_attr."""

    attributes: Bytes


class IoPriority(Op):
    """ioprio_set(2) on the calling process: class in the high bits, level in the low 13."""

    priority: Int


class Affinity(Op):
    """sched_setaffinity(2): a bit mask of CPUs."""

    mask: Bytes


class MemoryPolicy(Op):
    """set_mempolicy(2): a mode with its flags and a node mask."""

    mode: Flags
    nodes: Bytes
    bits: Int


# ── Namespaces and processes ──


class Clone(Op):
    """clone3(2) with CLONE_PARENT: the plan goes on in the child; this process reports its pid and exits.

    With CLONE_VM the child has a stack of its own in the memory that both share until the exit.

    ``cgroup`` is a slot with a v2 cgroup directory for CLONE_INTO_CGROUP, or -1.
    """

    flags: Flags
    cgroup: Slot = -1


class Unshare(Op):
    """unshare(2)."""

    flags: Flags


class SetNs(Op):
    """setns(2) with a namespace file or a pidfd; flags 0 takes whatever the file is."""

    slot: Slot
    flags: Flags = 0


class UserNamespace(Op):
    """A user namespace without a process, with these maps (user_namespaces(7)): an id map for SetMountAttributes."""

    into: Slot
    uids: Text
    gids: Text


class SetHostname(Op):
    """sethostname(2)."""

    name: Text


class SetDomainname(Op):
    """setdomainname(2)."""

    name: Text


class LoopbackUp(Op):
    """SIOCSIFFLAGS: the loopback interface of a new network namespace comes up."""


class Netlink(Op):
    """One rtnetlink(7) request in this network namespace; its answer is the step's.

    A request for an object that is there is answered by EEXIST.
    """

    request: Bytes


# ── Meeting points ──


class Await(Op):
    """Report the meeting point and wait for the word to go on.

    Handles that come with the word go into the slots from ``into`` on; its text is kept for ``Hook``.
    With ``listener`` >= 0 (a listening socket), the word may also come from a process that connects there,
    which then takes the place of the creator: that is how ``create`` and ``start`` are two programs.
    A creator that goes away before it has said "keep" ends the container-to-be.
    """

    name: Text
    into: Slot = -1
    listener: Slot = -1


class KeepText(Op):
    """The last meeting point's text is kept for SeccompNotify."""


class SendHandle(Op):
    """Send a slot's handle to the creator (the master of the terminal), and close it here."""

    slot: Slot


class Hook(Op):
    """Run a program to its end with the last meeting point's text (the state, as JSON) on its standard input.

    A non-zero exit is ECHILD, a timeout ETIME. ``timeout`` is in milliseconds, 0 for none.
    A working directory ``cwd`` that is not there is not entered.
    """

    path: Text
    argv: Texts
    env: Texts
    timeout: Int = 0
    cwd: Text = "/"


# ── Files ──


class Open(Op):
    """openat2(2)."""

    into: Slot
    dir: Slot
    path: Text
    flags: Flags
    resolve: Flags = 0
    mode: Int = 0


class Close(Op):
    """close(2)."""

    slot: Slot


class CloseOthers(Op):
    """close_range(2) of all descriptors but the standard streams, the control socket and the slots up to ``last``."""

    last: Int


class Write(Op):
    """write(2) of the whole text to a slot."""

    slot: Slot
    data: Text


class WriteFile(Op):
    """Open an existing file for writing, write the text, close it."""

    dir: Slot
    path: Text
    data: Text


class WriteProc(Op):
    """Write the text to an existing file below /proc of ``root``, which must be the root of a proc file system.

    EXDEV when something else is mounted there or on the way, or a magic link is in it.
    """

    root: Slot
    path: Text
    data: Text


class OpenTarget(Op):
    """Open a place below ``dir`` to be mounted on (O_PATH), and make the parts that are missing.

    Links are followed as if ``dir`` were the root, also to where nothing is yet; magic links are refused.
    ``make`` has bit 0 for a file as the missing last part (else a directory), bit 1 to leave a link there alone,
    bit 2 to refuse a place in a proc file system (EXDEV).
    """

    into: Slot
    dir: Slot
    path: Text
    make: Flags = 0


class CheckFile(Op):
    """fstat(2): the file must be of this type, and this device where it is not 0; else EXDEV."""

    slot: Slot
    type: Int
    device: Int = 0


class Mkdir(Op):
    """mkdirat(2)."""

    dir: Slot
    path: Text
    mode: Int = 0o755


class Mknod(Op):
    """mknodat(2): mode with the file type; device number as makedev(3) gives it."""

    dir: Slot
    path: Text
    mode: Int
    device: Int = 0


class Symlink(Op):
    """symlinkat(2)."""

    target: Text
    dir: Slot
    path: Text


class Unlink(Op):
    """unlinkat(2); flags may be AT_REMOVEDIR."""

    dir: Slot
    path: Text
    flags: Flags = 0


class Chown(Op):
    """fchownat(2); -1 leaves an id alone."""

    dir: Slot
    path: Text
    uid: Int
    gid: Int
    flags: Flags = 0


class Chmod(Op):
    """fchmodat(2)."""

    dir: Slot
    path: Text
    mode: Int


class Duplicate(Op):
    """dup3(2) of a slot to a fixed descriptor number that stays open over exec."""

    slot: Slot
    number: Int


class MoveHandle(Op):
    """Another slot takes the handle of this one."""

    slot: Slot
    into: Slot


# ── Mounts ──


class MakeMount(Op):
    """A detached mount of a new file system: fsopen(2), fsconfig(2) for each option, then create, fsmount(2).

    ``options`` are pairs of key and value; an empty value is an option that has none.
    ``like`` is a slot whose directory's mode the root gets, unless the last OpenTarget has made that directory.
    """

    into: Slot
    type: Text
    options: Texts
    attributes: Flags = 0
    like: Slot = -1


class OpenTree(Op):
    """open_tree(2); with OPEN_TREE_CLONE a detached bind mount."""

    into: Slot
    dir: Slot
    path: Text
    flags: Flags


class MoveMount(Op):
    """move_mount(2) of a slot's mount onto a place."""

    slot: Slot
    dir: Slot
    path: Text
    flags: Flags


class SetMountAttributes(Op):
    """mount_setattr(2): attributes to set and to clear, propagation, and a user namespace slot for id maps."""

    dir: Slot
    path: Text
    flags: Flags
    set: Flags
    clear: Flags = 0
    propagation: Flags = 0
    userns: Slot = -1


class Mount(Op):
    """mount(2), for what the new mount API cannot say on this kernel."""

    source: Text
    target: Text
    type: Text
    flags: Flags
    data: Text


class Unmount(Op):
    """umount2(2)."""

    path: Text
    flags: Flags


class Mask(Op):
    """Hide what is at a path in ``root``: an empty read-only tmpfs over a directory, ``null`` over another file."""

    root: Slot
    path: Text
    null: Slot


class CopyUp(Op):
    """Copy what is in the directory ``dir`` into the detached mount in ``slot``: content, owners, modes."""

    dir: Slot
    slot: Slot


class FchDir(Op):
    """fchdir(2)."""

    slot: Slot


class ChDir(Op):
    """chdir(2)."""

    path: Text


class CheckCwd(Op):
    """getcwd(2) must give a path under the root, or ENOENT: a working directory outside is CVE-2024-21626."""


class CheckRoot(Op):
    """Nothing may be mounted over the root (statx(2) of ``/`` and ``/..``): EXDEV when something is."""


class PivotRoot(Op):
    """pivot_root(2)."""

    new: Text
    old: Text


class ChRoot(Op):
    """chroot(2)."""

    path: Text


# ── Terminal ──


class OpenTerminal(Op):
    """Open /dev/pts/ptmx below ``dir`` (RESOLVE_IN_ROOT), unlock it, get the other side (TIOCGPTPEER), set its size.

    EXDEV when that is not the multiplexer of a devpts.
    ``relayed``: what is written comes out on another terminal, which adds the carriage returns; this one shall not.
    """

    master: Slot
    slave: Slot
    dir: Slot
    path: Text
    columns: Int = 0
    rows: Int = 0
    relayed: Int = 0


class ControllingTerminal(Op):
    """TIOCSCTTY: the terminal becomes the session's, and standard input, output and error."""

    slot: Slot


# ── Credentials ──


class BoundingSet(Op):
    """prctl(PR_CAPBSET_DROP) for every capability that is not in the mask, up to ``last``."""

    keep: Flags
    last: Int


class CapSet(Op):
    """capset(2)."""

    effective: Flags
    permitted: Flags
    inheritable: Flags


class AmbientSet(Op):
    """prctl(PR_CAP_AMBIENT): clear all, then raise those in the mask."""

    raised: Flags
    last: Int


class SetGroups(Op):
    """setgroups(2): an array of 32-bit group ids."""

    groups: Bytes


class SetIds(Op):
    """setresgid(2), then setresuid(2), real, effective and saved alike."""

    uid: Int
    gid: Int


class Seccomp(Op):
    """seccomp(SECCOMP_SET_MODE_FILTER) with an array of struct sock_filter; a listener goes into a slot or -1."""

    flags: Flags
    filter: Bytes
    into: Slot = -1


class SeccompNotify(Op):
    """As Seccomp, with a listener (SECCOMP_FILTER_FLAG_NEW_LISTENER) that is sent to ``agent`` with the text kept.

    A thread that is not under the filter sends it: no call is made under it before the agent can answer.
    """

    flags: Flags
    filter: Bytes
    agent: Slot


# ── The end ──


class FindProgram(Op):
    """Choose the first candidate that is a regular file which this process may execute.

    EACCES when there was only a file that may not be executed, EISDIR for a directory, else ENOENT.
    """

    candidates: Texts


class Exec(Op):
    """execve(2) of the program that ``FindProgram`` chose."""

    argv: Texts
    env: Texts


def declaration() -> str:
    """The vocabulary as text: what ``FINGERPRINT`` is a hash of."""
    return repr([(op.NAME, op.DECLARED) for op in OPS])


# 64 bits of the declaration, as a remainder by a prime: importing hashlib would cost the cold path a millisecond.
FINGERPRINT = int.from_bytes(declaration().encode(), "big") % ((1 << 64) - 59)
