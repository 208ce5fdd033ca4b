"""The image-spec's JSON documents as typed values (image-spec 1.1).

Reading only: content is named by the digest of its exact bytes, so a document that exists is never encoded
again. What is made here (a manifest for an imported tar) is encoded once by `encode` and then is bytes too.
Unknown fields are ignored when read, as the spec asks, and are kept because the raw bytes are.
"""

from typing import Any, TypeVar

import msgspec

from boxship.errors import InvalidArgument

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


class ImagePlatform(msgspec.Struct, omit_defaults=True, frozen=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: list[str] = msgspec.field(default_factory=list, name="os.features")


class Descriptor(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    media_type: str
    digest: str
    size: int
    urls: list[str] = msgspec.field(default_factory=list)
    annotations: "dict[str, str] | None" = None
    data: "str | None" = None
    platform: "ImagePlatform | None" = None
    artifact_type: str = ""


class Index(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    schema_version: int
    manifests: list[Descriptor] | None = None
    media_type: str = ""
    annotations: "dict[str, str] | None" = None
    artifact_type: str = ""
    subject: "Descriptor | None" = None


class Manifest(msgspec.Struct, omit_defaults=True, frozen=True, rename="camel"):
    schema_version: int
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

    A document that claims to be both is refused (CVE-2021-41190: readers disagreed on what such bytes mean).
    """
    fields = decode(dict[str, msgspec.Raw], data, what)
    stated = fields.get("mediaType")
    if "manifests" in fields and ("layers" in fields or "config" in fields):
        raise InvalidArgument(f"invalid {what}", cause="it has the fields of both an index and a manifest")
    if "fsLayers" in fields:
        raise InvalidArgument(f"invalid {what}", cause="schema 1 manifests are not supported")
    if stated is not None:
        return decode(str, bytes(stated), f"mediaType of {what}")
    return MEDIA_INDEX if "manifests" in fields else MEDIA_MANIFEST


def chain_ids(diff_ids: "list[str]") -> "list[str]":
    """The chain IDs of each prefix of ``diff_ids`` (image-spec, config.md, Layer ChainID)."""
    from boxship.oci import digest

    chain: list[str] = []
    for diff_id in diff_ids:
        digest.parse(diff_id)
        chain.append(digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain
