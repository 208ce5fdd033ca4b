"""What the passes share: the spec, the host, and the plan as it grows."""

from boxship.errors import InvalidArgument
from boxship.libcontainer.plan.ops import CWD, Await, MoveHandle, Op, Open, OpenTarget
from boxship.linux.abi.mount import O_PATH, RESOLVE_IN_ROOT
from boxship.linux.abi.process import NAMESPACES

# OpenTarget's kinds.
TARGET_FILE, TARGET_NO_FOLLOW, TARGET_NOT_PROC = 1, 2, 4

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from boxship.libcontainer.host import Host

    from .options import Options


class MappedSource:
    """What the creator needs to map the ids of a source: the maps, or the path of a user namespace that has them."""

    __slots__ = ("gids", "joined", "map_all", "recursive", "uids", "what")

    def __init__(self, what: str, uids: str, gids: str, joined: str, *, recursive: bool, map_all: bool) -> None:
        self.what = what
        self.uids = uids
        self.gids = gids
        self.joined = joined
        self.recursive = recursive
        self.map_all = map_all


class Plan:
    """A list of operations, and what each stretch of it is for.

    ``purposes`` are (index of the first operation, text), in order; ``notes`` are what a person should know about
    how the spec was carried out (a limit that was clamped).
    ``nodes_first``: the devices are made before the cgroups are entered.
    ``mapped_sources`` are the meeting points at which the creator maps the ids of a source that earlier mounts made.
    ``encoded`` are (first operation, the one behind the last, bytes) of stretches that need not be encoded any more.
    """

    __slots__ = ("encoded", "mapped_sources", "nodes_first", "notes", "ops", "purposes")

    def __init__(self) -> None:
        self.nodes_first = True
        self.encoded: list[tuple[int, int, bytes]] = []
        self.mapped_sources: dict[str, MappedSource] = {}
        self.ops: list[Op] = []
        self.purposes: list[tuple[int, str]] = []
        self.notes: list[str] = []

    def meetings(self, first: int = 0) -> "list[Await]":
        """The meeting points with the creator, from the operation at index ``first`` on."""
        # Not by isinstance, which for a hundred operations is a call of ours each (ops.Kind).
        return [op for op in self.ops[first:] if op[0] is Await]  # type: ignore[index, misc]

    def purpose(self, step: int) -> str:
        """What the operation at index ``step`` is for."""
        text = ""
        for first, purpose in self.purposes:
            if first > step:
                break
            text = purpose
        return text


class Request:
    """All that a plan is made from, besides the host.

    ``rootfs`` is an absolute host path, used when ``rootfs_mounts`` is empty.
    ``tasks`` is the number of cgroup v1 tasks files to write to, which the creator hands over open;
    ``cgroup`` is the v2 directory to be cloned into, or "".
    ``cgroup_paths`` are the container's cgroup directories by controller.
    ``stdio_owners`` are descriptors 0 to 2 that shall belong to the process's user.
    ``preserve_fds`` counts descriptors that the creator sends with the plan, after the listening socket.
    ``cache`` is a directory for compiled seccomp filters, or "".
    ``home`` is the user's home directory, for HOME where process.env has none.
    """

    __slots__ = (
        "bundle",
        "cache",
        "cgroup",
        "cgroup_paths",
        "columns",
        "home",
        "id",
        "new_keyring",
        "no_pivot",
        "preserve_fds",
        "relayed",
        "rootfs",
        "rootfs_mounts",
        "rows",
        "spec",
        "stdio_owners",
        "tasks",
        "terminal",
    )

    def __init__(
        self,
        spec: "dict[str, Any]",
        *,
        id: str = "",
        bundle: str = "",
        rootfs: str = "",
        rootfs_mounts: "Sequence[tuple[str, str, Sequence[str]]]" = (),
        tasks: int = 0,
        cgroup: str = "",
        cgroup_paths: "dict[str, str] | None" = None,
        terminal: bool = False,
        columns: int = 0,
        rows: int = 0,
        relayed: bool = False,
        stdio_owners: "Sequence[int]" = (),
        preserve_fds: int = 0,
        no_pivot: bool = False,
        new_keyring: bool = True,
        cache: str = "",
        home: str = "",
    ) -> None:
        self.spec = spec
        self.id = id
        self.bundle = bundle
        self.rootfs = rootfs
        self.rootfs_mounts = rootfs_mounts
        self.tasks = tasks
        self.cgroup = cgroup
        self.cgroup_paths = cgroup_paths or {}
        self.terminal = terminal
        self.columns = columns
        self.rows = rows
        self.relayed = relayed
        self.stdio_owners = stdio_owners
        self.preserve_fds = preserve_fds
        self.no_pivot = no_pivot
        self.new_keyring = new_keyring
        self.cache = cache
        self.home = home


