"""``inspect``: an image's manifest (--raw), its config (--config), or a summary of both."""

from __future__ import annotations

import json
import sys

from boxship.errors import BoxshipError, InvalidArgument, PermissionDenied
from boxship.flags import Flag, Parsed, UsageError

from .command import Command, Context
from .images import AUTHFILE, RETRIES, access, end_flags, opened, retrying, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from boxship.image.manifests import Document
    from boxship.image.transports import Access, Source

FLAGS = (
    AUTHFILE,
    *RETRIES,
    Flag("config", "", "bool", "Show the image's config"),
    Flag("format", "f", "string", "Show it through a Go template", value="TEMPLATE"),
    Flag("no-tags", "n", "bool", "Do not list the repository's tags"),
    Flag("raw", "", "bool", "Show the manifest (or, with --config, the config) as it is"),
    *end_flags(),
)


def do(context: Context, o: Parsed) -> int:
    from boxship.tools.output import show

    if o.raw and o.format:
        raise UsageError("raw output does not support format option")
    reach = access(context, o)
    source = opened(o, o.args[0], reach)
    try:
        try:
            top = retrying(o, source.manifest)
        except BoxshipError as error:
            raise told("Error retrieving manifest for image", error) from error.__cause__
        if o.raw and not o.config:
            _write(top.data)
            return 0
        document = _image(source, top, reach)
        config = _config(source, document)
        if o.raw:
            _write(config)
        elif o.config:
            show(json.loads(config), o.format)
        else:
            show(summary(source, top, document, config, _tags(source, o)), o.format)
        return 0
    finally:
        source.close()


def _write(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _image(source: Source, top: Document, reach: Access) -> Document:
    """The manifest for the platform, when the name means an index."""
    from boxship.image.copy import choose

    if not top.is_index:
        return top
    try:
        return source.manifest(choose(top, reach.platform))
    except BoxshipError as error:
        raise told("Error parsing manifest for image", error) from error.__cause__


def _config(source: Source, document: Document) -> bytes:
    from boxship.image.transports.base import verifier_of
    from boxship.oci.image import DOCUMENT_LIMIT

    descriptor = document.manifest().config
    if descriptor.size > DOCUMENT_LIMIT:
        raise InvalidArgument(f"config {descriptor.digest} is larger than {DOCUMENT_LIMIT} bytes")
    verifier = verifier_of(descriptor, f"config {descriptor.digest}")
    blob = source.blob(descriptor)
    data = b""
    try:
        while part := blob.read(1 << 16):
            verifier.update(part)
            data += part
    finally:
        blob.close()
    verifier.finish()
    return data


def _tags(source: Source, o: Parsed) -> list[str]:
    from boxship.image.transports.docker import Registry

    if o.no_tags or not isinstance(source, Registry):
        return []
    try:
        return source.tags()
    except PermissionDenied:
        # Some registries let people pull and not list; the rest is worth showing.
        print("Registry disallows tag list retrieval; skipping", file=sys.stderr)
        return []
    except BoxshipError as error:
        raise told("Error determining repository tags", error) from error.__cause__


def summary(source: Source, top: Document, document: Document, config: bytes, tags: list[str]) -> dict[str, Any]:
    """skopeo's fields, in its order. Raises InvalidArgument."""
    from boxship.image.transports.docker import Registry
    from boxship.oci import image as oci

    oci.decode(oci.ImageConfig, config, "the image's config")
    fields = json.loads(config)
    inner = fields.get("config") or {}
    layers = document.manifest().layers
    found: dict[str, Any] = {}
    if isinstance(source, Registry):
        found["Name"] = source.reference.name
    variant = {"Variant": fields["variant"]} if fields.get("variant") else {}
    return {
        **found,
        "Digest": top.digest,
        "RepoTags": tags,
        "Created": fields.get("created"),
        "DockerVersion": fields.get("docker_version", ""),
        "Labels": inner.get("Labels"),
        "Architecture": fields.get("architecture", ""),
        **variant,
        "Os": fields.get("os", ""),
        "Layers": [layer.digest for layer in layers],
        "LayersData": [
            {
                "MIMEType": layer.media_type,
                "Digest": layer.digest,
                "Size": layer.size,
                "Annotations": layer.annotations,
            }
            for layer in layers
        ],
        "Env": inner.get("Env"),
    }


COMMAND = Command(
    "inspect", "IMAGE-NAME", "Return low-level information about an image in a registry or another transport",
    do, FLAGS, least=1, most=1,
    examples=(
        "inspect docker://registry.fedoraproject.org/fedora",
        "inspect --config docker://docker.io/alpine",
        'inspect --format "Name: {{.Name}} Digest: {{.Digest}}" docker://registry.access.redhat.com/ubi8',
    ),
)  # fmt: skip
