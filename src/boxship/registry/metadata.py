"""Who owns which content: one SQLite file beside the blobs.

A *repository* is a name with blobs, manifests and tags; it exists while it has one of them.
A blob's bytes are stored once, however many repositories have it; they may go when no repository has it any more.
A manifest is content too, and has besides what others ask for: its media type, the ``subject`` that it refers to,
and ``needs``, the digests without which it cannot be pulled.

Every change is one transaction: after a kill it is there or it is not, and after `Metadata.sync` it survives a power
cut, too.
Nothing here looks at bytes; whoever adds a row has put the content into the store before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from boxship.image.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS blobs (
    repository TEXT NOT NULL, digest TEXT NOT NULL, created INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS manifests (
    repository TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL,
    subject TEXT NOT NULL, artifact_type TEXT NOT NULL, annotations BLOB NOT NULL, created INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS needs (
    repository TEXT NOT NULL, manifest TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (repository, manifest, digest),
    FOREIGN KEY (repository, manifest) REFERENCES manifests (repository, digest) ON DELETE CASCADE) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tags (
    repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (repository, tag),
    FOREIGN KEY (repository, digest) REFERENCES manifests (repository, digest) ON DELETE CASCADE) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blob_owners ON blobs (digest);
CREATE INDEX IF NOT EXISTS manifest_owners ON manifests (digest);
CREATE INDEX IF NOT EXISTS referrers ON manifests (repository, subject, digest);
CREATE INDEX IF NOT EXISTS needed ON needs (repository, digest);
CREATE INDEX IF NOT EXISTS tagged ON tags (repository, digest);
"""

YOUNG = 60 * 1_000_000_000
"""Nanoseconds for which asking for content again changes no row."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as a repository has it. ``subject`` and ``artifact_type`` are "" where there is none."""

    digest: str
    media_type: str
    size: int
    subject: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] = field(default_factory=dict)


