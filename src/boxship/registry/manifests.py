"""What a pushed manifest says: its media type, what it needs, what it refers to.

The bytes are kept as they came; this only reads them, and refuses what two readers could understand differently.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from boxship.errors import InvalidArgument
from boxship.oci import image as oci

from . import names
from .errors import SpecError

KNOWN_TYPES = oci.INDEX_TYPES | oci.MANIFEST_TYPES


@dataclass(frozen=True, slots=True)
class Pushed:
    """A manifest or index that makes sense. ``needs`` are the descriptors without which it is not whole."""

    media_type: str
    needs: list[oci.Descriptor]
    subject: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] = field(default_factory=dict)


def read(data: bytes, content_type: str) -> Pushed:
    """Raises SpecError (MANIFEST_INVALID, DIGEST_INVALID) that says which field is wrong."""
    try:
        media_type = _media_type(data, content_type.partition(";")[0].strip())
        if media_type in oci.INDEX_TYPES:
            return _index(oci.decode(oci.Index, data, "index"), media_type)
        return _manifest(oci.decode(oci.Manifest, data, "manifest"), media_type)
    except InvalidArgument as error:
        raise SpecError("MANIFEST_INVALID", error.message, cause=error.cause) from error


def _media_type(data: bytes, sent: str) -> str:
    """The document's own word, else the Content-Type; the two must not differ, nor the document's form from it."""
    own = oci.document_media_type(data, "manifest")  # what its fields make it when it does not say
    if sent in KNOWN_TYPES and sent != own:
        said = bool(oci.decode(_Typed, data, "manifest").media_type)
        if said or (sent in oci.INDEX_TYPES) != (own in oci.INDEX_TYPES):
            raise _invalid(f"it is {own}, its Content-Type {sent}")
        return sent
    if own not in KNOWN_TYPES:
        raise _invalid(f"the media type {own!r} is not one of {', '.join(sorted(KNOWN_TYPES))}")
    return own


class _Typed(msgspec.Struct, rename="camel"):
    media_type: str = ""


def _index(index: oci.Index, media_type: str) -> Pushed:
    _version(index.schema_version)
    if index.manifests is None:
        raise _invalid("manifests is missing")
    for number, child in enumerate(index.manifests):
        _descriptor(child, f"manifests[{number}]")
    return Pushed(
        media_type, list(index.manifests), _subject(index.subject), index.artifact_type, index.annotations or {}
    )


def _manifest(manifest: oci.Manifest, media_type: str) -> Pushed:
    _version(manifest.schema_version)
    _descriptor(manifest.config, "config")
    for number, layer in enumerate(manifest.layers):
        _descriptor(layer, f"layers[{number}]")
    needs = [manifest.config, *(layer for layer in manifest.layers if not _elsewhere(layer))]
    kind = manifest.artifact_type or manifest.config.media_type
    return Pushed(media_type, needs, _subject(manifest.subject), kind, manifest.annotations or {})


def _elsewhere(layer: oci.Descriptor) -> bool:
    """A layer that must not be pushed (image-spec, layer.md, Non-Distributable Layers)."""
    return "nondistributable" in layer.media_type or layer.media_type == oci.DOCKER_FOREIGN_LAYER_GZIP


def _subject(subject: oci.Descriptor | None) -> str:
    if subject is None:
        return ""
    _descriptor(subject, "subject")
    return subject.digest


def _descriptor(descriptor: oci.Descriptor, where: str) -> None:
    names.digest(descriptor.digest, f"{where}.digest")
    if descriptor.size < 0:
        raise _invalid(f"{where}.size is {descriptor.size}")
    if not descriptor.media_type:
        raise _invalid(f"{where}.mediaType is empty")


def _version(version: int) -> None:
    if version != 2:
        raise _invalid(f"schemaVersion is {version}, not 2")


def _invalid(cause: str) -> SpecError:
    return SpecError("MANIFEST_INVALID", "invalid manifest", cause=cause)
