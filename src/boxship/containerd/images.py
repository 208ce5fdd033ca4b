"""The Images service: names that point at descriptors."""

from boxship.api.containerd.context import required_namespace
from boxship.api.containerd.images import (
    CreateImageRequest,
    CreateImageResponse,
    DeleteImageRequest,
    GetImageRequest,
    GetImageResponse,
    Image,
    ListImagesRequest,
    ListImagesResponse,
    UpdateImageRequest,
    UpdateImageResponse,
)
from boxship.api.containerd.published import ImageCreate, ImageDelete, ImageUpdate
from boxship.containerd.events import Exchange
from boxship.containerd.filters import message_lookup, parse
from boxship.containerd.gc import Collector
from boxship.containerd.records import Records, check_labels, mask_paths, masked_labels, now
from boxship.errors import InvalidArgument, NotFound
from boxship.oci import digest as digests
from boxship.protobuf import Empty


class ImagesService:
    def __init__(self, records: "Records[Image]", exchange: Exchange, collector: Collector) -> None:
        self._records = records
        self._exchange = exchange
        self._collector = collector

    async def Get(self, request: GetImageRequest) -> GetImageResponse:
        return GetImageResponse(image=self._records.get(required_namespace(), request.name))

    async def List(self, request: ListImagesRequest) -> ListImagesResponse:
        matches = parse(list(request.filters))
        found = self._records.list(required_namespace())
        return ListImagesResponse(images=[one for one in found if matches(message_lookup(one))])

    async def Create(self, request: CreateImageRequest) -> CreateImageResponse:
        image = Image.decode(request.image.encode()) if request.image else Image()
        self._check(image)
        image.labels = check_labels(image.labels)
        image.created_at = image.updated_at = request.source_date_epoch or now()
        await self._records.create(required_namespace(), image.name, image)
        self._exchange.publish("/images/create", ImageCreate(name=image.name, labels=image.labels))
        return CreateImageResponse(image=image)

    async def Update(self, request: UpdateImageRequest) -> UpdateImageResponse:
        wanted = request.image or Image()
        namespace = required_namespace()
        current = self._records.get(namespace, wanted.name)
        paths = mask_paths(request.update_mask) or ["labels", "target"]
        for path in paths:
            if path == "target":
                current.target = wanted.target
            elif path != "labels" and not path.startswith("labels."):
                raise InvalidArgument(f"cannot update {path!r} of image {wanted.name!r}")
        current.labels = masked_labels(current.labels, wanted.labels, paths)
        self._check(current)
        current.updated_at = request.source_date_epoch or now()
        await self._records.replace(namespace, current.name, current)
        self._exchange.publish("/images/update", ImageUpdate(name=current.name, labels=current.labels))
        return UpdateImageResponse(image=current)

    async def Delete(self, request: DeleteImageRequest) -> Empty:
        """With ``sync`` the content that nothing refers to any more is gone when this answers."""
        namespace = required_namespace()
        if request.target is not None and request.target.digest:
            current = self._records.get(namespace, request.name)
            if current.target is None or current.target.digest != request.target.digest:
                raise NotFound(f"image {request.name!r} with target {request.target.digest}: not found")
        self._records.delete(namespace, request.name)
        self._exchange.publish("/images/delete", ImageDelete(name=request.name))
        if request.sync:
            await self._collector.collect()
        else:
            self._collector.schedule()
        return Empty()

    def _check(self, image: Image) -> None:
        if not image.name:
            raise InvalidArgument("image name must not be empty")
        if image.target is None:
            raise InvalidArgument(f"image {image.name!r} has no target")
        digests.parse(image.target.digest)
        if image.target.size <= 0:
            raise InvalidArgument(f"image {image.name!r}: target size must be greater than zero")
        if not image.target.media_type:
            raise InvalidArgument(f"image {image.name!r}: target media type must not be empty")