class Context:
    """The state of one compilation; a pass reads ``spec`` and appends to the plan."""

    def __init__(self, request: Request, host: "Host") -> None:
        self.request = request
        self.host = host
        self.spec = request.spec
        self.linux: dict[str, Any] = self.spec.get("linux") or {}
        self.process: dict[str, Any] = self.spec.get("process") or {}
        self.plan = Plan()
        self.add = self.plan.ops.append
        self.slots = 0
        self.created: dict[str, int] = {}
        self.joined: dict[str, str] = {}
        for namespace in self.linux.get("namespaces") or ():
            kind = namespace.get("type")
            if kind not in NAMESPACES:
                raise InvalidArgument(f"linux.namespaces: unknown type {kind!r}")
            if kind in self.created or kind in self.joined:
                raise InvalidArgument(f"linux.namespaces: {kind} is there twice")
            if namespace.get("path"):
                self.joined[kind] = namespace["path"]
            else:
                self.created[kind] = NAMESPACES[kind]
        self.userns = "user" in self.created or "user" in self.joined
        # Which side of the clone looks host files up: root does it first, in the creator's own namespaces,
        # so that a user namespace need not reach them; without root only the new namespace allows mounts.
        self.privileged = host.user == 0 and host.may(21)
        self.unshared: list[str] = []  # the new namespaces that were made before the clone

    def number_slots(self) -> None:
        """Slots with a fixed meaning, and what passes leave for later ones; the request is complete now."""
        request = self.request
        self.listener = self.slot()
        self.preserved = self.slots
        self.slots += request.preserve_fds
        self.tasks = self.slots  # the first of them
        self.slots += request.tasks
        self.root = self.slot()
        self.scratch = self.slot()
        self.target = self.slot()
        self.tree = self.slot()
        self.null = self.slot()
        self.rootfs_slots: list[int] = []
        self.legacy_rootfs: list[tuple[int, str, str, list[str]]] = []
        self.bind_sources: dict[int, int] = {}
        self.mount_id_maps: dict[int, int] = {}
        self.mapped_sources: dict[int, MappedSource] = {}  # those that the creator maps, by index
        self.inner_sources: dict[int, str] = {}  # sources that are places of the container, by index
        self.read_only_later: list[int] = []
        self.id_maps: dict[tuple[str, str], int] = {}
        self.device_sources: dict[str, int] = {}
        self.device_nodes = -1
        self.on_old_root = True  # the root file system is attached there, not at its path
        self.over_old_root = 0  # mounts that lie on the old root and are not the new one
        self.entered_cgroups = False
        self.cgroups_mounted = False
        self.later: list[tuple[str, Options]] = []  # mounts of cgroups that nothing depends on
        self.cgroup_slot = -1
        self.mount_namespace = -1
        # Others are in the mount namespace, too: then nothing but the root's own mounts may be changed.
        self.shares_mounts = "mount" not in self.created
        self.slave = -1
        self.dev = -1
        # The seccomp filter (flags, instructions), and the capabilities to keep once it is loaded.
        self.agent = -1
        self.seccomp: tuple[int, bytes] | None = None
        self.no_new_privileges = False
        self.final_capabilities: tuple[int, int, int] | None = None
        # What a plan for the same configuration can take over (again.py).
        self.fresh_passes: list[tuple[tuple[int, int], tuple[int, int], Callable[[Context], None]]] = []
        self.asked: list[tuple[str, bool, str]] = []
        self.only_once = False

    def slot(self) -> int:
        self.slots += 1
        return self.slots - 1

    def keep(self, slot: int) -> int:
        """A slot of its own for a handle whose slot is used again."""
        kept = self.slot()
        self.add(MoveHandle(slot, kept))
        return kept

    def purpose(self, text: str) -> None:
        """What the operations from here on are for: it becomes part of an error's address."""
        self.plan.purposes.append((len(self.plan.ops), text))

    def note(self, text: str) -> None:
        self.plan.notes.append(text)

    # ── For plans of the same configuration (again.py) ──

    def fresh(self, run: "Callable[[Context], None]") -> None:
        """A pass for what is this container's own: its id, program, environment, the paths of its cgroups.

        No other pass reads those; and this one reads nothing else of the context, as it is run alone next time.
        """
        first = len(self.plan.ops), len(self.plan.purposes)
        run(self)
        self.fresh_passes.append((first, (len(self.plan.ops), len(self.plan.purposes)), run))

    def path_kind(self, path: str, *, follow: bool = True) -> str:
        """`Host.path_kind` of a path that may be something else next time."""
        kind = self.host.path_kind(path, follow=follow)
        self.asked.append((path, follow, kind))
        return kind

    @property
    def host_now(self) -> "Host":
        """The host, asked for what may be otherwise next time: then the plan is for this container only."""
        self.only_once = True
        return self.host

    # ── Lookups inside the rootfs: always from its descriptor, never by joining strings ──

    def open_in_root(self, into: int, path: str, flags: int = O_PATH, tolerate: "tuple[int, ...]" = ()) -> None:
        self.add(Open(into, self.root, path or ".", flags, RESOLVE_IN_ROOT, 0, tolerate=tolerate))

    def dev_slot(self) -> int:
        """A slot with /dev of the container, after its mounts were made."""
        if self.dev < 0:
            self.dev = self.slot()
            # An image whose /dev is a link would have its devices made somewhere else.
            self.add(OpenTarget(self.dev, self.root, "dev", TARGET_NO_FOLLOW))
        return self.dev


def clean(path: str) -> str:
    """An absolute path of the container, relative to its root, without ``.``, ``..`` and doubled slashes."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


__all__ = ["CWD", "Context", "Plan", "Request", "clean"]
