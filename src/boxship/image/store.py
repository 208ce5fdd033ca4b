"""What archives need of a content store, whether it is a directory here or a containerd elsewhere."""

from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from boxship.errors import DataLoss, InvalidArgument, NotFound
from boxship.image.compression import Reader
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci import platform as platforms
from boxship.oci.digest import Digest
from boxship.oci.platform import Platform


class Store(Protocol):
    """`boxship.image.content.ContentStore` is one."""

    def exists(self, digest: str) -> bool: ...
    def read(self, digest: str) -> bytes: ...
    def open(self, digest: str) -> BinaryIO: ...
    def add(self, source: "Reader | bytes", *, expected: str = "", size: int = -1) -> "tuple[Digest, bool]": ...
    def delete(self, digest: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Image:
    """An image as content: the ``target`` that names point at, and what it means on one platform.

    ``names`` are normalised references, possibly none.
    """

    target: oci.Descriptor
    manifest_descriptor: oci.Descriptor
    manifest: oci.Manifest
    config: oci.ImageConfig
    names: "list[str]" = field(default_factory=list)

    @property
    def id(self) -> str:
        """What docker calls the image's ID: the digest of its config."""
        return self.manifest.config.digest


def resolve(store: Store, target: oci.Descriptor, platform: "Platform | None" = None) -> Image:
    """Follow ``target`` (index or manifest) to the manifest and config for ``platform`` (default: this host).

    Raises NotFound (no manifest for the platform, or content is missing), InvalidArgument (damaged).
    """
    wanted = platform or platforms.host()
    descriptor = target
    for _ in range(4):  # an index may name an index; deeper than this is a loop or a joke
        what = f"manifest {descriptor.digest}"
        data = store.read(descriptor.digest)
        _check_size(descriptor, len(data), what)
        media_type = oci.document_media_type(data, what)
        if (media_type in oci.INDEX_TYPES) != (descriptor.media_type in oci.INDEX_TYPES):
            raise InvalidArgument(f"{what} is {media_type}, its descriptor's mediaType {descriptor.media_type}")
        if media_type not in oci.INDEX_TYPES:
            break
        descriptor = _choose(store, oci.decode(oci.Index, data, f"index {descriptor.digest}"), wanted, target)
    else:
        raise InvalidArgument(f"index {target.digest} is nested too deep")
    if media_type not in oci.MANIFEST_TYPES:
        raise InvalidArgument(f"manifest {descriptor.digest} has the unknown media type {media_type}")
    manifest = oci.decode(oci.Manifest, data, what)
    for blob in (manifest.config, *manifest.layers):
        oci.embedded(blob, what)
    config_data = store.read(manifest.config.digest)
    _check_size(manifest.config, len(config_data), f"image config {manifest.config.digest}")
    config = oci.decode(oci.ImageConfig, config_data, f"image config {manifest.config.digest}")
    if len(config.diff_ids) != len(manifest.layers):
        raise InvalidArgument(
            f"image {target.digest} has {len(manifest.layers)} layers but {len(config.diff_ids)} diff IDs"
        )
    if config.rootfs.type != "layers":
        raise InvalidArgument(f"image {target.digest} has a rootfs of type {config.rootfs.type!r}, not layers")
    for diff_id in config.diff_ids:
        digests.parse(diff_id)
    return Image(target, descriptor, manifest, config)


def _check_size(descriptor: oci.Descriptor, size: int, what: str) -> None:
    if size != descriptor.size:
        raise DataLoss(f"{what} has {size} bytes, its descriptor says that its size is {descriptor.size}")


def children(store: Store, descriptor: oci.Descriptor) -> "list[oci.Descriptor]":
    """What a manifest or index refers to; nothing for other content."""
    if descriptor.media_type in oci.INDEX_TYPES:
        index = oci.decode(oci.Index, store.read(descriptor.digest), f"index {descriptor.digest}")
        return list(index.manifests or [])
    if descriptor.media_type in oci.MANIFEST_TYPES:
        manifest = oci.decode(oci.Manifest, store.read(descriptor.digest), f"manifest {descriptor.digest}")
        return [manifest.config, *manifest.layers]
    return []


def gc_labels(store: Store, descriptor: oci.Descriptor) -> "dict[str, str]":
    """The labels that make garbage collection keep what ``descriptor`` refers to (containerd, docs/gc.md)."""
    labels = {}
    for number, child in enumerate(children(store, descriptor)):
        if child.media_type in oci.CONFIG_TYPES:
            labels["containerd.io/gc.ref.content.config"] = child.digest
        elif child.media_type in oci.INDEX_TYPES | oci.MANIFEST_TYPES:
            labels[f"containerd.io/gc.ref.content.m.{number}"] = child.digest
        else:
            labels[f"containerd.io/gc.ref.content.l.{number - 1}"] = child.digest
    return labels


def tree(store: Store, target: oci.Descriptor) -> "list[oci.Descriptor]":
    """``target`` and everything below it that is in the store, parents first, each once."""
    found: dict[str, oci.Descriptor] = {}
    pending = [target]
    while pending:
        descriptor = pending.pop(0)
        if descriptor.digest in found or not store.exists(descriptor.digest):
            continue
        found[descriptor.digest] = descriptor
        pending += children(store, descriptor)
    return list(found.values())


def _choose(store: Store, index: oci.Index, wanted: Platform, target: oci.Descriptor) -> oci.Descriptor:
    there = [
        one
        for one in index.manifests or []
        if one.media_type in oci.MANIFEST_TYPES | oci.INDEX_TYPES and store.exists(one.digest)
    ]
    chosen, _ = oci.for_platform(there, wanted)
    if chosen is None:
        raise NotFound(f"image {target.digest} has no manifest for {wanted}")
    return chosen
