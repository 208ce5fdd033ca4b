"""The image-spec's JSON documents as typed values (image-spec 1.1).

Reading only: content is named by the digest of its exact bytes, so a document that exists is never encoded
again. What is made here (a manifest for an imported tar) is encoded once by `encode` and then is bytes too.
Unknown fields are ignored when read, as the spec asks, and are kept because the raw bytes are.
"""

import base64
from typing import Annotated, Any, TypeVar

import msgspec

from boxship.errors import InvalidArgument
from boxship.oci import digest as digests
from boxship.oci import strict_json
from boxship.oci.platform import Platform, best, normalise

MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"
MEDIA_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
MEDIA_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
MEDIA_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_FOREIGN_LAYER_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

INDEX_TYPES = frozenset({MEDIA_INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({MEDIA_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({MEDIA_CONFIG, DOCKER_CONFIG})
LAYER_TYPES = frozenset(
    {MEDIA_LAYER, MEDIA_LAYER_GZIP, MEDIA_LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP} | {DOCKER_FOREIGN_LAYER_GZIP}
)

ANNOTATION_REF_NAME = "org.opencontainers.image.ref.name"
ANNOTATION_IMAGE_NAME = "io.containerd.image.name"
LABEL_UNCOMPRESSED = "containerd.io/uncompressed"

# A document larger than this is refused before it is parsed (distribution-spec suggests 4 MiB for manifests).
DOCUMENT_LIMIT = 4 << 20

T = TypeVar("T")

Size = Annotated[int, msgspec.Meta(ge=0)]
SchemaVersion = Annotated[int, msgspec.Meta(ge=2, le=2)]


class ImagePlatform(msgspec.Struct, omit_defaults=True, frozen=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: list[str] = msgspec.field(default_factory=list, name="os.features")


class Descriptor(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    media_type: str
    digest: str
    size: Size
    urls: list[str] = msgspec.field(default_factory=list)
    annotations: "dict[str, str] | None" = None
    data: "str | None" = None
    platform: "ImagePlatform | None" = None
    artifact_type: str = ""


class Index(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    schema_version: SchemaVersion
    manifests: list[Descriptor] | None = None
    media_type: str = ""
    annotations: "dict[str, str] | None" = None
    artifact_type: str = ""
    subject: "Descriptor | None" = None


class Manifest(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    schema_version: SchemaVersion
    config: Descriptor
    layers: list[Descriptor]
    media_type: str = ""
    annotations: "dict[str, str] | None" = None
    artifact_type: str = ""
    subject: "Descriptor | None" = None


class RootFS(msgspec.Struct, frozen=True):
    type: str = "layers"
    diff_ids: "list[str] | None" = None


class History(msgspec.Struct, omit_defaults=True, frozen=True):
    created: "str | None" = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, omit_defaults=True, frozen=True):
    """``config`` stays a plain dict: its keys are the engine's vocabulary (Env, Cmd, ...), not ours."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    created: "str | None" = None
    author: str = ""
    config: "dict[str, Any] | None" = None
    rootfs: RootFS = RootFS()
    history: "list[History] | None" = None

    @property
    def diff_ids(self) -> "list[str]":
        return self.rootfs.diff_ids or []


def decode(kind: type[T], data: bytes, what: str) -> T:
    """Read one document; raises InvalidArgument that names it (``what``) and the field at fault."""
    if len(data) > DOCUMENT_LIMIT:
        raise InvalidArgument(f"{what} is larger than {DOCUMENT_LIMIT} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"invalid {what}", cause=str(error)) from error


def encode(document: msgspec.Struct) -> bytes:
    """The bytes of a document that we made; deterministic, so that equal input gives an equal digest."""
    return msgspec.json.encode(document)


def document_media_type(data: bytes, what: str) -> str:
    """The media type of a manifest or index, also when the document leaves it out (OCI allows that).

    A document that two readers could take for different things is refused (CVE-2021-41190): one with the fields of
    both, or with a field twice, or with one in other letters, since some readers do not look at the case of a key.
    """
    try:
        fields = strict_json.load(data, DOCUMENT_LIMIT)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid {what}", cause=error.message) from error
    if not isinstance(fields, dict):
        raise InvalidArgument(f"invalid {what}", cause="it is no JSON object")
    for key in fields:
        if key not in _TELLING and (meant := _TELLING_IN_LOWER_CASE.get(key.lower())):
            raise InvalidArgument(f"invalid {what}", cause=f"the field {key!r} may be taken for {meant!r}")
    stated = fields.get("mediaType", "")
    if not isinstance(stated, str):
        raise InvalidArgument(f"invalid {what}", cause="mediaType is no string")
    index, manifest = "manifests" in fields, "layers" in fields or "config" in fields
    if index and manifest:
        raise InvalidArgument(f"invalid {what}", cause="it has the fields of both an index and a manifest")
    if "fsLayers" in fields:
        raise InvalidArgument(f"invalid {what}", cause="schema 1 manifests are not supported")
    if (stated in INDEX_TYPES and manifest) or (stated in MANIFEST_TYPES and index):
        raise InvalidArgument(f"invalid {what}", cause=f"its mediaType is {stated}, its fields are the other's")
    return stated or (MEDIA_INDEX if index else MEDIA_MANIFEST)


_TELLING = ("mediaType", "schemaVersion", "manifests", "config", "layers", "fsLayers", "subject", "artifactType")
_TELLING_IN_LOWER_CASE = {key.lower(): key for key in _TELLING}


def embedded(descriptor: Descriptor, what: str) -> "bytes | None":
    """The content that a descriptor carries itself (descriptor.md, Embedded Content), None when it has none.

    Raises InvalidArgument when it is not what size and digest say: some readers use it, some the blob.
    """
    if descriptor.data is None:
        return None
    try:
        data = base64.b64decode(descriptor.data, validate=True)
    except ValueError as error:  # binascii.Error is one
        raise InvalidArgument(f"{what}: the data of {descriptor.digest} is not base64") from error
    digest = digests.parse(descriptor.digest)
    if len(data) != descriptor.size or digests.of(data, digests.algorithm(digest)) != digest:
        raise InvalidArgument(f"{what}: the data of {descriptor.digest} is other content")
    return data


def chain_ids(diff_ids: "list[str]") -> "list[str]":
    """The chain IDs of each prefix of ``diff_ids`` (image-spec, config.md, Layer ChainID)."""
    chain: list[str] = []
    for diff_id in diff_ids:
        digests.parse(diff_id)
        chain.append(digests.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain


def for_platform(entries: "list[Descriptor]", wanted: Platform) -> "tuple[Descriptor | None, list[Platform]]":
    """The entry of an index that runs on ``wanted`` (None: none does), and what the entries are for.

    An entry that says no platform is for any (image-spec, image-index.md: the property is optional).
    """
    offered = [
        normalise(one.platform.os, one.platform.architecture, one.platform.variant) if one.platform else wanted
        for one in entries
    ]
    index = best(wanted, offered)
    return (None if index is None else entries[index]), offered
