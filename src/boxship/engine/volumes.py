"""Named and anonymous volumes of the ``local`` driver: directories under ``<data root>/volumes/<name>/_data``.

What is known of a volume beside its data is in ``<name>/opts.json``; a directory without it was never announced.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from boxship.errors import FailedPrecondition, InvalidArgument, NotFound

from .clock import now
from .events import EventBus
from .filters import Filters, has_label, truth
from .names import new_id
from .store import atomic_write

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")


class Volume(msgspec.Struct):
    """A volume as the API shows it."""

    CreatedAt: str
    Driver: str
    Labels: dict[str, str] | None
    Mountpoint: str
    Name: str
    Options: dict[str, str] | None
    Scope: str = "local"


class VolumeInUse(FailedPrecondition):
    """A container refers to the volume."""


class Volumes:
    """``users`` gives the ids of the containers that refer to a volume."""

    def __init__(self, root: Path, events: EventBus, users: Callable[[str], list[str]]) -> None:
        self._root = root
        self._events = events
        self._users = users
        root.mkdir(parents=True, exist_ok=True, mode=0o701)

    def _path(self, name: str) -> Path:
        return self._root / name / "opts.json"

    def find(self, name: str) -> Volume | None:
        if not NAME.match(name):
            return None
        try:
            return msgspec.json.decode(self._path(name).read_bytes(), type=Volume)
        except FileNotFoundError:
            return None

    def get(self, name: str) -> Volume:
        found = self.find(name)
        if found is None:
            raise NotFound(f"get {name}: no such volume")
        return found

    def create(
        self,
        name: str = "",
        driver: str = "",
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
    ) -> Volume:
        """A new volume, or the one that has the name already; raises InvalidArgument, NotFound (driver)."""
        if driver not in ("", "local"):
            raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
        if not name:
            name = new_id()
            labels = {**(labels or {}), "com.docker.volume.anonymous": ""}
        if not NAME.match(name):
            raise InvalidArgument(
                f'create {name}: "{name}" includes invalid characters for a local volume name, '
                'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
                "use absolute path"
            )
        if options:
            raise InvalidArgument(
                f"create {name}: options {', '.join(sorted(options))} of the local driver are not supported",
                remedy="mount the file system on the host and use a bind mount",
            )
        existing = self.find(name)
        if existing is not None:
            return existing
        data = self._root / name / "_data"
        data.mkdir(parents=True, exist_ok=True, mode=0o755)
        volume = Volume(now(), "local", labels, str(data), name, options)
        atomic_write(self._path(name), msgspec.json.encode(volume), sync=True)
        self._events.publish("volume", "create", name, {"driver": "local"})
        return volume

    def all(self, filters: Filters) -> list[Volume]:
        found = []
        for directory in sorted(self._root.iterdir()):
            volume = self.find(directory.name)
            if volume is not None and self._matches(volume, filters):
                found.append(volume)
        return found

    def _matches(self, volume: Volume, filters: Filters) -> bool:
        for key, values in filters.items():
            if key == "name" and not any(value in volume.Name for value in values):
                return False
            if key == "label" and not all(has_label(volume.Labels or {}, value) for value in values):
                return False
            if key == "driver" and volume.Driver not in values:
                return False
            if key == "dangling" and truth(values, key) == bool(self._users(volume.Name)):
                return False
        return True

    def remove(self, name: str, force: bool = False) -> None:
        """Delete a volume and its data; raises NotFound (unless forced), VolumeInUse."""
        volume = self.find(name)
        if volume is None:
            if force:
                return
            raise NotFound(f"get {name}: no such volume")
        users = self._users(name)
        if users:
            raise VolumeInUse(f"remove {name}: volume is in use - [{', '.join(users)}]")
        # The record first: a crash in between leaves a directory that nobody sees, not half a volume.
        self._path(name).unlink(missing_ok=True)
        shutil.rmtree(self._root / name)
        self._events.publish("volume", "destroy", name, {"driver": "local"})

    def prune(self, all: bool, filters: Filters) -> tuple[list[str], int]:
        """Remove unused anonymous volumes (``all``: named ones too); names and bytes freed."""
        removed, freed = [], 0
        for volume in self.all(filters):
            anonymous = "com.docker.volume.anonymous" in (volume.Labels or {})
            if self._users(volume.Name) or not (all or anonymous):
                continue
            freed += usage(Path(volume.Mountpoint))
            self.remove(volume.Name)
            removed.append(volume.Name)
        return removed, freed


def usage(directory: Path) -> int:
    """Bytes that the files of a tree take on disk."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))
