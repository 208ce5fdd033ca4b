"""A container's file system seen from outside: exported as a tar, compared with its image, made an image of.

All three read the container's snapshot, running or not, through detached mounts or the directories themselves;
nothing is mounted in any namespace.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from boxship.api.containerd import Client
from boxship.api.containerd.content import InfoRequest
from boxship.api.containerd.diff import DiffRequest
from boxship.api.containerd.snapshots import (
    MountsRequest,
    RemoveSnapshotRequest,
    StatSnapshotRequest,
    ViewSnapshotRequest,
)
from boxship.api.containerd.types import Mount
from boxship.errors import BoxshipError, FailedPrecondition
from boxship.image import diff
from boxship.image.background import in_background
from boxship.image.child import Layer, child
from boxship.image.rooted import open_in_root
from boxship.image.snapshots import Mount as LayerMount
from boxship.oci import image as oci
from boxship.oci import reference as references

from . import rootview
from .create import SNAPSHOTTER
from .images import Images, View
from .lifecycle import Lifecycle
from .live import Live
from .models import Record
from .names import new_id

if TYPE_CHECKING:
    from boxship.image.save import Sink

MODIFIED, ADDED, DELETED = 0, 1, 2  # Engine API, ContainerChangeResponseItem.Kind


class FileSystems:
    """The calls on a container that are about its files."""

    def __init__(self, client: Client, images: Images, lifecycle: Lifecycle) -> None:
        self._client = client
        self._images = images
        self._lifecycle = lifecycle

    async def _mounts(self, record: Record) -> list[Mount]:
        return (await self._client.snapshots.Mounts(MountsRequest(snapshotter=SNAPSHOTTER, key=record.Id))).mounts

    async def export(self, record: Record, out: Sink) -> None:
        """Write the whole root file system as a tar, without what is mounted in it (volumes, /proc, ...)."""
        mounts = _read_only(await self._mounts(record))

        def work() -> None:
            with rootview.of_mounts(mounts) as root:
                diff.write_layer(f"/proc/self/fd/{root}", out.write)

        await in_background(work)
        self._lifecycle.publish(record, "export")

    async def changes(self, record: Record) -> list[dict[str, Any]]:
        """What differs from the image, by path; raises FailedPrecondition for a snapshotter without directories."""
        mounts = await self._mounts(record)
        stack = diff.stack([LayerMount(one.type, one.source, tuple(one.options)) for one in mounts]).directories
        if not stack:
            raise FailedPrecondition(f"container {record.Id[:12]}: its snapshot has no directories to compare")

        def work() -> list[dict[str, Any]]:
            if not stack[1:]:
                return compare(stack[0], None)
            with rootview.of_mounts([_below(stack[1:])]) as lower:
                return compare(stack[0], lower)

        return await in_background(work)

    async def commit(
        self,
        live: Live,
        *,
        name: str,
        comment: str,
        author: str,
        pause: bool,
        config: dict[str, Any],
    ) -> View:
        """Make an image of a container: what it changed as one layer, what it runs as the default.

        ``config`` goes before the container's own (``--change``, the request's body). A running container stands
        still meanwhile when ``pause`` says so.
        """
        record = live.record
        base = (await self._images.find(record.Image)).image
        # No lease is needed for the layer beyond this: an image that names it is there before the lease ends.
        async with self._images.leased():
            async with self._paused(live, pause):
                layer = await self._layer(record)
            merged = merge(config, msgspec.to_builtins(record.Config))
            command = " ".join([record.Path, *record.Args]).strip()
            image = await asyncio.to_thread(
                child, self._images.store, base, layer, merged, created_by=command, author=author, comment=comment
            )
            if name:
                image.names.append(references.normalise(name))
            view = await self._images.adopt(image, "tag" if name else "")
        said = {"comment": comment, "imageID": view.id}
        self._lifecycle.publish(record, "commit", **said, **({"imageRef": image.names[0]} if name else {}))
        return view

    @asynccontextmanager
    async def _paused(self, live: Live, wanted: bool) -> AsyncIterator[None]:
        stop = wanted and live.record.State.Running and not live.record.State.Paused
        if not stop:
            yield
            return
        await self._lifecycle.pause(live)
        try:
            yield
        finally:
            try:
                await self._lifecycle.unpause(live)
            except BoxshipError:
                if live.record.State.Running:
                    raise  # else it was killed meanwhile

    async def _layer(self, record: Record) -> Layer:
        snapshots = self._client.snapshots
        right = await self._mounts(record)
        info = (await snapshots.Stat(StatSnapshotRequest(snapshotter=SNAPSHOTTER, key=record.Id))).info
        parent = info.parent if info else ""
        left: list[Mount] = []
        key = f"commit-{new_id()[:16]} {record.Id}"
        if parent:
            left = (await snapshots.View(ViewSnapshotRequest(snapshotter=SNAPSHOTTER, key=key, parent=parent))).mounts
        try:
            made = await self._client.diff.Diff(DiffRequest(left=left, right=right, media_type=oci.MEDIA_LAYER_GZIP))
        finally:
            if parent:
                await snapshots.Remove(RemoveSnapshotRequest(snapshotter=SNAPSHOTTER, key=key))
        assert made.diff is not None
        known = (await self._client.content.Info(InfoRequest(digest=made.diff.digest))).info
        diff_id = known.labels[oci.LABEL_UNCOMPRESSED] if known else ""
        return Layer(oci.Descriptor(oci.MEDIA_LAYER_GZIP, made.diff.digest, made.diff.size), diff_id)


def _read_only(mounts: list[Mount]) -> list[Mount]:
    """The same view without a writable layer: an overlay's upper directory belongs to one mount alone."""
    shown = diff.stack([LayerMount(one.type, one.source, tuple(one.options)) for one in mounts]).directories
    return [_below(shown)] if mounts and mounts[0].type == "overlay" else mounts


