"""From a name in a layout to a manifest, and everything that the layout's index reaches.

A name may mean a manifest or an index of manifests, which may nest. `DescriptorPath` keeps the whole way from the
layout's index to the manifest, because who changes the manifest has to change each index on the way.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from boxship.errors import FailedPrecondition, InvalidArgument, NotFound
from boxship.image.blobs import read_document
from boxship.image.layout import Layout
from boxship.oci import image as oci
from boxship.oci import platform as platforms

# image-spec, annotations.md: the grammar of org.opencontainers.image.ref.name
_COMPONENT = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_NESTED = 8


def is_valid_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class DescriptorPath:
    """``steps``: an entry of the layout's index, the indexes below it, the manifest."""

    steps: "tuple[oci.Descriptor, ...]"

    @property
    def root(self) -> oci.Descriptor:
        return self.steps[0]

    @property
    def manifest(self) -> oci.Descriptor:
        return self.steps[-1]


def resolve(layout: Layout, name: str) -> DescriptorPath:
    """The manifest that ``name`` means on this host.

    Raises NotFound, FailedPrecondition (the name is ambiguous), InvalidArgument (damaged, or nested too deep).
    """
    entries = layout.find(name)
    if not entries:
        raise NotFound(f"no image is named {name!r} in {layout.path}", remedy="the names are listed by 'ls'")
    if len(entries) > 1:
        raise FailedPrecondition(
            f"the name {name!r} in {layout.path} is ambiguous",
            cause=f"{len(entries)} entries of the index have it",
            remedy="remove the name and give it to one of them",
        )
    steps = [entries[0]]
    while steps[-1].media_type in oci.INDEX_TYPES:
        if len(steps) > _NESTED:
            raise InvalidArgument(f"the index {entries[0].digest} is nested too deep")
        steps.append(_choose(layout, steps[-1]))
    return DescriptorPath(tuple(steps))


def _choose(layout: Layout, descriptor: oci.Descriptor) -> oci.Descriptor:
    index = oci.decode(oci.Index, read_document(layout, descriptor), f"index {descriptor.digest}")
    there = [one for one in index.manifests or [] if one.media_type in oci.MANIFEST_TYPES | oci.INDEX_TYPES]
    wanted = platforms.host()
    chosen, _ = oci.for_platform(there, wanted)
    if chosen is None:
        raise NotFound(f"index {descriptor.digest} has no manifest for {wanted}")
    return chosen


def read_manifest(layout: Layout, descriptor: oci.Descriptor) -> oci.Manifest:
    """Raises InvalidArgument when it is no manifest, NotFound, DataLoss."""
    what = f"manifest {descriptor.digest}"
    if descriptor.media_type not in oci.MANIFEST_TYPES:
        raise InvalidArgument(f"{descriptor.digest} is no image manifest", cause=f"it is {descriptor.media_type}")
    data = read_document(layout, descriptor)
    if oci.document_media_type(data, what) not in oci.MANIFEST_TYPES:
        raise InvalidArgument(f"{what} is no image manifest")
    return oci.decode(oci.Manifest, data, what)


def read_config(layout: Layout, manifest: oci.Manifest) -> oci.ImageConfig:
    """Raises InvalidArgument for artifacts, whose config is something else."""
    if manifest.config.media_type not in oci.CONFIG_TYPES:
        raise InvalidArgument(
            f"{manifest.config.digest} is no image config",
            cause=f"it is {manifest.config.media_type}",
            remedy="artifacts have no file system to unpack or change",
        )
    data = read_document(layout, manifest.config)
    config = oci.decode(oci.ImageConfig, data, f"image config {manifest.config.digest}")
    if config.rootfs.type != "layers":
        raise InvalidArgument(f"the image has a root file system of type {config.rootfs.type!r}, not layers")
    if len(config.diff_ids) != len(manifest.layers):
        raise InvalidArgument(f"the image has {len(manifest.layers)} layers, but {len(config.diff_ids)} diff IDs")
    return config


def reachable(layout: Layout) -> "set[str]":
    """The digests of everything that the layout's index leads to, whether it is there or not."""
    found: set[str] = set()
    pending = list(layout.index().manifests or [])
    while pending:
        descriptor = pending.pop()
        if descriptor.digest in found:
            continue
        found.add(descriptor.digest)
        if layout.exists(descriptor.digest) or descriptor.data is not None:
            pending += _children(layout, descriptor)
    return found


def _children(layout: Layout, descriptor: oci.Descriptor) -> "Iterator[oci.Descriptor]":
    what = f"content {descriptor.digest}"
    if descriptor.media_type in oci.INDEX_TYPES:
        index = oci.decode(oci.Index, read_document(layout, descriptor), what)
        yield from index.manifests or []
        if index.subject:
            yield index.subject
    elif descriptor.media_type in oci.MANIFEST_TYPES:
        manifest = oci.decode(oci.Manifest, read_document(layout, descriptor), what)
        yield manifest.config
        yield from manifest.layers
        if manifest.subject:
            yield manifest.subject
