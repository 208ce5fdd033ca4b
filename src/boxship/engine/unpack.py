"""From layers to snapshots: what a container's root file system is made on.

A snapshot is named by the chain ID of its layers (image-spec, config.md), so that images share what they have in
common; it appears only whole. A layer is unpacked when it and those below it are there, while others still come.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from boxship.api.containerd import Client
from boxship.api.containerd.content import Info as ContentInfo
from boxship.api.containerd.content import UpdateRequest
from boxship.api.containerd.diff import ApplyRequest
from boxship.api.containerd.snapshots import (
    CommitSnapshotRequest,
    PrepareSnapshotRequest,
    RemoveSnapshotRequest,
    StatSnapshotRequest,
)
from boxship.api.containerd.types import Descriptor, Mount
from boxship.errors import AlreadyExists, DataLoss, NotFound
from boxship.image.store import Image
from boxship.oci import image as oci
from boxship.protobuf import FieldMask

from . import initlayer
from .create import SNAPSHOTTER
from .names import new_id

SNAPSHOT_LABEL = "containerd.io/gc.ref.snapshot."
Done = Callable[[oci.Descriptor], None]


class Arriving:
    """An image on its way: told by worker threads what has come, waited for on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._layers: dict[str, asyncio.Event] = {}
        self.image: asyncio.Future[Image] = loop.create_future()

    def known(self, image: Image) -> None:
        """Its manifest and config are there."""
        self._loop.call_soon_threadsafe(self._set, image)

    def _set(self, image: Image) -> None:
        if not self.image.done():
            self.image.set_result(image)

    def came(self, digest: str) -> None:
        self._loop.call_soon_threadsafe(lambda: self._event(digest).set())

    async def wait(self, digest: str) -> None:
        await self._event(digest).wait()

    def _event(self, digest: str) -> asyncio.Event:
        return self._layers.setdefault(digest, asyncio.Event())


class Unpacker:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._unpacking: dict[str, asyncio.Lock] = {}
        self._labelled: set[str] = set()  # images whose config keeps their ground

    async def unpack(self, image: Image, arriving: Arriving | None = None, done: Done = lambda layer: None) -> None:
        """Make the snapshot of each layer that is not there; others wait for one that is being made.

        With ``arriving`` a layer is waited for until it has come. Raises DataLoss (not what the config promises).
        """
        chain = oci.chain_ids(image.config.diff_ids)
        if chain and arriving is None and await self._has_snapshot(chain[-1]):
            return
        lock = self._unpacking.setdefault(image.id, asyncio.Lock())
        async with lock:
            parent = ""
            for layer, diff_id, name in zip(image.manifest.layers, image.config.diff_ids, chain, strict=True):
                if arriving is not None:
                    await arriving.wait(layer.digest)
                if not await self._has_snapshot(name):
                    await self._unpack_layer(layer, diff_id, name, parent)
                done(layer)
                parent = name
            label = {f"{SNAPSHOT_LABEL}{SNAPSHOTTER}": parent}
            if parent:
                await label_content(self._client, image.manifest.config.digest, label)
        self._unpacking.pop(image.id, None)

    async def unpack_arriving(self, arriving: Arriving, done: Done) -> None:
        """`unpack` for an image that is being pulled: a layer each time it and those below have come."""
        await self.unpack(await arriving.image, arriving, done)

    async def ground(self, image: Image) -> str:
        """The snapshot that containers of an image are made on: the last layer and `initlayer`."""
        chain_id = (oci.chain_ids(image.config.diff_ids) or [""])[-1]
        ground = initlayer.name(chain_id)
        if image.id not in self._labelled:
            # Before there is a snapshot: one without a label could be collected at any moment.
            label = {f"{SNAPSHOT_LABEL}{SNAPSHOTTER}/init": ground}
            await label_content(self._client, image.manifest.config.digest, label)
            self._labelled.add(image.id)
        if await self._has_snapshot(ground):
            return ground
        lock = self._unpacking.setdefault(ground, asyncio.Lock())
        async with lock:
            if not await self._has_snapshot(ground):
                async with self._new_snapshot(ground, chain_id) as mounts:
                    await asyncio.to_thread(initlayer.fill, mounts)
        self._unpacking.pop(ground, None)
        return ground

    def forget(self, id: str) -> None:
        """An image is gone; should it come back, its config has no labels."""
        self._labelled.discard(id)

    async def _has_snapshot(self, name: str) -> bool:
        try:
            await self._client.snapshots.Stat(StatSnapshotRequest(snapshotter=SNAPSHOTTER, key=name))
        except NotFound:
            return False
        return True

    async def _unpack_layer(self, layer: oci.Descriptor, diff_id: str, name: str, parent: str) -> None:
        async with self._new_snapshot(name, parent) as mounts:
            response = await self._client.diff.Apply(
                ApplyRequest(
                    diff=Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size),
                    mounts=mounts,
                )
            )
            applied = response.applied.digest if response.applied else ""
            if applied != diff_id:
                # A compressed layer's own digest says nothing of what it inflates to; the config does.
                raise DataLoss(f"layer {layer.digest} inflates to {applied}, the image config expects {diff_id}")

    @asynccontextmanager
    async def _new_snapshot(self, name: str, parent: str) -> AsyncIterator[list[Mount]]:
        """The mounts of a snapshot to fill: committed under ``name`` at the end, removed when the block raises.

        That somebody else was faster is no error: committed snapshots of one name are equal.
        """
        key = f"extract-{new_id()[:16]} {name}"
        snapshots = self._client.snapshots
        prepared = await snapshots.Prepare(
            PrepareSnapshotRequest(
                snapshotter=SNAPSHOTTER, key=key, parent=parent, labels={"containerd.io/gc.root": "unpacking"}
            )
        )
        try:
            yield prepared.mounts
            await snapshots.Commit(CommitSnapshotRequest(snapshotter=SNAPSHOTTER, name=name, key=key))
        except BaseException as error:
            await snapshots.Remove(RemoveSnapshotRequest(snapshotter=SNAPSHOTTER, key=key))
            if not isinstance(error, AlreadyExists):
                raise


async def label_content(client: Client, digest: str, labels: dict[str, str]) -> None:
    """Add labels to a blob."""
    await client.content.Update(
        UpdateRequest(
            info=ContentInfo(digest=digest, labels=labels),
            update_mask=FieldMask(paths=[f"labels.{key}" for key in labels]),
        )
    )
