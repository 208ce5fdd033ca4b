"""The same container again: of a plan that this process has made before only what is its own is compiled.

A program that runs one configuration many times (tests, functions, jobs) has nearly the same plan each time: behind
the clone it differs by the id, the cgroups' paths, the program and its environment, and by nothing else.
The passes that put those in are marked (``Context.fresh``) and run for each container; what lies between them is
kept, as operations and as the bytes that the executor reads.

What is kept is found by all that those passes read: the configuration without the program's arguments and environment
(byte by byte, so that ``true`` is not ``1``), the request without what is the container's own, and how far the plan
has come.
What a pass has asked the host is asked again (``Context.path_kind``); where the answer cannot be compared nothing is
kept (``Context.only_once``).
A test compiles each kind of configuration both ways and compares (tests/unit/test_plans_again.py).
"""

from marshal import dumps

from boxship.libcontainer.plan import codec

from .context import Context, Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from boxship.libcontainer.host import Host
    from boxship.libcontainer.plan.ops import Op

MOST = 16
"""Configurations that are kept, some 60 KB each; the one that was not used for longest goes first."""


class Stretch:
    """Part of a plan: operations, what they are for (counted from the first of them), and their bytes."""

    __slots__ = ("data", "ops", "purposes")

    def __init__(self, plan: Plan, first: "tuple[int, int]", end: "tuple[int, int]") -> None:
        self.ops: list[Op] = plan.ops[first[0] : end[0]]
        self.purposes = [(index - first[0], text) for index, text in plan.purposes[first[1] : end[1]]]
        self.data = codec.encode(self.ops, last=False)

    def append_to(self, plan: Plan) -> None:
        begin = len(plan.ops)
        if self.ops:
            plan.ops += self.ops
            plan.encoded.append((begin, len(plan.ops), self.data))
        plan.purposes += [(begin + index, text) for index, text in self.purposes]


class Kept:
    """All that a plan has behind the clone."""

    __slots__ = ("asked", "host", "mapped_sources", "nodes_first", "notes", "parts")

    def __init__(self, c: Context, begin: "tuple[int, int]") -> None:
        plan = c.plan
        self.host: Host = c.host
        self.asked = c.asked
        self.notes = list(plan.notes)
        self.nodes_first = plan.nodes_first
        self.mapped_sources = plan.mapped_sources
        self.parts: list[Stretch | Callable[[Context], None]] = []
        for first, end, run in c.fresh_passes:
            self.parts += (Stretch(plan, begin, first), run)
            begin = end
        self.parts.append(Stretch(plan, begin, (len(plan.ops), len(plan.purposes))))

    def append_to(self, c: Context) -> None:
        for part in self.parts:
            if isinstance(part, Stretch):
                part.append_to(c.plan)
            else:
                part(c)
        c.plan.notes += [text for text in self.notes if text not in c.plan.notes]
        c.plan.nodes_first = self.nodes_first
        c.plan.mapped_sources = self.mapped_sources


_kept: "dict[bytes, Kept | None]" = {}
"""By key, in the order of their last use; None for a configuration that was seen once: most are not seen again."""


class Memory:
    """What a compilation that has come to the clone knows of earlier ones."""

    def __init__(self, c: Context) -> None:
        self._begin = len(c.plan.ops), len(c.plan.purposes)
        self._key = _key(c)
        self._seen = self._key in _kept

    def recall(self, c: Context) -> "Kept | None":
        """What completes the plan, if it is kept."""
        kept = _kept.pop(self._key, None)
        if kept is None or kept.host is not c.host:
            return None
        if any(c.host.path_kind(path, follow=follow) != kind for path, follow, kind in kept.asked):
            return None
        _kept[self._key] = kept
        return kept

    def remember(self, c: Context) -> None:
        """Keep the plan that was compiled, if its like was seen before and all that it depends on is known."""
        if not self._key or c.only_once:
            return
        _kept[self._key] = Kept(c, self._begin) if self._seen else None
        while len(_kept) > MOST:
            try:
                del _kept[next(iter(_kept))]
            except (KeyError, StopIteration, RuntimeError):
                return  # another thread was faster


def _key(c: Context) -> bytes:
    """All that the passes behind the clone read; empty where that is not plain data."""
    request = c.request
    process = {name: value for name, value in c.process.items() if name not in ("args", "env")}
    try:
        return dumps(
            (
                {**c.spec, "process": process},
                request.bundle,
                request.rootfs,
                [(type, source, list(options)) for type, source, options in request.rootfs_mounts],
                request.tasks,
                bool(request.cgroup),
                request.terminal,
                request.columns,
                request.rows,
                request.relayed,
                list(request.stdio_owners),
                request.preserve_fds,
                request.no_pivot,
                request.new_keyring,
                request.cache,
                len(c.plan.ops),
                c.slots,
            ),
            2,
        )
    except (ValueError, AttributeError):
        return b""  # subclasses of dict and the like: compiled each time
