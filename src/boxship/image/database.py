"""One SQLite file for metadata: small, transactional, safe against kill -9 at any point.

WAL with synchronous=NORMAL survives a killed process at 0.03 ms a write. What must also survive a power cut is
followed by `Database.sync`, which makes everything durable that was committed before, because the log is sequential
(sqlite.org, wal.html and PRAGMA synchronous). Both kinds of waiting for the disk, the log's and that of folding it
into the database, are there and not in a commit: while gigabytes are being written a single fsync takes seconds, and
nobody who only reads may wait for it.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from boxship.errors import DataLoss, ResourceExhausted
from boxship.image.rooted import describe, fsync_directory

FOLDED_AT = 4 << 20
"""Bytes of log after which it is folded into the database."""


class Database:
    """One connection, shared by threads under a lock, and one for folding the log in. Transactions nest: only the
    outermost commits.

    Close it when done; closing twice is fine. A transaction holds the lock, so nothing slow belongs inside.
    """

    def __init__(self, path: str) -> None:
        os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
        self._path = path
        self._lock = threading.RLock()
        self._depth = 0
        self._syncing = threading.Lock()
        self._folding: "sqlite3.Connection | None" = None
        self._directory_synced = False
        try:
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute("PRAGMA foreign_keys=ON")
            self._connection.execute("PRAGMA busy_timeout=5000")
            self._connection.execute("PRAGMA wal_autocheckpoint=0")
        except sqlite3.DatabaseError as error:
            raise DataLoss(f"cannot open the metadata {path}", cause=str(error)) from error

    def close(self) -> None:
        with self._syncing, self._lock:
            if self._folding is not None:
                self._folding.close()
            self._connection.close()

    def sync(self) -> None:
        """Make all that is committed survive a power cut; waits for the disk, so call it in a worker thread.

        Raises ResourceExhausted, Internal (the disk is broken).
        """
        try:
            # Closing a descriptor of the log takes no lock of SQLite's away: those are on the -shm file.
            fd = os.open(self._path + "-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # nothing was written since it was folded in
        try:
            os.fsync(fd)
            size = os.fstat(fd).st_size
            if not self._directory_synced:
                fsync_directory(os.path.dirname(self._path))
                self._directory_synced = True
        except OSError as error:
            raise describe(error, f"cannot write the metadata {self._path} to the disk") from error
        finally:
            os.close(fd)
        if size > FOLDED_AT and self._syncing.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._syncing.release()

    def _fold(self) -> None:
        """The log into the database, beside readers and writers (PRAGMA wal_checkpoint, PASSIVE)."""
        if self._folding is None:
            self._folding = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        with _full_disk():
            self._folding.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def script(self, statements: str) -> None:
        """Run statements that make the schema; each must be idempotent."""
        with self._lock:
            self._connection.executescript(statements)

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run one statement; returns how many rows it touched. Raises sqlite3.IntegrityError as it comes."""
        with self._lock, _full_disk():
            return self._connection.execute(statement, values).rowcount

    def insert(self, statement: str, values: Sequence[Any]) -> int:
        """Run one INSERT; returns the new row's id."""
        with self._lock, _full_disk():
            return self._connection.execute(statement, values).lastrowid or 0

    def row(self, statement: str, values: Sequence[Any] = ()) -> "tuple[Any, ...] | None":
        with self._lock:
            return self._connection.execute(statement, values).fetchone()  # type: ignore[no-any-return]

    def rows(self, statement: str, values: Sequence[Any] = ()) -> "list[tuple[Any, ...]]":
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or none of it. A nested one is part of the outer one."""
        with self._lock:
            if self._depth:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            with _full_disk():
                self._connection.execute("BEGIN IMMEDIATE")
                self._depth = 1
                try:
                    yield
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                else:
                    self._connection.execute("COMMIT")
                finally:
                    self._depth = 0


@contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" not in str(error):
            raise
        raise ResourceExhausted("cannot write metadata", cause=str(error), remedy="free some disk space") from error
