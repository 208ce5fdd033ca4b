"""Small images for tests, in the forms that tools write."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import msgspec

from boxship.image.compression import detect
from boxship.image.layout import Layout
from boxship.image.load import LAYER_MEDIA
from boxship.image.manifests import Document
from boxship.oci import digest as digests
from boxship.oci import image as oci


def layer(**files: bytes) -> bytes:
    """A tar with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


LAYERS = (layer(first=bytes(range(256)) * 300), layer(second=b"another layer\n" * 50))


def config(layers: tuple[bytes, ...] = LAYERS, architecture: str = "amd64", **fields: object) -> bytes:
    document = {
        "created": "2024-05-06T07:08:09Z",
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/first"], "Env": ["PATH=/bin", "A=b"], "Labels": {"name": "tiny", "two": "2"}},
        "rootfs": {"type": "layers", "diff_ids": [digests.of(one) for one in layers]},
        "history": [{"created_by": f"step {n}"} for n in range(len(layers))],
        **fields,
    }
    return json.dumps(document).encode()


def packed(layers: tuple[bytes, ...] = LAYERS) -> list[bytes]:
    return [gzip.compress(one, mtime=0) for one in layers]


def directory(path: Path, *, format: str = "v2s2", layers: tuple[bytes, ...] = LAYERS, **fields: object) -> str:
    """A ``dir:`` image with gzip layers; gives its manifest's digest."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "version").write_text("Directory Transport Version: 1.1\n")

    def put(data: bytes, media_type: str) -> oci.Descriptor:
        digest = digests.of(data)
        (path / digest.partition(":")[2]).write_bytes(data)
        return oci.Descriptor(media_type, digest, len(data))

    docker = format == "v2s2"
    manifest = oci.Manifest(
        2,
        put(config(layers, **fields), oci.DOCKER_CONFIG if docker else oci.MEDIA_CONFIG),  # type: ignore[arg-type]
        [put(one, oci.DOCKER_LAYER_GZIP if docker else oci.MEDIA_LAYER_GZIP) for one in packed(layers)],
        media_type=oci.DOCKER_MANIFEST if docker else oci.MEDIA_MANIFEST,
    )
    data = oci.encode(manifest)
    (path / "manifest.json").write_bytes(data)
    return digests.of(data)


def into_layout(
    layout: Layout,
    layers: tuple[bytes, ...] = LAYERS,
    architecture: str = "amd64",
    *,
    plain: bool = False,
    blobs: tuple[bytes, ...] = (),
    annotations: dict[str, str] | None = None,
) -> oci.Descriptor:
    """An OCI image in a layout, without a name; ``blobs`` are the layers as they were compressed elsewhere."""

    def put(data: bytes, media_type: str) -> oci.Descriptor:
        digest, _ = layout.add(data)
        return oci.Descriptor(media_type, digest, len(data))

    described = [put(one, LAYER_MEDIA[detect(one)]) for one in blobs or (layers if plain else packed(layers))]
    manifest = oci.Manifest(
        2,
        put(config(layers, architecture), oci.MEDIA_CONFIG),
        [msgspec.structs.replace(one, annotations=annotations) for one in described],
        media_type=oci.MEDIA_MANIFEST,
    )
    return put(oci.encode(manifest), oci.MEDIA_MANIFEST)


def layout(path: Path, name: str = "tiny", **how: bool) -> str:
    """A layout with one named image; gives its manifest's digest."""
    made = Layout.open_or_create(str(path))
    descriptor = into_layout(made, **how)  # type: ignore[arg-type]
    made.tag(name, descriptor)
    return descriptor.digest


def layout_with_index(path: Path, name: str = "multi", architectures: tuple[str, ...] = ("amd64", "arm64")) -> str:
    """A layout with an index of one image for each architecture; gives the index's digest."""
    made = Layout.open_or_create(str(path))
    entries = [
        oci.Descriptor(one.media_type, one.digest, one.size, platform=oci.ImagePlatform(architecture, "linux"))
        for architecture in architectures
        for one in (into_layout(made, (layer(only=architecture.encode()),), architecture),)
    ]
    data = oci.encode(oci.Index(2, entries, media_type=oci.MEDIA_INDEX))
    made.add(data)
    made.tag(name, Document(data, oci.MEDIA_INDEX).descriptor)
    return digests.of(data)
