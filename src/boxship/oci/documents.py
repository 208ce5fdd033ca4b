"""The shapes of image-spec 1.1's documents; beside each rule that is no type, the section that makes it.

One table for each document, read by ``boxship-image validate``. Reading an image for use goes through
`boxship.oci.image`, which asks for less: it takes what can be understood, this says what is not as it should be.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from boxship.errors import InvalidArgument
from boxship.oci import digest as digests
from boxship.oci import image as oci

from .shapes import Complaint, List, Map, Nullable, Object, Shape, Text, Truth, Whole

_RESTRICTED = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"  # RFC 6838, 4.2
_MEDIA_TYPE = re.compile(rf"{_RESTRICTED}/{_RESTRICTED}")
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_DATE = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")
_ENV = re.compile(r"[^=]+=.*", re.DOTALL)


def _media_type(text: str) -> str:
    return "" if _MEDIA_TYPE.fullmatch(text) else "is no media type (type/subtype, RFC 6838)"


def _digest(text: str) -> str:
    """descriptor.md, Digests: unknown algorithms are allowed, registered ones have their form."""
    if not _DIGEST.fullmatch(text):
        return "is no digest (algorithm:encoded)"
    if text.partition(":")[0] in digests.ALGORITHMS:
        try:
            digests.parse(text)
        except InvalidArgument as error:
            return f"is no digest: {error.cause}"
    return ""


def _uri(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError:
        return "is no URI"
    return "" if parts.scheme and (parts.netloc or parts.path) and " " not in text else "is no URI (RFC 3986)"


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return "is not base64 (RFC 4648, 4)"
    return ""


def _date(text: str) -> str:
    if _DATE.fullmatch(text):
        try:
            datetime.fromisoformat(text[:19])
            return ""
        except ValueError:
            pass
    return "is no date and time (RFC 3339, 5.6)"


def _env(text: str) -> str:
    return "" if _ENV.fullmatch(text) else "is not NAME=VALUE"


def _layers(text: str) -> str:
    return "" if text == "layers" else 'must be "layers"'


def _version(text: str) -> str:
    return "" if text == "1.0.0" else 'must be "1.0.0"'


def _embedded(descriptor: "dict[str, Any]") -> Iterator[Complaint]:
    """descriptor.md, Embedded Content: the data is the content, to the byte."""
    if "data" in descriptor:
        data = base64.b64decode(descriptor["data"])
        if len(data) != descriptor["size"]:
            yield Complaint("data", f"it is {len(data)} bytes, size says {descriptor['size']}")
        algorithm = descriptor["digest"].partition(":")[0]
        if algorithm in digests.ALGORITHMS and (found := digests.of(data, algorithm)) != descriptor["digest"]:
            yield Complaint("data", f"its digest is {found}, not the descriptor's")


ANNOTATIONS = Map(Text())
PLATFORM = Object(
    {"architecture": Text(), "os": Text()},
    {"os.version": Text(), "os.features": List(Text()), "variant": Text(), "features": List(Text())},
)
_DESCRIPTOR: "dict[str, Shape]" = {"mediaType": Text(_media_type), "size": Whole(0), "digest": Text(_digest)}
DESCRIPTOR = Object(
    _DESCRIPTOR,
    {
        "urls": List(Text(_uri)),
        "data": Text(_base64),
        "artifactType": Text(_media_type),
        "annotations": ANNOTATIONS,
        "platform": PLATFORM,
    },
    _embedded,
)


def _not_an_index(manifest: "dict[str, Any]") -> Iterator[Complaint]:
    """manifest.md: what is read as both is neither (CVE-2021-41190)."""
    if "manifests" in manifest:
        yield Complaint("manifests", "a manifest must not have an index's field")
    if manifest.get("mediaType") in oci.INDEX_TYPES:
        yield Complaint("mediaType", "it is an index's, with a manifest's fields")
    config = manifest["config"]["mediaType"]
    if config == oci.MEDIA_EMPTY and not manifest.get("artifactType"):
        yield Complaint("artifactType", "it is missing, which the empty config asks for")


def _not_a_manifest(index: "dict[str, Any]") -> Iterator[Complaint]:
    for key in ("config", "layers"):
        if key in index:
            yield Complaint(key, "an index must not have a manifest's field")
    if index.get("mediaType") in oci.MANIFEST_TYPES:
        yield Complaint("mediaType", "it is a manifest's, with an index's fields")


MANIFEST = Object(
    {"schemaVersion": Whole(2, 2), "config": DESCRIPTOR, "layers": List(DESCRIPTOR, least=1)},
    {
        "mediaType": Text(_media_type),
        "artifactType": Text(_media_type),
        "subject": DESCRIPTOR,
        "annotations": ANNOTATIONS,
    },
    _not_an_index,
)
INDEX = Object(
    {"schemaVersion": Whole(2, 2), "manifests": List(DESCRIPTOR)},
    {
        "mediaType": Text(_media_type),
        "artifactType": Text(_media_type),
        "subject": DESCRIPTOR,
        "annotations": ANNOTATIONS,
    },
    _not_a_manifest,
)
_SET = Map(Object())
_STRINGS = List(Text())
CONFIG = Object(
    {
        "architecture": Text(),
        "os": Text(),
        "rootfs": Object({"type": Text(_layers), "diff_ids": List(Text(_digest))}),
    },
    {
        "created": Text(_date),
        "author": Text(),
        "variant": Text(),
        "os.version": Text(),
        "os.features": _STRINGS,
        "config": Object(
            {},
            {
                "User": Text(),
                "ExposedPorts": Nullable(_SET),
                "Env": Nullable(List(Text(_env))),
                "Entrypoint": Nullable(_STRINGS),
                "Cmd": Nullable(_STRINGS),
                "Volumes": Nullable(_SET),
                "WorkingDir": Text(),
                "Labels": Nullable(Map(Text())),
                "StopSignal": Text(),
                "ArgsEscaped": Truth(),
            },
        ),
        "history": List(
            Object(
                {},
                {
                    "created": Text(_date),
                    "author": Text(),
                    "created_by": Text(),
                    "comment": Text(),
                    "empty_layer": Truth(),
                },
            )
        ),
    },
)
LAYOUT = Object({"imageLayoutVersion": Text(_version)})

# by the names that people give kinds of documents on a command line
KINDS: "dict[str, Object]" = {
    "descriptor": DESCRIPTOR,
    "manifest": MANIFEST,
    "index": INDEX,
    "config": CONFIG,
    "layout": LAYOUT,
}
