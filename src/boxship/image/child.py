"""One image more on top of another: a layer, a config, a line of history. What ``commit`` makes of a container."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from boxship.image.load import undo
from boxship.image.store import Image, Store, resolve
from boxship.oci import image as oci
from boxship.oci import platform as platforms

EMPTY_DIFF = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""The diff ID of a tar without entries: it is history, and no layer (image-spec, config.md, ``empty_layer``)."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that is in the store, and what it inflates to."""

    descriptor: oci.Descriptor
    diff_id: str


def child(
    store: Store,
    base: Image,
    layer: Layer,
    config: "Mapping[str, Any]",
    *,
    created_by: str = "",
    author: str = "",
    comment: str = "",
) -> Image:
    """Describe ``base`` with ``layer`` on top and ``config`` as what a container of it runs by default.

    What the base's config says beyond that is kept. Raises NotFound, InvalidArgument; nothing is left then.
    """
    created = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    what = f"image config {base.manifest.config.digest}"
    document = oci.decode(dict[str, Any], store.read(base.manifest.config.digest), what)
    empty = layer.diff_id == EMPTY_DIFF
    line = oci.History(created=created, created_by=created_by, author=author, comment=comment, empty_layer=empty)
    document["created"] = created
    document["config"] = {key: value for key, value in config.items() if value not in (None, "", False, [], {})}
    document["history"] = [*(document.get("history") or []), msgspec.to_builtins(line)]
    document["rootfs"] = {"type": "layers", "diff_ids": [*base.config.diff_ids, *([] if empty else [layer.diff_id])]}
    if author:
        document["author"] = author
    layers = [*base.manifest.layers, *([] if empty else [layer.descriptor])]
    data = msgspec.json.encode(document)
    with undo(store) as put:
        # A manifest of docker's names docker's config and layers; one of OCI's its own.
        media_type = base.manifest.media_type or oci.MEDIA_MANIFEST
        own = replace_type(layers, media_type)
        described = oci.Descriptor(base.manifest.config.media_type, put(data, ""), len(data))
        manifest = oci.encode(oci.Manifest(2, described, own, media_type=media_type))
        target = oci.Descriptor(media_type, put(manifest, ""), len(manifest))
        here = platforms.normalise(base.config.os or "linux", base.config.architecture, base.config.variant)
        return replace(resolve(store, target, here), names=[])


def replace_type(layers: "list[oci.Descriptor]", manifest_type: str) -> "list[oci.Descriptor]":
    """Layers with media types of the manifest's family: a mixture is refused by docker's tools."""
    if manifest_type != oci.DOCKER_MANIFEST:
        return layers
    names = {oci.MEDIA_LAYER_GZIP: oci.DOCKER_LAYER_GZIP, oci.MEDIA_LAYER: oci.DOCKER_LAYER}
    return [msgspec.structs.replace(one, media_type=names.get(one.media_type, one.media_type)) for one in layers]
