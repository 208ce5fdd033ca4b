"""The Diff service: layers to snapshots (Apply) and back (Diff), in worker threads."""

import asyncio
import os
import time

from boxship.api.containerd.context import required_namespace
from boxship.api.containerd.diff import ApplyRequest, ApplyResponse, DiffRequest, DiffResponse
from boxship.api.containerd.types import Descriptor, Mount
from boxship.containerd.content import ContentService
from boxship.errors import AlreadyExists, InvalidArgument, Unimplemented
from boxship.image import diff as library
from boxship.image import snapshots
from boxship.image.apply import Applied, apply_layer
from boxship.image.background import in_background, settled
from boxship.image.content import ContentStore, Writer
from boxship.image.packing import quick_packer
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci.digest import Verifier

_COMPRESSED = {oci.MEDIA_LAYER_GZIP, oci.DOCKER_LAYER_GZIP}
_PLAIN = {oci.MEDIA_LAYER, oci.DOCKER_LAYER}


class DiffService:
    def __init__(self, store: ContentStore, content: ContentService) -> None:
        self._store = store
        self._content = content

    async def Apply(self, request: ApplyRequest) -> ApplyResponse:
        """Unpack a layer into mounts that a snapshotter gave; answers the diff ID, for the caller to compare."""
        if request.diff is None:
            raise InvalidArgument("no diff to apply")
        descriptor = request.diff
        if descriptor.media_type not in oci.LAYER_TYPES:
            raise Unimplemented(f"cannot apply media type {descriptor.media_type!r}")
        digest = digests.parse(descriptor.digest)
        self._content.known(digest)
        target, *parents = _target(list(request.mounts))
        applied = await in_background(self._apply, digest, target, parents, request.sync_fs)
        return ApplyResponse(
            applied=Descriptor(media_type=oci.MEDIA_LAYER, digest=applied.diff_id, size=applied.size)
        )

    async def Diff(self, request: DiffRequest) -> DiffResponse:
        """Write the layer that turns ``left`` into ``right`` to the content store."""
        media_type = request.media_type or oci.MEDIA_LAYER_GZIP
        if media_type not in _COMPRESSED | _PLAIN:
            raise Unimplemented(f"cannot write media type {media_type!r}")
        namespace = required_namespace()
        ref = request.ref or f"uncompressed-diff-{time.time_ns()}-{os.urandom(4).hex()}"
        writer = await self._content.open_writer(namespace, ref)
        try:
            left, right = _mounts(request.left), _mounts(request.right)
            diff_id = await settled(in_background(_write, writer, left, right, media_type in _COMPRESSED))
            size, digest = writer.offset, writer.digest
            labels = {**request.labels, oci.LABEL_UNCOMPRESSED: diff_id}
            try:
                await self._content.commit(namespace, writer, 0, "", labels)
            except AlreadyExists:
                pass  # an equal layer was there before: that is the answer too
        except BaseException:
            await settled(asyncio.to_thread(writer.discard))
            raise
        return DiffResponse(diff=Descriptor(media_type=media_type, digest=digest, size=size))

    def _apply(self, digest: digests.Digest, target: str, parents: "list[str]", sync: bool) -> Applied:
        with self._store.open(digest) as blob:
            return apply_layer(blob, target, parents=parents, sync=sync, what=f"layer {digest}")


def _mounts(messages: "list[Mount]") -> "list[snapshots.Mount]":
    return [snapshots.Mount(one.type, one.source, tuple(one.options)) for one in messages]


def _target(mounts: "list[Mount]") -> "tuple[str, ...]":
    """The directory to write to and the layers below it: written straight into the overlay's upper directory,
    which costs no mount and needs no second pass for whiteouts."""
    if len(mounts) == 1 and ("ro" in mounts[0].options or mounts[0].type not in ("bind", "overlay")):
        raise InvalidArgument(f"cannot apply a layer to a {mounts[0].type} mount that is not writable")
    directories = library.stack(_mounts(mounts)).directories
    if not directories:
        raise InvalidArgument("no mounts to apply the layer to")
    if mounts[0].type == "overlay" and not any(o.startswith("upperdir=") for o in mounts[0].options):
        raise InvalidArgument("cannot apply a layer to a read-only overlay")
    return directories


def _write(
    writer: Writer, left: "list[snapshots.Mount]", right: "list[snapshots.Mount]", compress: bool
) -> digests.Digest:
    verifier = Verifier()
    if not compress:

        def plain(data: bytes) -> None:
            verifier.update(data)
            writer.write(data)

        library.write_diff(left, right, plain)
        return verifier.digest
    packing = quick_packer()

    def packed(data: bytes) -> None:
        verifier.update(data)
        if out := packing.compress(data):
            writer.write(out)

    library.write_diff(left, right, packed)
    writer.write(packing.flush())
    return verifier.digest
