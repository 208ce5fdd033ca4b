"""Reading images from archives and layouts into a content store.

Three shapes are read: what ``docker save`` writes today (an OCI layout with docker's ``manifest.json`` beside
it), what it used to write (``manifest.json``, ``<id>/layer.tar``, repeated layers as symlinks), and a plain OCI
layout, as a directory or a tar. Archives may be compressed and are read once, from front to back: large members
go straight into the store and are named afterwards, because ``manifest.json`` comes last.
When anything is wrong, everything that this call wrote is deleted again.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from boxship.errors import DataLoss, InvalidArgument
from boxship.image import tar
from boxship.image.apply import clean_name
from boxship.image.compression import Reader, detect, inflate
from boxship.image.store import Image, Store, resolve
from boxship.image.tar import TarReader
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci import reference
from boxship.oci.digest import Digest

_DOCUMENTS = ("manifest.json", "index.json", "oci-layout", "repositories")
_BLOBS = "blobs/"
LAYER_MEDIA = {"": oci.MEDIA_LAYER, "gzip": oci.MEDIA_LAYER_GZIP, "zstd": oci.MEDIA_LAYER_ZSTD}


class DockerImage(msgspec.Struct, rename="pascal"):
    """One item of docker's manifest.json."""

    config: str
    layers: list[str]
    repo_tags: "list[str] | None" = None


class _LayoutVersion(msgspec.Struct, rename="camel"):
    image_layout_version: str


