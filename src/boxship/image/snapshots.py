"""The overlayfs snapshotter: layers as directories, containers as thin writable ones on top.

Terms (containerd, docs/content-flow.md): a snapshot is *active* (writable, named by a key), a *view* (read-only,
a key) or *committed* (never changes, named by a name, can be a parent). ``prepare`` and ``view`` make the first
two on a committed parent, ``commit`` turns an active one into a committed one under a new name. Who mounts is
not decided here: `mounts` says how. A snapshot's directories are ``snapshots/<number>/fs`` and ``/work``; numbers
keep the overlay's option string short, because the kernel cuts it at 4096 bytes without a word.

Metadata is written before directories appear and forgotten after they are renamed away, so that a crash in
between leaves at most a directory that `cleanup` finds. Names are per namespace.
"""

import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from boxship.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from boxship.image.database import Database
from boxship.image.rooted import describe, remove_tree
from boxship.linux.files import unrelated_subdirectories

_SCHEMA = """
CREATE TABLE IF NOT EXISTS snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    parent INTEGER REFERENCES snapshots(id),
    kind INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    labels TEXT NOT NULL,
    size INTEGER NOT NULL DEFAULT 0,
    inodes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (namespace, name)
);
CREATE INDEX IF NOT EXISTS snapshots_by_parent ON snapshots(parent);
"""
_COLUMNS = "s.id, s.name, s.kind, s.created, s.updated, s.labels, p.name, s.parent, s.size, s.inodes"
_FROM = "FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent"


