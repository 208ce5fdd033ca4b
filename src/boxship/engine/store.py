"""Container records on disk: ``<data root>/containers/<id>/config.json``, one each, replaced atomically.

A record is written before the engine answers that a thing is done, and synced to disk when a container appears or
goes; state changes in between are renamed without a sync, because the truth about a running container is the task
that containerd has, and the engine reconciles the two when it starts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
from pathlib import Path

import msgspec

from boxship.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted

from .models import Record

log = logging.getLogger("boxship.engine.store")

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")


def atomic_write(path: Path, data: bytes, *, sync: bool, mode: int = 0o600) -> None:
    """Replace a file as a whole; raises ResourceExhausted when the disk is full, and then the old one stays."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
        if sync:
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise ResourceExhausted(f"write {path}", cause="disk full", remedy="free space and retry") from error
        raise


class ContainerStore:
    """All records, in memory and on disk; looked up by id, name, or a prefix of an id that only one has."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_id: dict[str, Record] = {}
        self._names: dict[str, str] = {}  # name -> id; a name is reserved while its container is being made
        root.mkdir(parents=True, exist_ok=True, mode=0o710)

    def load(self) -> None:
        """Read what an earlier engine left; a directory without a whole record was never announced and goes."""
        for directory in sorted(self.root.iterdir()):
            if not directory.is_dir():
                continue
            file = directory / "config.json"
            try:
                record = msgspec.json.decode(file.read_bytes(), type=Record)
            except FileNotFoundError:
                shutil.rmtree(directory, ignore_errors=True)
                continue
            except msgspec.DecodeError:
                log.error("container %s: its record %s is not readable; left alone", directory.name, file)
                continue
            self._by_id[record.Id] = record
            self._names[record.Name] = record.Id

    def directory(self, id: str) -> Path:
        return self.root / id

    def reserve(self, name: str, id: str) -> None:
        """Take a name; raises InvalidArgument for a bad one, AlreadyExists when it is in use."""
        if not NAME.match(name):
            raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        holder = self._names.get(name)
        if holder is not None:
            raise AlreadyExists(
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._names[name] = id

    def release(self, name: str, id: str) -> None:
        if self._names.get(name) == id:
            del self._names[name]

    def name_is_free(self, name: str) -> bool:
        return name not in self._names

    async def add(self, record: Record) -> None:
        """Announce a new container: its record is on disk, synced, before any look-up finds it."""
        # A busy disk makes this wait for seconds: nobody else may.
        await asyncio.to_thread(self.save, record, sync=True)
        self._by_id[record.Id] = record

    def save(self, record: Record, *, sync: bool = False) -> None:
        atomic_write(self.directory(record.Id) / "config.json", msgspec.json.encode(record), sync=sync)

    def remove(self, record: Record) -> None:
        """Forget a container: the record first, so that a crash leaves a directory that load() clears."""
        directory = self.directory(record.Id)
        (directory / "config.json").unlink(missing_ok=True)
        self._by_id.pop(record.Id, None)
        self.release(record.Name, record.Id)
        shutil.rmtree(directory, ignore_errors=True)

    def all(self) -> list[Record]:
        """Newest first."""
        return sorted(self._by_id.values(), key=lambda record: record.Created, reverse=True)

    def get(self, reference: str) -> Record:
        """By full id, name (with or without its slash), or a unique prefix of the id; raises NotFound."""
        wanted = reference.removeprefix("/")
        if wanted in self._by_id:
            return self._by_id[wanted]
        if wanted in self._names and self._names[wanted] in self._by_id:
            return self._by_id[self._names[wanted]]
        found = [record for id, record in self._by_id.items() if wanted and id.startswith(wanted)]
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise FailedPrecondition(f"Multiple IDs found with provided prefix: {wanted}")
        raise NotFound(f"No such container: {reference}")

    def find(self, id: str) -> Record | None:
        return self._by_id.get(id)
