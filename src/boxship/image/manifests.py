"""Manifests as copy handles them: the bytes as they are, and the few edits that a copy can ask for.

A `Document` is a manifest or an index with its media type; its digest is that of its bytes, so it is encoded anew
only
when something in it has to change (another format, other layers). Then it is edited as JSON, and fields that we do
not know stay.
OCI and docker's schema 2 say the same with other media types (docker's registry documentation, "Image Manifest V 2,
Schema 2"; image-spec, media-types.md, "Compatibility Matrix"); the config is the same document in both.
"""

import base64
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from boxship.errors import InvalidArgument, Unimplemented
from boxship.image.streams import Compression
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci.digest import Digest

Format = Literal["oci", "v2s2"]
FORMATS: "tuple[Format, ...]" = ("oci", "v2s2")
MANIFEST_OF: "dict[Format, str]" = {"oci": oci.MEDIA_MANIFEST, "v2s2": oci.DOCKER_MANIFEST}
INDEX_OF: "dict[Format, str]" = {"oci": oci.MEDIA_INDEX, "v2s2": oci.DOCKER_INDEX}
CONFIG_OF: "dict[Format, str]" = {"oci": oci.MEDIA_CONFIG, "v2s2": oci.DOCKER_CONFIG}

MEDIA_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
MEDIA_FOREIGN_GZIP = MEDIA_FOREIGN + "+gzip"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
ENCRYPTED = "+encrypted"
OCI_LAYERS = "application/vnd.oci.image.layer."
_PLACES = ("io.github.containers.zstd-chunked.", "io.containers.zstd-chunked.", "containerd.io/snapshot/stargz/")
"""Annotations that say where in a blob its table of contents is: of those bytes, and of no others."""

# (format, compression, foreign) -> the media type of a layer; what is not here cannot be said in that format
LAYER_MEDIA: "dict[tuple[Format, Compression, bool], str]" = {
    ("oci", "", False): oci.MEDIA_LAYER,
    ("oci", "gzip", False): oci.MEDIA_LAYER_GZIP,
    ("oci", "zstd", False): oci.MEDIA_LAYER_ZSTD,
    ("oci", "", True): MEDIA_FOREIGN,
    ("oci", "gzip", True): MEDIA_FOREIGN_GZIP,
    ("oci", "zstd", True): MEDIA_FOREIGN + "+zstd",
    ("v2s2", "", False): oci.DOCKER_LAYER,
    ("v2s2", "gzip", False): oci.DOCKER_LAYER_GZIP,
    ("v2s2", "", True): DOCKER_FOREIGN,
    ("v2s2", "gzip", True): oci.DOCKER_FOREIGN_LAYER_GZIP,
}
_MEANING = {media: (compression, foreign) for (_, compression, foreign), media in LAYER_MEDIA.items()}
# docker's name for a plain layer is written by tools that have the older spelling in mind
_MEANING["application/vnd.docker.image.rootfs.diff.tar"] = ("", False)


class Document(msgspec.Struct, frozen=True):
    """A manifest or an index: its bytes, never encoded again, and what they are."""

    data: bytes
    media_type: str

    @property
    def is_index(self) -> bool:
        return self.media_type in oci.INDEX_TYPES

    @property
    def digest(self) -> Digest:
        return digests.of(self.data)

    @property
    def descriptor(self) -> oci.Descriptor:
        return oci.Descriptor(self.media_type, self.digest, len(self.data))

    @property
    def format(self) -> "Format":
        """Raises InvalidArgument for what is neither OCI's nor docker's."""
        for format in FORMATS:
            if self.media_type in (MANIFEST_OF[format], INDEX_OF[format]):
                return format
        raise InvalidArgument(f"manifest {self.digest} has the unknown media type {self.media_type}")

    def manifest(self) -> oci.Manifest:
        return oci.decode(oci.Manifest, self.data, f"manifest {self.digest}")

    def index(self) -> oci.Index:
        return oci.decode(oci.Index, self.data, f"index {self.digest}")


def read(data: bytes, what: str) -> Document:
    """A document from its bytes; raises InvalidArgument (no manifest, or one of docker's schema 1)."""
    return Document(data, oci.document_media_type(data, what))


