"""Images as the Engine API shows them, over containerd's images, content, snapshots and diff services.

docker's image ID is the digest of the image's config.  A name in containerd points at a manifest or an index; an
image without a name is kept under ``moby-dangling@<target digest>``, as dockerd's containerd store does.
What a manifest says never changes, so it is parsed once per digest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from boxship.api.containerd import Client, lease
from boxship.api.containerd.images import (
    CreateImageRequest,
    DeleteImageRequest,
    GetImageRequest,
    ListImagesRequest,
    UpdateImageRequest,
)
from boxship.api.containerd.images import Image as NamedImage
from boxship.api.containerd.leases import CreateRequest as CreateLease
from boxship.api.containerd.leases import DeleteRequest as DeleteLease
from boxship.api.containerd.snapshots import (
    UsageRequest,
)
from boxship.api.containerd.types import Descriptor
from boxship.errors import AlreadyExists, Cancelled, FailedPrecondition, InvalidArgument, NotFound
from boxship.image.background import in_background
from boxship.image.compression import Reader
from boxship.image.load import load_archive, load_layout
from boxship.image.rootfs import import_rootfs
from boxship.image.save import Sink, save
from boxship.image.store import Image, gc_labels, resolve, tree
from boxship.oci import image as oci
from boxship.oci import reference as references
from boxship.protobuf import FieldMask

from .clock import parse_rfc3339
from .content import ClientStore
from .create import SNAPSHOTTER, ImageFacts
from .events import EventBus
from .models import ContainerConfig
from .names import new_id
from .unpack import Arriving, Unpacker, label_content

if TYPE_CHECKING:
    import threading

    from boxship.image.registry.client import Repository
    from boxship.image.registry.transfer import Progress
    from boxship.oci.platform import Platform

log = logging.getLogger("boxship.engine.images")

DANGLING = "moby-dangling@"
BUILT_IN = "docker.io/library/hello:latest"


@dataclass
class View:
    """One image: what a config digest is, and every name that points at it."""

    image: Image
    names: list[str] = field(default_factory=list)  # normalised; a dangling one's are not listed
    stored: list[str] = field(default_factory=list)  # as containerd has them, dangling ones included

    @property
    def id(self) -> str:
        return self.image.id

    @property
    def tags(self) -> list[str]:
        return sorted(references.familiar(name) for name in self.names)


class Images:
    """The image half of the engine. ``users`` gives ids and states of containers made from an image."""

    def __init__(
        self,
        client: Client,
        events: EventBus,
        users: Callable[[str], list[tuple[str, bool]]],
        built_in: Path | None,
    ) -> None:
        self._client = client
        self._events = events
        self._users = users
        self._built_in = built_in
        self._parsed: dict[str, Image] = {}
        self._loop = asyncio.get_running_loop()
        self.store = ClientStore(client, self._loop)
        self._snapshots = Unpacker(client)

    # -- looking up

    async def _image(self, target: Descriptor) -> Image:
        found = self._parsed.get(target.digest)
        if found is None:
            descriptor = oci.Descriptor(target.media_type, target.digest, target.size)
            found = await asyncio.to_thread(resolve, self.store, descriptor)
            self._parsed[target.digest] = found
        return found

    async def views(self) -> list[View]:
        """Every image, newest first; one whose content is damaged is left out and logged."""
        found: dict[str, View] = {}
        for named in (await self._client.images.List(ListImagesRequest())).images:
            if named.target is None:
                continue
            try:
                image = await self._image(named.target)
            except (NotFound, InvalidArgument) as error:
                log.warning("image %s: %s", named.name, error)
                continue
            view = found.setdefault(image.id, View(image))
            view.stored.append(named.name)
            if not named.name.startswith(DANGLING):
                view.names.append(named.name)
        return sorted(found.values(), key=lambda view: parse_rfc3339(view.image.config.created or ""), reverse=True)

    async def find(self, reference: str) -> View:
        """By name, ID, or a prefix of an ID; raises NotFound worded as dockerd's."""
        image = await self._by_name(reference)
        views = await self.views()
        if image is not None:
            return next(view for view in views if view.id == image.id)
        digits = reference.removeprefix("sha256:").lower()
        if digits and all(c in "0123456789abcdef" for c in digits):
            matching = [view for view in views if view.id.removeprefix("sha256:").startswith(digits)]
            if len(matching) == 1:
                return matching[0]
            if len(matching) > 1:
                raise InvalidArgument(f"image ID prefix {reference} is ambiguous: {len(matching)} images have it")
        if "@" in reference:
            _, _, digest = reference.rpartition("@")
            for view in views:
                if digest in (view.image.target.digest, view.image.manifest_descriptor.digest):
                    return view
        raise NotFound(f"No such image: {_with_tag(reference)}")

    async def _by_name(self, reference: str) -> Image | None:
        try:
            name = references.normalise(reference)
        except InvalidArgument:
            return None
        for _ in range(2):
            try:
                named = (await self._client.images.Get(GetImageRequest(name=name))).image
            except NotFound:
                if name == BUILT_IN and await self.load_built_in():
                    continue
                return None
            return await self._image(named.target) if named and named.target else None
        return None

    async def facts(self, reference: str) -> ImageFacts:
        """For `create`; raises NotFound, InvalidArgument."""
        if not reference:
            raise InvalidArgument("no image given")
        image = await self._by_name(reference)
        if image is None:
            image = (await self.find(reference)).image
        config = image_config(image)
        await self._snapshots.unpack(image)
        ground = await self._snapshots.ground(image)
        platform = (image.config.os or "linux", image.config.architecture, image.config.variant)
        return ImageFacts(image.id, ground, config, platform)

    # -- coming in

    async def load(self, source: Reader) -> list[View]:
        """Load an archive (docker or OCI), unpack its images and give them their names."""
        async with self.leased():
            images = await in_background(load_archive, source, self.store)
            return [await self.adopt(image) for image in images]

    async def load_built_in(self) -> bool:
        """Load the ``hello`` image that ships with the package; False when it does not."""
        if self._built_in is None or not (self._built_in / "index.json").exists():
            return False
        async with self.leased():
            images = await in_background(load_layout, str(self._built_in), self.store)
            for image in images:
                await self.adopt(image)
        return bool(images)

    async def import_rootfs(self, source: Reader, name: str, message: str, config: dict[str, Any]) -> View:
        """One layer from a root file system's tar."""
        normalised = references.normalise(name) if name else ""
        async with self.leased():
            image = await in_background(
                lambda: import_rootfs(source, self.store, config=config, message=message)
            )
            if normalised:
                image.names.append(normalised)
            view = await self.adopt(image)
        self._events.publish("image", "import", view.id, {"name": view.id})
        return view

    async def pull(
        self,
        repository: Repository,
        tag: str,
        name: str,
        platform: Platform | None,
        progress: Progress,
        stop: threading.Event,
    ) -> View:
        """Bring an image from a registry, unpack it while it comes, and let ``name`` mean it."""
        from boxship.image.registry.transfer import pull

        arriving = Arriving(self._loop)

        def told(blob: oci.Descriptor, status: str, current: int = 0, total: int = 0) -> None:
            progress(blob, status, current, total)
            if status in ("Already exists", "Download complete"):
                arriving.came(blob.digest)
            if status == "Already exists":
                there.add(blob.digest)

        def unpacked(layer: oci.Descriptor) -> None:
            if layer.digest not in there:
                progress(layer, "Pull complete")

        def gave_up(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception():
                stop.set()

        there: set[str] = set()
        async with self.leased():
            unpacking = asyncio.create_task(self._snapshots.unpack_arriving(arriving, unpacked))
            unpacking.add_done_callback(gave_up)
            try:
                image = await in_background(
                    pull, repository, tag, self.store,
                    platform=platform, progress=told, known=arriving.known, stop=stop,
                )  # fmt: skip
                await unpacking
            except Cancelled:
                if unpacking.done() and not unpacking.cancelled() and (cause := unpacking.exception()):
                    raise cause from None  # it is why the rest was given up
                raise
            finally:
                unpacking.cancel()
                await asyncio.gather(unpacking, return_exceptions=True)
            image.names.append(name)
            return await self.adopt(image, "")

    async def push(
        self,
        repository: Repository,
        tag: str,
        target: oci.Descriptor,
        sources: list[str],
        progress: Progress,
        stop: threading.Event,
    ) -> oci.Descriptor:
        """Bring an image to a registry; gives what the tag means there now."""
        from boxship.image.registry.transfer import push

        return await in_background(
            push, repository, tag, self.store, target, mount_from=sources, progress=progress, stop=stop
        )

    async def id_of(self, name: str) -> str:
        """The ID of the image that a normalised name means, "" when there is none."""
        try:
            return (await self.find(name)).id
        except NotFound:
            return ""

    async def adopt(self, image: Image, event: str = "load") -> View:
        """Keep an image: labels for the garbage collector, snapshots, names (or a dangling one)."""
        for descriptor in await asyncio.to_thread(tree, self.store, image.target):
            labels = await asyncio.to_thread(gc_labels, self.store, descriptor)
            if labels:
                await label_content(self._client, descriptor.digest, labels)
        self._parsed[image.target.digest] = image
        await self._snapshots.unpack(image)
        for name in image.names or [DANGLING + image.target.digest]:
            await self._point(name, image)
            if image.names and event:
                self._events.publish("image", event, image.id, {"name": references.familiar(name)})
        return View(image, list(image.names), list(image.names))

    async def _point(self, name: str, image: Image) -> None:
        """Let a name mean an image; what it meant before becomes dangling unless another name keeps it."""
        target = Descriptor(media_type=image.target.media_type, digest=image.target.digest, size=image.target.size)
        try:
            await self._client.images.Create(CreateImageRequest(image=NamedImage(name=name, target=target)))
            return
        except AlreadyExists:
            before = (await self._client.images.Get(GetImageRequest(name=name))).image
        if before is None or before.target is None or before.target.digest == target.digest:
            return
        await self._keep_dangling(before.target, except_name=name)
        await self._client.images.Update(
            UpdateImageRequest(image=NamedImage(name=name, target=target), update_mask=FieldMask(paths=["target"]))
        )

    async def _keep_dangling(self, target: Descriptor, except_name: str) -> None:
        for named in (await self._client.images.List(ListImagesRequest())).images:
            if named.name != except_name and named.target and named.target.digest == target.digest:
                return
        try:
            await self._client.images.Create(
                CreateImageRequest(image=NamedImage(name=DANGLING + target.digest, target=target))
            )
        except AlreadyExists:
            return

    async def tag(self, source: str, repository: str, tag: str) -> None:
        view = await self.find(source)
        name = references.normalise(f"{repository}:{tag}" if tag else repository)
        if "@" in name:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        await self._point(name, view.image)
        for stored in view.stored:
            if stored.startswith(DANGLING):
                await self._client.images.Delete(DeleteImageRequest(name=stored))
        self._events.publish("image", "tag", view.id, {"name": references.familiar(name)})

    @asynccontextmanager
    async def leased(self) -> AsyncIterator[None]:
        """Nothing that the block brings in is collected before a name keeps it."""
        id = f"boxship-{new_id()[:16]}"
        await self._client.leases.Create(CreateLease(id=id))
        token = lease.set(id)
        try:
            yield
        finally:
            lease.reset(token)
            await self._client.leases.Delete(DeleteLease(id=id))

    # -- going out

    async def save(self, references_: Iterable[str], out: Sink) -> None:
        """Write images as one archive; ``out.write`` is called from a worker thread."""
        chosen: dict[str, Image] = {}
        for text in references_:
            view = await self.find(text)
            by_id = view.id.removeprefix("sha256:").startswith(text.removeprefix("sha256:"))
            names = [] if by_id else [references.normalise(text)]
            one = chosen.setdefault(
                view.id,
                Image(view.image.target, view.image.manifest_descriptor, view.image.manifest, view.image.config, []),
            )
            one.names.extend(name for name in names if name not in one.names)
        await in_background(save, self.store, list(chosen.values()), out)

    # -- going away

    async def remove(self, reference: str, force: bool) -> list[dict[str, str]]:
        """Untag, and delete with the last name; gives dockerd's list of Untagged and Deleted.

        Raises NotFound, FailedPrecondition (a container uses it).
        """
        view = await self.find(reference)
        by_id = view.id.removeprefix("sha256:").startswith(reference.removeprefix("sha256:"))
        name = "" if by_id else references.normalise(reference)
        doomed = list(view.stored) if by_id else [name]
        if by_id and len(view.names) > 1 and not force:
            raise FailedPrecondition(
                f"conflict: unable to delete {_short(view.id)} (must be forced) - image is referenced in multiple "
                "repositories"
            )
        last = len(view.stored) <= len(doomed)
        if last:
            self._refuse_used(view, reference, force, by_id)
        removed: list[dict[str, str]] = []
        for stored in doomed:
            await self._client.images.Delete(DeleteImageRequest(name=stored, sync=True))
            if not stored.startswith(DANGLING):
                familiar = references.familiar(stored)
                removed.append({"Untagged": familiar})
                self._events.publish("image", "untag", view.id, {"name": familiar})
        if last:
            self._parsed.pop(view.image.target.digest, None)
            removed.append({"Deleted": view.id})
            self._snapshots.forget(view.id)
            removed += [{"Deleted": name} for name in reversed(oci.chain_ids(view.image.config.diff_ids))]
            self._events.publish("image", "delete", view.id, {"name": view.id})
        return removed

    def _refuse_used(self, view: View, reference: str, force: bool, by_id: bool) -> None:
        users = self._users(view.id)
        running = [id for id, runs in users if runs]
        what = references.familiar(references.normalise(reference)) if not by_id else ""
        if by_id and users and (running or not force):
            how, state = ("cannot be forced", "running") if running else ("must be forced", "stopped")
            raise FailedPrecondition(
                f"conflict: unable to delete {_short(view.id)} ({how}) - image is being used by {state} container "
                f"{(running or [users[0][0]])[0][:12]}"
            )
        if running:
            raise FailedPrecondition(
                f'conflict: unable to remove repository reference "{what}" (cannot be forced) - container '
                f"{running[0][:12]} is using its referenced image {_short(view.id)}"
            )
        if users and not force:
            raise FailedPrecondition(
                f'conflict: unable to remove repository reference "{what}" (must force) - container '
                f"{users[0][0][:12]} is using its referenced image {_short(view.id)}"
            )

    async def prune(self, all: bool) -> tuple[list[dict[str, str]], int]:
        """Remove dangling images (``all``: every image without a container)."""
        removed: list[dict[str, str]] = []
        freed = 0
        for view in await self.views():
            if (view.names and not all) or self._users(view.id):
                continue
            size = await self.size(view)
            removed += await self.remove(view.id, force=True)
            freed += size
        return removed, freed

    # -- sizes

    async def size(self, view: View) -> int:
        """Bytes of the unpacked layers."""
        total = 0
        for name in oci.chain_ids(view.image.config.diff_ids):
            try:
                usage = await self._client.snapshots.Usage(UsageRequest(snapshotter=SNAPSHOTTER, key=name))
            except NotFound:
                continue
            total += usage.size
        return total

    async def snapshot_size(self, key: str) -> int:
        """Bytes of one snapshot's own files, 0 when it is gone."""
        try:
            return (await self._client.snapshots.Usage(UsageRequest(snapshotter=SNAPSHOTTER, key=key))).size
        except NotFound:
            return 0


def image_config(image: Image) -> ContainerConfig:
    """The image's ``config`` as typed values; raises InvalidArgument when its types are wrong."""
    try:
        return msgspec.convert(image.config.config or {}, type=ContainerConfig, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"image {image.id} has a damaged config", cause=str(error)) from error


def _short(id: str) -> str:
    return id.removeprefix("sha256:")[:12]


def _with_tag(reference: str) -> str:
    last = reference.rpartition("/")[2]
    return reference if ":" in last or "@" in last else f"{reference}:latest"