class Kind(IntEnum):
    """The numbers are the API's."""

    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount(8): what `mounts` answers."""

    type: str
    source: str
    options: "tuple[str, ...]"


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    id: int
    name: str
    kind: Kind
    parent: str
    created_ns: int
    updated_ns: int
    labels: "dict[str, str]"


@dataclass(frozen=True, slots=True)
class Usage:
    """``size`` in bytes on disk."""

    size: int
    inodes: int


class OverlaySnapshotter:
    """Snapshots below ``root``, their metadata in ``database``. Synchronous and thread-safe."""

    name = "overlayfs"

    def __init__(self, root: str, database: Database) -> None:
        self.root = root
        self._directory = os.path.join(root, "snapshots")
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        unrelated_subdirectories(self._directory)
        self._database = database
        database.script(_SCHEMA)

    def prepare(
        self, namespace: str, key: str, parent: str = "", labels: "Mapping[str, str] | None" = None
    ) -> "list[Mount]":
        """A new active snapshot; raises AlreadyExists, NotFound (the parent), InvalidArgument (not committed)."""
        return self._create(namespace, key, parent, labels, Kind.ACTIVE)

    def view(
        self, namespace: str, key: str, parent: str = "", labels: "Mapping[str, str] | None" = None
    ) -> "list[Mount]":
        """A new read-only snapshot; raises as `prepare`."""
        return self._create(namespace, key, parent, labels, Kind.VIEW)

    def mounts(self, namespace: str, key: str) -> "list[Mount]":
        """The mounts of an active snapshot or a view; raises NotFound, FailedPrecondition (committed)."""
        row = self._row(namespace, key)
        if row[2] == Kind.COMMITTED:
            raise FailedPrecondition(f"snapshot {key!r} is committed and cannot be mounted")
        return self._mounts(row[0], Kind(row[2]), self._lowers(row[7]))

    def commit(self, namespace: str, name: str, key: str, labels: "Mapping[str, str] | None" = None) -> None:
        """Turn the active snapshot ``key`` into the committed ``name``; raises AlreadyExists, NotFound,
        FailedPrecondition (not active)."""
        if not name:
            raise InvalidArgument("snapshot name must not be empty")
        row = self._row(namespace, key)
        if row[2] != Kind.ACTIVE:
            raise FailedPrecondition(f"snapshot {key!r} is not active")
        usage = self._measure(row[0])
        now = time.time_ns()
        try:
            self._database.run(
                "UPDATE snapshots SET name=?, kind=?, created=?, updated=?, labels=?, size=?, inodes=? WHERE id=?",
                (name, Kind.COMMITTED, now, now, _json(labels), usage.size, usage.inodes, row[0]),
            )
        except sqlite3.IntegrityError:
            raise AlreadyExists(f"snapshot {name!r}: already exists") from None

    def stat(self, namespace: str, key: str) -> SnapshotInfo:
        return _info(self._row(namespace, key))

    def update(self, namespace: str, name: str, labels: "Mapping[str, str]") -> SnapshotInfo:
        """Replace the labels, which are all that can change."""
        row = self._row(namespace, name)
        now = time.time_ns()
        self._database.run("UPDATE snapshots SET labels=?, updated=? WHERE id=?", (_json(labels), now, row[0]))
        return self.stat(namespace, name)

    def walk(self, namespace: str) -> "list[SnapshotInfo]":
        rows = self._database.rows(f"SELECT {_COLUMNS} {_FROM} WHERE s.namespace=? ORDER BY s.id", (namespace,))
        return [_info(row) for row in rows]

    def usage(self, namespace: str, key: str) -> Usage:
        """Of this snapshot alone, without its parents; measured now unless it is committed."""
        row = self._row(namespace, key)
        return Usage(row[8], row[9]) if row[2] == Kind.COMMITTED else self._measure(row[0])

    def remove(self, namespace: str, key: str, *, defer: bool = False) -> "str | None":
        """Forget the snapshot and delete its directories; raises NotFound, FailedPrecondition (has children).

        With ``defer`` the directories are only moved aside and their path is returned, for the caller to
        `discard` after it has answered: deleting a thousand files takes ten milliseconds.
        """
        with self._database.transaction():
            row = self._row(namespace, key)
            if self._database.row("SELECT 1 FROM snapshots WHERE parent=?", (row[0],)):
                raise FailedPrecondition(f"cannot remove snapshot {key!r} with children")
            self._database.run("DELETE FROM snapshots WHERE id=?", (row[0],))
        path = self._path(row[0])
        aside = os.path.join(self._directory, f"rm-{row[0]}")
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return None
        if defer:
            return aside
        self.discard(aside)
        return None

    def discard(self, aside: str) -> None:
        """Delete what `remove` moved aside. Idempotent."""
        remove_tree(aside)

    def cleanup(self) -> int:
        """Delete directories that no snapshot owns (left by a crash); returns how many."""
        names = os.listdir(self._directory)  # first, so that one being prepared is known when it is seen
        known = {str(row[0]) for row in self._database.rows("SELECT id FROM snapshots")}
        strays = [name for name in names if name not in known]
        for name in strays:
            remove_tree(os.path.join(self._directory, name))
        return len(strays)

    def layer_directory(self, namespace: str, key: str) -> str:
        """The directory that holds this snapshot's own files, whatever its kind."""
        return os.path.join(self._path(self._row(namespace, key)[0]), "fs")

    def lower_directories(self, namespace: str, key: str) -> "list[str]":
        """The directories of the parents, topmost first."""
        return self._lowers(self._row(namespace, key)[7])

    # -- inside

    def _create(
        self, namespace: str, key: str, parent: str, labels: "Mapping[str, str] | None", kind: Kind
    ) -> "list[Mount]":
        if not key:
            raise InvalidArgument("snapshot key must not be empty")
        parent_id: "int | None" = None
        with self._database.transaction():
            if parent:
                above = self._row(namespace, parent)
                if above[2] != Kind.COMMITTED:
                    raise InvalidArgument(f"parent snapshot {parent!r} is not committed")
                parent_id = above[0]
            now = time.time_ns()
            try:
                number = self._database.insert(
                    "INSERT INTO snapshots (namespace, name, parent, kind, created, updated, labels)"
                    " VALUES (?,?,?,?,?,?,?)",
                    (namespace, key, parent_id, kind, now, now, _json(labels)),
                )
            except sqlite3.IntegrityError:
                raise AlreadyExists(f"snapshot {key!r}: already exists") from None
            lowers = self._lowers(parent_id)
            self._make_directories(number, kind, lowers)
        return self._mounts(number, kind, lowers)

    def _make_directories(self, number: int, kind: Kind, lowers: Sequence[str]) -> None:
        path = self._path(number)
        try:
            os.mkdir(path, 0o700)
            upper = os.path.join(path, "fs")
            os.mkdir(upper, 0o755)
            if kind is Kind.ACTIVE:
                os.mkdir(os.path.join(path, "work"), 0o711)
            if lowers:
                # The overlay's root has the upper directory's attributes: they must be those of the image's root.
                below = os.stat(lowers[0])
                os.chown(upper, below.st_uid, below.st_gid)
                os.chmod(upper, stat.S_IMODE(below.st_mode))
        except OSError as error:
            if os.path.isdir(path):
                remove_tree(path)
            raise describe(error, f"cannot make the directories of snapshot {number}") from error

    def _row(self, namespace: str, key: str) -> "tuple[Any, ...]":
        row = self._database.row(f"SELECT {_COLUMNS} {_FROM} WHERE s.namespace=? AND s.name=?", (namespace, key))
        if row is None:
            raise NotFound(f"snapshot {key!r}: not found")
        return row

    def _lowers(self, number: "int | None") -> "list[str]":
        rows = self._database.rows(
            "WITH RECURSIVE chain(id, parent, depth) AS ("
            " SELECT id, parent, 0 FROM snapshots WHERE id=?"
            " UNION ALL SELECT s.id, s.parent, c.depth+1 FROM snapshots s JOIN chain c ON s.id=c.parent)"
            " SELECT id FROM chain ORDER BY depth",
            (number,),
        )
        return [os.path.join(self._path(row[0]), "fs") for row in rows]

    def _mounts(self, number: int, kind: Kind, lowers: Sequence[str]) -> "list[Mount]":
        path = self._path(number)
        if not lowers:
            return [Mount("bind", os.path.join(path, "fs"), ("ro" if kind is Kind.VIEW else "rw", "rbind"))]
        if kind is Kind.VIEW and len(lowers) == 1:
            return [Mount("bind", lowers[0], ("ro", "rbind"))]
        lower = "lowerdir=" + ":".join(lowers)
        if kind is Kind.VIEW:
            return [Mount("overlay", "overlay", (lower,))]
        return [
            Mount(
                "overlay",
                "overlay",
                # index=off: a lower directory that was once mounted with an index could not be mounted again.
                ("index=off", f"workdir={path}/work", f"upperdir={path}/fs", lower),
            )
        ]

    def _path(self, number: int) -> str:
        return os.path.join(self._directory, str(number))

    def _measure(self, number: int) -> Usage:
        size = inodes = 0
        seen: set[int] = set()
        for found in _tree(os.path.join(self._path(number), "fs")):
            if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                if found.st_ino in seen:
                    continue
                seen.add(found.st_ino)
            size += found.st_blocks * 512
            inodes += 1
        return Usage(size, inodes)


def _tree(path: str) -> Iterator[os.stat_result]:
    yield os.lstat(path)
    pending = [path]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except FileNotFoundError:
            continue  # removed while we look: usage of a running container is an estimate
        for entry in entries:
            try:
                yield entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # as above
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)


def _json(labels: "Mapping[str, str] | None") -> str:
    return json.dumps(dict(labels or {}), sort_keys=True)


def _info(row: "tuple[Any, ...]") -> SnapshotInfo:
    return SnapshotInfo(row[0], row[1], Kind(row[2]), row[6] or "", row[3], row[4], json.loads(row[5]))
