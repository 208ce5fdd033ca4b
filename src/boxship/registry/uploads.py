"""Blob uploads: sessions that take bytes in order, until one digest ends them.

A session is an ingestion of the content store, named after its repository and its id, so that it survives the
server: its bytes are on the disk, and the next request takes it up where they end.
While the server runs, the session's writer stays open, so that a blob of many chunks is hashed once.

One request at a time writes to a session; the lock is the session's. What is sent twice or out of order is
refused with 416 and what has come (`Session.offset`), and changes nothing.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid

from boxship.errors import NotFound
from boxship.image.content import ContentStore, Writer

from .errors import SpecError

_ID = re.compile(r"[0-9a-f-]{36}")


class Session:
    """One upload. Whoever writes holds ``lock``; ``writer`` is for worker threads."""

    def __init__(self, repository: str, id: str, writer: Writer) -> None:
        self.repository = repository
        self.id = id
        self.writer = writer
        self.lock = asyncio.Lock()
        self.ended = False
        self.used = time.monotonic()

    @property
    def offset(self) -> int:
        return self.writer.offset

    def headers(self) -> dict[str, str]:
        """What every answer about the session says. Nothing yet is ``0-0``, as docker's registry has it."""
        return {
            "Location": f"/v2/{self.repository}/blobs/uploads/{self.id}",
            "Range": f"0-{max(self.offset - 1, 0)}",
            "Docker-Upload-UUID": self.id,
        }

    def expect(self, first: int) -> None:
        """Raises SpecError with 416 unless a chunk that begins at ``first`` is the next one."""
        if first != self.offset:
            raise SpecError(
                "BLOB_UPLOAD_INVALID", f"upload {self.id} has {self.offset} bytes, the chunk begins at {first}",
                status=416, headers=self.headers(),
            )  # fmt: skip


class Uploads:
    """All sessions of a store."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self._open: dict[tuple[str, str], Session] = {}

    def start(self, repository: str, algorithm: str) -> Session:
        id = str(uuid.uuid4())
        session = Session(repository, id, self._store.writer(_ref(repository, id), algorithm=algorithm))
        self._open[repository, id] = session
        return session

    def find(self, repository: str, id: str) -> Session:
        """Raises SpecError (BLOB_UPLOAD_UNKNOWN)."""
        session = self._open.get((repository, id))
        if session is None:
            try:
                if not _ID.fullmatch(id):
                    raise NotFound(f"upload {id!r}: not an id")
                self._store.status(_ref(repository, id))  # one that an earlier server began?
            except NotFound:
                raise unknown(repository, id) from None
            session = Session(repository, id, self._store.writer(_ref(repository, id)))
            session = self._open.setdefault((repository, id), session)
        session.used = time.monotonic()
        return session

    def rest(self, idle: float) -> int:
        """Close what nobody has used for ``idle`` seconds, and keep its bytes; says how many. Runs on the loop.

        Clients that went away do not say so, and each would leave an open file.
        """
        before = time.monotonic() - idle
        idlers = [one for one in self._open.values() if one.used < before and not one.lock.locked()]
        for session in idlers:
            self.end(session, keep=True)
        return len(idlers)

    def end(self, session: Session, *, keep: bool = False) -> None:
        """Forget the session, and its bytes unless ``keep`` (to be found again); repeated is fine."""
        session.ended = True
        self._open.pop((session.repository, session.id), None)
        if keep:
            session.writer.close()
        else:
            session.writer.discard()

    def close(self) -> None:
        for session in list(self._open.values()):
            self.end(session, keep=True)


def unknown(repository: str, id: str) -> SpecError:
    return SpecError("BLOB_UPLOAD_UNKNOWN", f"repository {repository} has no upload {id[:36]!r}")


def _ref(repository: str, id: str) -> str:
    return f"upload {repository} {id}"
