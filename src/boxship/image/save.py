"""Writing images: one tar that is a docker-archive and an OCI layout at once, as docker itself writes it.

``manifest.json`` names the blobs by their paths in the layout, so `docker load`, skopeo and podman read the same
bytes that an OCI reader does. Entries have no times and no owners: equal images give equal archives.
"""

import os
import tarfile
from collections.abc import Sequence
from typing import BinaryIO, Protocol

import msgspec

from boxship.image.compression import CHUNK
from boxship.image.load import DockerImage
from boxship.image.store import Image, Store, tree
from boxship.oci import image as oci
from boxship.oci import reference

LAYOUT_VERSION = b'{"imageLayoutVersion":"1.0.0"}'


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


def save(store: Store, images: Sequence[Image], out: Sink) -> None:
    """Write ``images`` with their names to ``out``. Missing content raises NotFound before anything is written
    of it; content of other platforms that is not in the store is left out, as docker does."""
    blobs: dict[str, oci.Descriptor] = {}
    manifests: list[oci.Descriptor] = []
    docker: list[DockerImage] = []
    for image in images:
        for descriptor in tree(store, image.target):
            blobs.setdefault(descriptor.digest, descriptor)
        manifests += _index_entries(image)
        docker.append(
            DockerImage(
                _path(image.id),
                [_path(layer.digest) for layer in image.manifest.layers],
                [reference.familiar(name) for name in image.names] or None,
            )
        )
    _directory(out, "blobs/")
    _directory(out, "blobs/sha256/")
    for digest in sorted(blobs):
        with store.open(digest) as blob:
            _blob(out, _path(digest), blob)
    _file(out, "index.json", oci.encode(oci.Index(2, manifests, media_type=oci.MEDIA_INDEX)))
    _file(out, "manifest.json", msgspec.json.encode(docker))
    _file(out, "oci-layout", LAYOUT_VERSION)
    out.write(bytes(2 * tarfile.BLOCKSIZE))


def write_layout(store: Store, images: Sequence[Image], path: str) -> None:
    """Write ``images`` as an OCI layout into the directory ``path``, which is made."""
    os.makedirs(os.path.join(path, "blobs", "sha256"), exist_ok=True)
    manifests: list[oci.Descriptor] = []
    for image in images:
        for descriptor in tree(store, image.target):
            with (
                store.open(descriptor.digest) as blob,
                open(os.path.join(path, _path(descriptor.digest)), "wb") as to,
            ):
                while data := blob.read(CHUNK):
                    to.write(data)
        manifests += _index_entries(image)
    for name, data in (
        ("index.json", oci.encode(oci.Index(2, manifests, media_type=oci.MEDIA_INDEX))),
        ("oci-layout", LAYOUT_VERSION),
    ):
        with open(os.path.join(path, name), "wb") as file:
            file.write(data)


def _index_entries(image: Image) -> "list[oci.Descriptor]":
    target = image.target
    if not image.names:
        return [target]
    return [
        oci.Descriptor(
            target.media_type,
            target.digest,
            target.size,
            annotations={
                oci.ANNOTATION_IMAGE_NAME: name,
                oci.ANNOTATION_REF_NAME: reference.parse(name).tag or "latest",
            },
        )
        for name in image.names
    ]


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)


def _directory(out: Sink, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    out.write(info.tobuf(tarfile.PAX_FORMAT))


def _file(out: Sink, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    out.write(info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE))


def _blob(out: Sink, name: str, blob: BinaryIO) -> None:
    info = tarfile.TarInfo(name)
    info.size = blob.seek(0, os.SEEK_END)
    blob.seek(0)
    out.write(info.tobuf(tarfile.PAX_FORMAT))
    while data := blob.read(CHUNK):
        out.write(data)
    out.write(bytes(-info.size % tarfile.BLOCKSIZE))
