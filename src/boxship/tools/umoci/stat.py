"""``umoci stat``: what an image is: its manifest, config and history; for people, or with ``--json`` for programs."""

from __future__ import annotations

import json
import sys

from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from . import options as shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from boxship.image.layout import Layout
    from boxship.oci.image import Descriptor

FLAGS = (Flag("json", "", "bool", "output the stat information as a JSON encoded blob"),)


def do(context: Context, options: Parsed) -> int:
    from boxship.image.named import resolve

    from . import statview

    layout, name = shared.image(options)
    found = gather(layout, resolve(layout, name).manifest)
    if options.json:
        print(json.dumps(found, separators=(",", ":"), ensure_ascii=False))
    else:
        sys.stdout.write(statview.show(found))
    return 0


def gather(layout: Layout, descriptor: Descriptor) -> dict[str, Any]:
    """Descriptors and documents as they are: manifest, config where it is JSON, history where it is an image's."""
    from boxship.image.blobs import read_document
    from boxship.image.named import read_manifest
    from boxship.oci import image as oci

    manifest = read_manifest(layout, descriptor)
    document = json.loads(read_document(layout, descriptor))
    found: dict[str, Any] = {"manifest": {"descriptor": json.loads(oci.encode(descriptor)), "blob": document}}
    kind = manifest.config.media_type
    if kind in oci.CONFIG_TYPES | {oci.MEDIA_EMPTY}:
        config = json.loads(read_document(layout, manifest.config))
        found["config"] = {"descriptor": document["config"], "blob": config}
        if kind in oci.CONFIG_TYPES:
            found["history"] = _history(config, document["layers"] or [])
    return found


def _history(config: dict[str, Any], layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries with their layers, which come in the same order; empty ones have none."""
    diff_ids = (config.get("rootfs") or {}).get("diff_ids") or []
    remaining = iter(zip(layers, diff_ids, strict=False))
    rows = []
    for entry in config.get("history") or []:
        layer, diff_id = (None, "") if entry.get("empty_layer") else next(remaining, (None, ""))
        if layer is None and not entry.get("empty_layer"):
            raise InvalidArgument("the image's history names more layers than there are")
        rows.append({"layer": layer, "diff_id": diff_id} | entry)
    return rows


COMMAND = Command(
    "stat",
    "--image PATH[:NAME] [--json]",
    "displays status information of an image manifest",
    do,
    (*FLAGS, *shared.IMAGE),
)
