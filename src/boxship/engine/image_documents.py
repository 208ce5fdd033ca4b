"""Images as documents of the Engine API: what ``docker images``, ``inspect`` and ``history`` show."""

from __future__ import annotations

from typing import Any

import msgspec

from boxship.oci import image as oci
from boxship.oci import reference as references

from .clock import parse_rfc3339
from .create import SNAPSHOTTER
from .filters import Filters, has_label, truth
from .images import Images, View, image_config

ZERO_TIME = -62135596800  # the year 1 in Unix seconds: how the API says "unknown"


async def summaries(images: Images, filters: Filters) -> list[dict[str, Any]]:
    """``GET /images/json``."""
    found = []
    for view in await images.views():
        if not _matches(view, filters):
            continue
        patterns = filters.get("reference")
        tags = [tag for tag in view.tags if not patterns or any(_reference_matches(tag, p) for p in patterns)]
        digests = _repo_digests(view)
        if patterns:
            repositories = {tag.rpartition(":")[0] for tag in tags}
            digests = [digest for digest in digests if digest.partition("@")[0] in repositories]
        found.append(
            {
                "Containers": -1,
                "Created": _unix_created(view.image.config.created),
                "Id": view.id,
                "Labels": (view.image.config.config or {}).get("Labels"),
                "ParentId": "",
                "RepoDigests": digests,
                "RepoTags": tags,
                "SharedSize": -1,
                "Size": await images.size(view),
            }
        )
    return found


def _matches(view: View, filters: Filters) -> bool:
    labels = (view.image.config.config or {}).get("Labels") or {}
    for key, values in filters.items():
        if key == "dangling" and truth(values, key) == bool(view.names):
            return False
        if key == "label" and not all(has_label(labels, value) for value in values):
            return False
        if key == "reference" and not any(_reference_matches(tag, v) for tag in view.tags for v in values):
            return False
    return True


async def inspect(images: Images, reference: str) -> dict[str, Any]:
    """``GET /images/{name}/json``."""
    view = await images.find(reference)
    config = view.image.config
    return {
        "Id": view.id,
        "RepoTags": view.tags,
        "RepoDigests": _repo_digests(view),
        "Parent": "",
        "Comment": (config.history or [oci.History()])[-1].comment,
        "Created": config.created or "0001-01-01T00:00:00Z",
        "DockerVersion": "",
        "Author": config.author,
        "Config": msgspec.to_builtins(image_config(view.image)),
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "Size": await images.size(view),
        "GraphDriver": {"Data": None, "Name": SNAPSHOTTER},
        "RootFS": {"Type": "layers", "Layers": config.diff_ids},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
        "Descriptor": msgspec.to_builtins(view.image.target),
    }


async def history(images: Images, reference: str) -> list[dict[str, Any]]:
    """``GET /images/{name}/history``, newest first."""
    view = await images.find(reference)
    rows: list[dict[str, Any]] = []
    chain = iter(oci.chain_ids(view.image.config.diff_ids))
    for step in view.image.config.history or []:
        size = 0
        if not step.empty_layer and (name := next(chain, "")):
            size = await images.snapshot_size(name)
        rows.insert(
            0,
            {
                "Id": "<missing>",
                "Created": parse_rfc3339(step.created or "") // 10**9,
                "CreatedBy": step.created_by,
                "Tags": None,
                "Size": size,
                "Comment": step.comment,
            },
        )
    if rows:
        rows[0]["Id"], rows[0]["Tags"] = view.id, view.tags
    return rows


def _unix_created(text: str | None) -> int:
    return parse_rfc3339(text or "") // 10**9 or ZERO_TIME


def _repo_digests(view: View) -> list[str]:
    repositories = {references.parse(name).familiar_name for name in view.names}
    return sorted(f"{name}@{view.image.target.digest}" for name in repositories)


def _reference_matches(tag: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(tag, pattern) or fnmatchcase(tag.rpartition(":")[0], pattern)