class Metadata:
    """The file at ``path``. Thread-safe; one process at a time (the server's lock sees to that)."""

    def __init__(self, path: str) -> None:
        self._database = Database(path)
        self._database.script(SCHEMA)

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._database.transaction():
            yield

    def sync(self) -> None:
        """Wait until all that was changed is on the disk."""
        self._database.sync()

    # ── Repositories ──

    def repositories(self, last: str = "", limit: int = -1) -> list[str]:
        """Names after ``last``, in order; ``limit`` -1 means all."""
        rows = self._database.rows(
            "SELECT repository FROM manifests WHERE repository > ? UNION"
            " SELECT repository FROM blobs WHERE repository > ? ORDER BY 1 LIMIT ?",
            (last, last, limit),
        )
        return [name for (name,) in rows]

    def exists(self, repository: str) -> bool:
        row = self._database.row(
            "SELECT EXISTS (SELECT 1 FROM manifests WHERE repository = ?)"
            " OR EXISTS (SELECT 1 FROM blobs WHERE repository = ?)",
            (repository, repository),
        )
        return bool(row and row[0])

    # ── Blobs ──

    def has_blob(self, repository: str, digest: str) -> bool:
        return self._some("SELECT 1 FROM blobs WHERE repository = ? AND digest = ?", repository, digest)

    def has_blob_anywhere(self, digest: str) -> bool:
        return self._some("SELECT 1 FROM blobs WHERE digest = ?", digest)

    def add_blob(self, repository: str, digest: str, created: int) -> None:
        with self.transaction():
            self._database.run(
                "INSERT INTO blobs VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET created = excluded.created",
                (repository, digest, created),
            )

    def touch_blob(self, repository: str, digest: str, now: int) -> bool:
        """As if it came now (or in the last minute); whether it is there."""
        self._touch("blobs", repository, digest, now)
        return self.has_blob(repository, digest)

    def touch_manifest(self, repository: str, digest: str, now: int) -> None:
        self._touch("manifests", repository, digest, now)

    def _touch(self, table: str, repository: str, digest: str, now: int) -> None:
        with self.transaction():
            self._database.run(
                f"UPDATE {table} SET created = ?1 WHERE repository = ?2 AND digest = ?3 AND created < ?1 - ?4",
                (now, repository, digest, YOUNG),
            )

    def remove_blob(self, repository: str, digest: str) -> bool:
        """Whether it was there."""
        with self.transaction():
            return bool(
                self._database.run("DELETE FROM blobs WHERE repository = ? AND digest = ?", (repository, digest))
            )

    def unneeded(self, repository: str, before: int) -> list[str]:
        """Blobs of the repository that came before that time (ns) and that none of its manifests needs."""
        rows = self._database.rows(
            "SELECT digest FROM blobs WHERE repository = ? AND created < ? AND NOT EXISTS ("
            " SELECT 1 FROM needs WHERE needs.repository = blobs.repository AND needs.digest = blobs.digest)",
            (repository, before),
        )
        return [digest for (digest,) in rows]

    def owned(self, digest: str) -> bool:
        """Whether any repository has this content, as a blob or as a manifest."""
        return self._some("SELECT 1 FROM blobs WHERE digest = ? UNION SELECT 1 FROM manifests WHERE digest = ?",
                          digest, digest)  # fmt: skip

    # ── Manifests ──

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        """By digest or by tag."""
        wanted = "?2" if ":" in reference else "(SELECT digest FROM tags WHERE repository = ?1 AND tag = ?2)"
        row = self._database.row(
            "SELECT digest, media_type, size, subject, artifact_type, annotations FROM manifests"
            f" WHERE repository = ?1 AND digest = {wanted}",
            (repository, reference),
        )
        return _manifest(row) if row else None

    def add_manifest(
        self, repository: str, manifest: Manifest, needs: Iterable[str], tags: Iterable[str], created: int
    ) -> None:
        """The manifest, with the tags that shall mean it from now on."""
        with self.transaction():
            self._database.run(
                "INSERT INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET media_type = excluded.media_type, created = excluded.created",
                (
                    repository, manifest.digest, manifest.media_type, manifest.size, manifest.subject,
                    manifest.artifact_type, msgspec.json.encode(manifest.annotations), created,
                ),
            )  # fmt: skip
            for digest in needs:
                self._database.run(
                    "INSERT OR IGNORE INTO needs VALUES (?, ?, ?)", (repository, manifest.digest, digest)
                )
            for tag in tags:
                self._database.run(
                    "INSERT INTO tags VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET digest = excluded.digest",
                    (repository, tag, manifest.digest),
                )

    def remove_manifest(self, repository: str, digest: str) -> bool:
        """Whether it was there; its tags go with it."""
        with self.transaction():
            return bool(
                self._database.run("DELETE FROM manifests WHERE repository = ? AND digest = ?", (repository, digest))
            )

    def untagged(self, repository: str, before: int) -> list[str]:
        """Manifests that came before that time (ns), that no tag means, no index names, and that refer to none."""
        rows = self._database.rows(
            "SELECT digest FROM manifests WHERE repository = ? AND created < ? AND subject = '' AND NOT EXISTS ("
            " SELECT 1 FROM tags WHERE tags.repository = manifests.repository AND tags.digest = manifests.digest)"
            " AND NOT EXISTS (SELECT 1 FROM needs"
            " WHERE needs.repository = manifests.repository AND needs.digest = manifests.digest)",
            (repository, before),
        )
        return [digest for (digest,) in rows]

    def orphaned(self, repository: str, before: int) -> list[str]:
        """Referrers from before that time whose subject the repository does not have, and that no tag means."""
        rows = self._database.rows(
            "SELECT digest FROM manifests WHERE repository = ?1 AND created < ?2 AND subject != ''"
            " AND subject NOT IN (SELECT digest FROM manifests WHERE repository = ?1)"
            " AND digest NOT IN (SELECT digest FROM tags WHERE repository = ?1)",
            (repository, before),
        )
        return [digest for (digest,) in rows]

    def referrers(self, repository: str, subject: str, artifact_type: str, last: str) -> list[Manifest]:
        """Manifests with that subject, by digest, after ``last``; ``artifact_type`` "" means all."""
        rows = self._database.rows(
            "SELECT digest, media_type, size, subject, artifact_type, annotations FROM manifests"
            " WHERE repository = ?1 AND subject = ?2 AND digest > ?3 AND (?4 = '' OR artifact_type = ?4)"
            " ORDER BY digest",
            (repository, subject, last, artifact_type),
        )
        return [_manifest(row) for row in rows]

    # ── Tags ──

    def tags(self, repository: str, last: str = "", limit: int = -1) -> list[str]:
        """Tags after ``last``, in the order of their bytes; ``limit`` -1 means all."""
        rows = self._database.rows(
            "SELECT tag FROM tags WHERE repository = ? AND tag > ? ORDER BY tag LIMIT ?", (repository, last, limit)
        )
        return [tag for (tag,) in rows]

    def remove_tag(self, repository: str, tag: str) -> bool:
        """Whether it was there."""
        with self.transaction():
            return bool(self._database.run("DELETE FROM tags WHERE repository = ? AND tag = ?", (repository, tag)))

    def _some(self, statement: str, *values: str) -> bool:
        return self._database.row(statement, values) is not None


def _manifest(row: tuple[object, ...]) -> Manifest:
    digest, media_type, size, subject, artifact_type, annotations = row
    assert isinstance(size, int)
    assert isinstance(annotations, bytes)
    return Manifest(
        str(digest), str(media_type), size, str(subject), str(artifact_type),
        msgspec.json.decode(annotations, type=dict[str, str]),
    )  # fmt: skip