def digest_of(data: bytes) -> Digest:
    """The digest that a registry gives to a manifest: of a signed one of schema 1, that of what was signed."""
    try:
        signatures = msgspec.json.decode(data, type=dict[str, Any]).get("signatures")
        if isinstance(signatures, list) and signatures:
            protected = msgspec.json.decode(_base64url(signatures[0]["protected"]), type=dict[str, Any])
            return digests.of(data[: int(protected["formatLength"])] + _base64url(protected["formatTail"]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, ValueError):
        pass  # not a signed one; then its bytes count
    return digests.of(data)


def _base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def compression_of(media_type: str) -> "tuple[Compression, bool] | None":
    """What a layer's media type says: its compression, and whether it is foreign; None for no layer of an image."""
    return _MEANING.get(media_type.removesuffix(ENCRYPTED))


def layer_media(format: Format, compression: Compression, foreign: bool) -> str:
    """Raises InvalidArgument for zstd in docker's format, which has no word for it."""
    media = LAYER_MEDIA.get((format, compression, foreign))
    if media is None:
        raise InvalidArgument(
            f"a layer compressed by {compression} cannot be in a manifest of format {format}",
            remedy="use --format oci, or gzip",
        )
    return media


def convert(document: Document, format: Format) -> Document:
    """The same image in another format; raises InvalidArgument for what that format cannot say."""
    if document.format == format:
        return document
    fields = msgspec.json.decode(document.data, type=dict[str, Any])
    fields["mediaType"] = (INDEX_OF if document.is_index else MANIFEST_OF)[format]
    if document.is_index:
        return Document(msgspec.json.encode(fields), fields["mediaType"])
    manifest = document.manifest()
    if manifest.config.media_type not in oci.CONFIG_TYPES:
        raise InvalidArgument(
            f"manifest {document.digest} cannot be written in format {format}",
            cause=f"it is no image but an artifact, with a config of type {manifest.config.media_type}",
            remedy="copy it in its own format",
        )
    fields["config"]["mediaType"] = CONFIG_OF[format]
    for layer in fields["layers"]:
        if format == "oci" and layer["mediaType"].startswith(OCI_LAYERS):
            continue  # made on the way, in OCI's words
        found = compression_of(layer["mediaType"])
        if found is None or layer["mediaType"].endswith(ENCRYPTED):
            raise InvalidArgument(
                f"layer {layer['digest']} of type {layer['mediaType']} cannot be in a manifest of format {format}"
            )
        layer["mediaType"] = layer_media(format, *found)
    if format == "v2s2":  # its fields are these; annotations have no place there
        for name in ("annotations", "subject", "artifactType"):
            fields.pop(name, None)
        for one in (fields["config"], *fields["layers"]):
            one.pop("annotations", None)
    fields = {"schemaVersion": 2, "mediaType": fields.pop("mediaType"), **fields}
    return Document(msgspec.json.encode(fields), fields["mediaType"])


def with_layers(document: Document, layers: "Sequence[oci.Descriptor]") -> Document:
    """The manifest with these layers in the place of its own, as many; unchanged bytes where they are the same.

    A layer of other bytes loses the annotations that say where things lie in the old ones (zstd:chunked, eStargz).
    """
    own = document.manifest().layers
    if list(layers) == own:
        return document
    fields = msgspec.json.decode(document.data, type=dict[str, Any])
    for entry, descriptor in zip(fields["layers"], layers, strict=True):
        annotations = descriptor.annotations or {}
        if entry["digest"] != descriptor.digest:
            annotations = {key: value for key, value in annotations.items() if not key.startswith(_PLACES)}
        entry.update(mediaType=descriptor.media_type, digest=descriptor.digest, size=descriptor.size)
        entry.pop("annotations", None)
        if annotations:
            entry["annotations"] = annotations
    return Document(msgspec.json.encode(fields), document.media_type)


def with_instances(document: Document, instances: "Sequence[oci.Descriptor]") -> Document:
    """The index with these manifests in the place of its own, as many; unchanged bytes where they are the same."""
    fields = msgspec.json.decode(document.data, type=dict[str, Any])
    changed = False
    for entry, descriptor in zip(fields.get("manifests") or [], instances, strict=True):
        fresh = {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
        changed = changed or any(entry[key] != value for key, value in fresh.items())
        entry.update(fresh)
    return Document(msgspec.json.encode(fields), document.media_type) if changed else document


def wanted_format(text: str) -> "Format | None":
    """``--format``; raises InvalidArgument, and Unimplemented for schema 1, which registries have given up."""
    if text == "v2s1":
        raise Unimplemented(
            "format v2s1 is not written",
            cause="docker's schema 1 was retired, and current registries refuse it",
            remedy="use v2s2 or oci",
        )
    if text and text not in FORMATS:
        raise InvalidArgument(f"unknown format {text!r}", remedy="one of oci, v2s2")
    return next((one for one in FORMATS if one == text), None)
