"""The Images service: names for descriptors (containerd, api/services/images/v1)."""

from boxship.api.containerd.types import Descriptor
from boxship.protobuf import (
    Empty,
    FieldMask,
    Message,
    Service,
    Timestamp,
    boolean,
    mapping,
    message,
    repeated,
    string,
    unary,
)


class Image(Message, name="containerd.services.images.v1.Image"):
    name: str = string(1)
    labels: dict[str, str] = mapping(2, string)
    target: Descriptor | None = message(3, Descriptor)
    created_at: Timestamp | None = message(7, Timestamp)
    updated_at: Timestamp | None = message(8, Timestamp)


class GetImageRequest(Message, name="containerd.services.images.v1.GetImageRequest"):
    name: str = string(1)


class GetImageResponse(Message, name="containerd.services.images.v1.GetImageResponse"):
    image: Image | None = message(1, Image)


class CreateImageRequest(Message, name="containerd.services.images.v1.CreateImageRequest"):
    image: Image | None = message(1, Image)
    source_date_epoch: Timestamp | None = message(2, Timestamp)


class CreateImageResponse(Message, name="containerd.services.images.v1.CreateImageResponse"):
    image: Image | None = message(1, Image)


class UpdateImageRequest(Message, name="containerd.services.images.v1.UpdateImageRequest"):
    image: Image | None = message(1, Image)
    update_mask: FieldMask | None = message(2, FieldMask)
    source_date_epoch: Timestamp | None = message(3, Timestamp)


class UpdateImageResponse(Message, name="containerd.services.images.v1.UpdateImageResponse"):
    image: Image | None = message(1, Image)


class ListImagesRequest(Message, name="containerd.services.images.v1.ListImagesRequest"):
    filters: list[str] = repeated(1, string)


class ListImagesResponse(Message, name="containerd.services.images.v1.ListImagesResponse"):
    images: list[Image] = repeated(1, Image)


class DeleteImageRequest(Message, name="containerd.services.images.v1.DeleteImageRequest"):
    name: str = string(1)
    sync: bool = boolean(2)
    target: Descriptor | None = message(3, Descriptor)


class Images(Service, name="containerd.services.images.v1.Images"):
    Get = unary(GetImageRequest, GetImageResponse)
    List = unary(ListImagesRequest, ListImagesResponse)
    Create = unary(CreateImageRequest, CreateImageResponse)
    Update = unary(UpdateImageRequest, UpdateImageResponse)
    Delete = unary(DeleteImageRequest, Empty)