def _below(directories: tuple[str, ...]) -> Mount:
    if len(directories) == 1:
        return Mount(type="bind", source=directories[0], options=["ro", "rbind"])
    return Mount(type="overlay", source="overlay", options=["lowerdir=" + ":".join(directories)])


def compare(upper: str, lower: int | None) -> list[dict[str, Any]]:
    """What the overlay upper directory ``upper`` changes in ``lower``, a descriptor of what is below; by path.

    A directory that only holds changes is modified, too, as dockerd tells it.
    """
    found: dict[str, int] = {}

    def below(path: str) -> os.stat_result | None:
        if lower is None:
            return None
        try:
            fd = open_in_root(lower, path, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def names_below(path: str) -> list[str]:
        if lower is None:
            return []
        fd = open_in_root(lower, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def walk(directory: str, path: str) -> None:
        for entry in os.scandir(directory):
            here = f"{path}/{entry.name}"
            now, before = entry.stat(follow_symlinks=False), below(here)
            if stat.S_ISCHR(now.st_mode) and now.st_rdev == 0:
                if before is not None:
                    found[here] = DELETED
                continue
            is_directory = stat.S_ISDIR(now.st_mode)
            both = is_directory and before is not None and stat.S_ISDIR(before.st_mode)
            if before is None:
                found[here] = ADDED
            elif not (both and _same(now, before)):
                found[here] = MODIFIED
            if not is_directory:
                continue
            if both and diff.is_opaque(entry.path):
                kept = set(os.listdir(entry.path))
                found.update({f"{here}/{name}": DELETED for name in names_below(here) if name not in kept})
            walk(entry.path, here)

    walk(upper, "")
    for path in list(found):
        while path := path.rpartition("/")[0]:
            found.setdefault(path, MODIFIED)
    return [{"Path": path, "Kind": found[path]} for path in sorted(found)]


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    """A directory that the overlay copied up for something inside it has its old attributes."""
    return (one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns) == (
        other.st_mode,
        other.st_uid,
        other.st_gid,
        other.st_mtime_ns,
    )


def merge(own: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """``own`` before ``base`` as dockerd merges: maps and environments by key; a new entrypoint drops the old Cmd."""
    merged = {**base, **{key: value for key, value in own.items() if value}}
    for key in ("Labels", "ExposedPorts", "Volumes"):
        merged[key] = {**(base.get(key) or {}), **(own.get(key) or {})}
    named = {pair.partition("=")[0] for pair in own.get("Env") or []}
    kept = [pair for pair in base.get("Env") or [] if pair.partition("=")[0] not in named]
    merged["Env"] = [*(own.get("Env") or []), *kept]
    if own.get("Entrypoint") and not own.get("Cmd"):
        merged["Cmd"] = None
    return merged
