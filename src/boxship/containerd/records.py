"""The metadata of containerd: encoded messages by kind, namespace and name, in one SQLite file.

A record is the API's own message as it was sent, so unknown fields of a newer client survive. Creating one
makes its namespace, as in containerd. Labels whose value is empty are dropped when written.
"""

import asyncio
import json
import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from boxship.errors import AlreadyExists, InvalidArgument, NotFound
from boxship.image.database import Database
from boxship.protobuf import FieldMask, Message, Timestamp

SCHEMA = """
CREATE TABLE IF NOT EXISTS namespaces (name TEXT PRIMARY KEY, labels TEXT NOT NULL DEFAULT '{}') WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS content (
    namespace TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    created INTEGER NOT NULL, updated INTEGER NOT NULL, labels TEXT NOT NULL,
    PRIMARY KEY (namespace, digest)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease_resources (
    namespace TEXT NOT NULL, lease TEXT NOT NULL, type TEXT NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (namespace, lease, type, id)
) WITHOUT ROWID;
"""

# containerd, pkg/identifiers: what may name a namespace or a container, because it becomes part of paths.
_IDENTIFIER = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_IDENTIFIER_LIMIT = 76
_LABEL_LIMIT = 4096

M = TypeVar("M", bound=Message)


class Records(Generic[M]):
    """The records of one kind, all of message class ``cls``; ``word`` names a thing in errors."""

    def __init__(self, database: Database, kind: str, word: str, cls: "type[M]") -> None:
        self._database = database
        self._kind = kind
        self._word = word
        self._cls = cls

    def get(self, namespace: str, name: str) -> M:
        """Raises NotFound."""
        row = self._database.row(
            "SELECT record FROM records WHERE kind=? AND namespace=? AND name=?",
            (self._kind, namespace, name),
        )
        if row is None:
            raise NotFound(f"{self._word} {name!r}: not found")
        return self._cls.decode(row[0])

    def list(self, namespace: "str | None" = None) -> "list[M]":
        """All of a namespace, or of every namespace, by name."""
        if namespace is None:
            rows = self._database.rows(
                "SELECT record FROM records WHERE kind=? ORDER BY namespace, name", (self._kind,)
            )
        else:
            rows = self._database.rows(
                "SELECT record FROM records WHERE kind=? AND namespace=? ORDER BY name",
                (self._kind, namespace),
            )
        return [self._cls.decode(row[0]) for row in rows]

    async def create(self, namespace: str, name: str, record: M, *, durable: bool = True) -> None:
        """Raises AlreadyExists. A ``durable`` record survives a power cut when this returns."""
        with self._database.transaction():
            ensure_namespace(self._database, namespace)
            try:
                self._database.run(
                    "INSERT INTO records (kind, namespace, name, record) VALUES (?,?,?,?)",
                    (self._kind, namespace, name, record.encode()),
                )
            except sqlite3.IntegrityError:
                raise AlreadyExists(f"{self._word} {name!r}: already exists") from None
        if durable:
            await asyncio.to_thread(self._database.sync)

    async def replace(self, namespace: str, name: str, record: M) -> None:
        """Durable as `create`."""
        self._database.run(
            "UPDATE records SET record=? WHERE kind=? AND namespace=? AND name=?",
            (record.encode(), self._kind, namespace, name),
        )
        await asyncio.to_thread(self._database.sync)

    def delete(self, namespace: str, name: str) -> None:
        """Raises NotFound."""
        if not self._database.run(
            "DELETE FROM records WHERE kind=? AND namespace=? AND name=?", (self._kind, namespace, name)
        ):
            raise NotFound(f"{self._word} {name!r}: not found")


def ensure_namespace(database: Database, namespace: str) -> None:
    check_identifier(namespace, "namespace")
    database.run("INSERT OR IGNORE INTO namespaces (name) VALUES (?)", (namespace,))


def check_identifier(text: str, what: str) -> None:
    """Raises InvalidArgument; what passes is safe as one component of a path."""
    if not text:
        raise InvalidArgument(f"{what} must not be empty")
    if len(text) > _IDENTIFIER_LIMIT:
        raise InvalidArgument(f"{what} {text!r} greater than maximum length ({_IDENTIFIER_LIMIT} characters)")
    if not _IDENTIFIER.fullmatch(text):
        raise InvalidArgument(f"{what} {text!r} must match {_IDENTIFIER.pattern}")


def check_labels(labels: Mapping[str, str]) -> "dict[str, str]":
    """The labels to store; raises InvalidArgument when a key with its value is too long."""
    for key, value in labels.items():
        if len(key) + len(value) > _LABEL_LIMIT:
            raise InvalidArgument(
                f"label key and value length ({len(key) + len(value)} bytes) greater than maximum size"
                f" ({_LABEL_LIMIT} bytes), key: {key[:64]}"
            )
    return {key: value for key, value in labels.items() if value}


def masked_labels(current: Mapping[str, str], wanted: Mapping[str, str], paths: Sequence[str]) -> "dict[str, str]":
    """The labels after an update whose mask has ``labels`` or ``labels.<key>`` paths."""
    if "labels" in paths:
        return check_labels(wanted)
    labels = dict(current)
    for path in paths:
        if path.startswith("labels."):
            key = path.removeprefix("labels.")
            labels[key] = wanted.get(key, "")
    return check_labels(labels)


def mask_paths(mask: "FieldMask | None") -> "list[str]":
    return list(mask.paths) if mask is not None else []


def encode_labels(labels: Mapping[str, str]) -> str:
    return json.dumps(dict(labels), sort_keys=True)


def decode_labels(text: str) -> "dict[str, str]":
    return json.loads(text)  # type: ignore[no-any-return]  # written by encode_labels


def now() -> Timestamp:
    return Timestamp.from_ns(time.time_ns())