class _Members:
    """What an archive held: documents by path, blobs by path."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.blobs: dict[str, Digest] = {}
        self.links: dict[str, str] = {}

    def blob(self, path: str) -> Digest:
        """The digest of the member ``path``, links followed; raises InvalidArgument when it is not there."""
        name = clean_name(path, "archive")
        for _ in range(8):
            if name in self.blobs:
                return self.blobs[name]
            if name not in self.links:
                break
            name = self.links[name]
        raise InvalidArgument(f"archive refers to {path!r}, which it does not contain")


def load_archive(source: Reader, store: Store) -> "list[Image]":
    """Load every image of a docker-archive or OCI archive, compressed or not; they are checked and complete.

    Raises InvalidArgument (not an image archive, hostile paths), DataLoss (cut short, wrong digest),
    ResourceExhausted (disk full); then the store is as it was before.
    """
    with undo(store) as put:
        members = _read_members(inflate(source), put)
        return _images(members, store, put)


def load_layout(path: str, store: Store) -> "list[Image]":
    """Load every image of the OCI layout in the directory ``path``; raises as `load_archive`."""
    with undo(store) as put:
        members = _Members()
        for name in _DOCUMENTS:
            try:
                with open(os.path.join(path, name), "rb") as file:
                    members.documents[name] = file.read(oci.DOCUMENT_LIMIT + 1)
            except FileNotFoundError:
                continue
        for algorithm in sorted(os.listdir(os.path.join(path, "blobs"))):
            for name in sorted(os.listdir(os.path.join(path, "blobs", algorithm))):
                with open(os.path.join(path, "blobs", algorithm, name), "rb") as file:
                    digest = digests.parse(f"{algorithm}:{name}")
                    members.blobs[f"blobs/{algorithm}/{name}"] = put(file, digest)
        return _images(members, store, put)


Put = Callable[["Reader | bytes", str], Digest]


@contextmanager
def undo(store: Store) -> "Iterator[Put]":
    """Gives a ``put`` that remembers what is new, and deletes it again when the block raises."""
    fresh: list[Digest] = []

    def put(source: "Reader | bytes", expected: str) -> Digest:
        digest, new = store.add(source, expected=expected)
        if new:
            fresh.append(digest)
        return digest

    try:
        yield put
    except BaseException:
        for digest in fresh:
            store.delete(digest)
        raise


def _read_members(source: Reader, put: Put) -> _Members:
    members = _Members()
    reader = TarReader(source)
    for entry in reader:
        name = clean_name(entry.name, "archive")
        match entry.type:
            case tar.REGULAR if name.startswith(_BLOBS):
                parts = name.split("/")
                if len(parts) != 3:
                    raise InvalidArgument(f"archive: unexpected member {entry.name!r}")
                members.blobs[name] = put(_Member(reader), digests.parse(f"{parts[1]}:{parts[2]}"))
            case tar.REGULAR if name in _DOCUMENTS or name.endswith((".json", "/json", "VERSION")):
                if entry.size > oci.DOCUMENT_LIMIT:
                    raise InvalidArgument(f"archive: {entry.name!r} is larger than {oci.DOCUMENT_LIMIT} bytes")
                members.documents[name] = b"".join(reader.data())
            case tar.REGULAR:
                members.blobs[name] = put(_Member(reader), "")
            case tar.SYMLINK:
                target = f"{name.rpartition('/')[0]}/{entry.linkname}"
                members.links[name] = clean_name(target, f"archive: symlink {entry.name!r}")
            case tar.LINK:
                members.links[name] = clean_name(entry.linkname, f"archive: hard link {entry.name!r}")
            case tar.DIRECTORY:
                pass
            case _:
                raise InvalidArgument(f"archive: member {entry.name!r} is neither file, link nor directory")
    return members


class _Member:
    """The current member of a tar as a reader."""

    def __init__(self, reader: TarReader) -> None:
        self._pieces = reader.data()
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            data, self._rest = self._rest + b"".join(self._pieces), b""
            return data
        if not self._rest:
            self._rest = next(self._pieces, b"")
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _images(members: _Members, store: Store, put: Put) -> "list[Image]":
    docker: "list[DockerImage]" = []
    if "manifest.json" in members.documents:
        docker = oci.decode(list[DockerImage], members.documents["manifest.json"], "manifest.json of the archive")
    if "oci-layout" in members.documents and "index.json" in members.documents:
        return _oci_images(members, store, docker)
    if docker:
        return [_docker_image(one, members, store, put) for one in docker]
    raise InvalidArgument(
        "not an image archive",
        cause="it has neither index.json nor manifest.json",
        remedy="a root file system's tar is loaded with import",
    )


def _oci_images(members: _Members, store: Store, docker: "list[DockerImage]") -> "list[Image]":
    version = oci.decode(_LayoutVersion, members.documents["oci-layout"], "oci-layout").image_layout_version
    if version != "1.0.0":
        raise InvalidArgument(f"image layout version {version!r} is not supported")
    what = "index.json of the archive"
    oci.document_media_type(members.documents["index.json"], what)
    index = oci.decode(oci.Index, members.documents["index.json"], what)
    images: dict[str, Image] = {}
    for descriptor in index.manifests or []:
        if descriptor.media_type not in oci.INDEX_TYPES | oci.MANIFEST_TYPES:
            continue
        bare = oci.Descriptor(descriptor.media_type, digests.parse(descriptor.digest), descriptor.size)
        image = images.get(bare.digest)
        if image is None:
            image = images[bare.digest] = _complete(store, resolve(store, bare))
        name = _annotated_name(descriptor.annotations or {})
        if name and name not in image.names:
            image.names.append(name)
    if not images:
        raise InvalidArgument("the archive contains no image")
    by_config = {image.id: image for image in images.values()}
    for one in docker:  # docker writes its tags here too; index.json of other writers has no full names
        config = f"sha256:{os.path.basename(one.config).removesuffix('.json')}"
        for tag in one.repo_tags or []:
            name = reference.normalise(tag)
            if config in by_config and name not in by_config[config].names:
                by_config[config].names.append(name)
    return list(images.values())


def _annotated_name(annotations: "dict[str, str]") -> str:
    """The full reference that an index entry is annotated with, or ""; a lone tag names nothing."""
    full = annotations.get(oci.ANNOTATION_IMAGE_NAME, "")
    short = annotations.get(oci.ANNOTATION_REF_NAME, "")
    text = full or (short if ":" in short or "/" in short else "")
    return reference.normalise(text) if text else ""


def _docker_image(one: DockerImage, members: _Members, store: Store, put: Put) -> Image:
    config_name = clean_name(one.config, "archive")
    if config_name in members.documents:
        config_data = members.documents[config_name]
    else:
        config_data = store.read(members.blob(config_name))
    config = oci.decode(oci.ImageConfig, config_data, f"image config {one.config}")
    stem = os.path.basename(config_name).removesuffix(".json")
    if len(stem) == 64 and digests.encoded(digests.of(config_data)) != stem:
        raise DataLoss(f"image config {one.config} has digest {digests.of(config_data)}")
    if len(config.diff_ids) != len(one.layers):
        raise InvalidArgument(
            f"image config {one.config} has {len(config.diff_ids)} diff IDs but {len(one.layers)} layers"
        )
    layers = []
    for path, diff_id in zip(one.layers, config.diff_ids, strict=True):
        digest = members.blob(path)
        with store.open(digest) as blob:
            compression = detect(blob.read(6))
            size = blob.seek(0, os.SEEK_END)
        if not compression and digest != diff_id:
            raise DataLoss(f"layer {path} has digest {digest}, the image config expects {diff_id}")
        layers.append(oci.Descriptor(LAYER_MEDIA[compression], digest, size))
    config_digest = put(config_data, digests.of(config_data))
    manifest = oci.encode(
        oci.Manifest(
            2,
            oci.Descriptor(oci.MEDIA_CONFIG, config_digest, len(config_data)),
            layers,
            media_type=oci.MEDIA_MANIFEST,
        )
    )
    target = oci.Descriptor(oci.MEDIA_MANIFEST, put(manifest, digests.of(manifest)), len(manifest))
    image = resolve(store, target)
    for tag in one.repo_tags or []:
        name = reference.normalise(tag)
        if name not in image.names:
            image.names.append(name)
    return image


def _complete(store: Store, image: Image) -> Image:
    for layer in image.manifest.layers:
        if layer.media_type in oci.LAYER_TYPES and not store.exists(digests.parse(layer.digest)):
            raise InvalidArgument(f"the archive lacks the layer {layer.digest}")
        if layer.media_type in oci.LAYER_TYPES:
            with store.open(layer.digest) as blob:
                size = blob.seek(0, os.SEEK_END)
            if size != layer.size:
                raise DataLoss(f"layer {layer.digest} has {size} bytes, its descriptor says a size of {layer.size}")
    return image
