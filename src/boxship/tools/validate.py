"""``boxship-image validate``: what is wrong with an image, or with one of its documents."""

from __future__ import annotations

import os

from boxship.errors import InvalidArgument, NotFound
from boxship.flags import Flag, Parsed, UsageError

from .command import Command, Context, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from boxship.image.validate import Finding

WHOLE = ("imageLayout", "image")
DOCUMENTS = {
    "imageIndex": "index", "index": "index", "manifest": "manifest", "config": "config", "descriptor": "descriptor",
    "layout": "layout",
}  # fmt: skip


def do(context: Context, o: Parsed) -> int:
    from boxship.image import validate

    if o.type and o.type not in WHOLE and o.type not in DOCUMENTS:
        raise UsageError(f"--type {o.type!r} is not one of {', '.join([*WHOLE, *DOCUMENTS])}", 1)
    wanted = selection(o.ref)
    count = 0
    for path in o.args:
        kind = o.type or _kind(path)
        if kind == "imageLayout":
            found = validate.layout(path, wanted)
        elif kind == "image":
            found = validate.layout(path, wanted) if os.path.isdir(path) else validate.archive(path, wanted)
        else:
            found = _document(path, kind)
        count += len(found)
        for finding in found:
            print(f"{path}: {finding}" if kind in WHOLE else finding)
        if not found:
            print(f"{path}: OK")
    if count:
        raise Refused(f"{count} {'fault' if count == 1 else 'faults'} found")
    return 0


def selection(refs: list[str]) -> Callable[[dict[str, Any]], bool] | None:
    """Which entries of an index ``--ref KEY=VALUE`` means; None means all. Raises UsageError.

    ``name`` is the reference, ``digest`` the manifest's, ``platform.os`` and the like its platform; other keys are
    annotations.
    """
    pairs = []
    for ref in refs:
        key, equals, value = ref.partition("=")
        if not key or not equals:
            raise UsageError(f"--ref {ref!r} is not KEY=VALUE, such as name=v1.0", 1)
        pairs.append((key, value))
    if not pairs:
        return None

    def wanted(entry: dict[str, Any]) -> bool:
        annotations = entry.get("annotations", {})
        known = {
            "name": annotations.get("org.opencontainers.image.ref.name"),
            "digest": entry["digest"],
            **{f"platform.{key}": value for key, value in entry.get("platform", {}).items()},
        }
        return all((known.get(key) if key in known else annotations.get(key)) == value for key, value in pairs)

    return wanted


def _kind(path: str) -> str:
    """What there is at ``path``: imageLayout, image (an archive), or a document ("")."""
    if os.path.isdir(path):
        return "imageLayout"
    head = _head(path, 512)
    return "image" if head[257:262] == b"ustar" or head[:2] == b"\x1f\x8b" or head[:4] == b"\x28\xb5\x2f\xfd" else ""


def _document(path: str, kind: str) -> list[Finding]:
    from boxship.image import validate
    from boxship.oci.image import DOCUMENT_LIMIT

    data = _head(path, DOCUMENT_LIMIT + 1)
    try:
        return validate.document(DOCUMENTS[kind] if kind else validate.kind_of(data), data, path)
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error.message}", cause=error.cause, remedy=error.remedy) from error


def _head(path: str, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}", cause=error.strerror or str(error)) from error


COMMAND = Command(
    "validate",
    "PATH...",
    "Check an image layout, an image archive or a single document against the image-spec",
    do,
    (
        Flag("ref", "", "list", "Only the images of the index that fit, such as name=v1.0 or digest=sha256:...",
             value="KEY=VALUE"),
        Flag("type", help=f"What it is: {', '.join([*WHOLE, *DOCUMENTS])} (default: found out)", value="TYPE"),
    ),
    least=1,
    most=None,
    examples=("validate ./layout", "validate --ref name=v1.0 image.tar", "validate --type manifest manifest.json"),
)  # fmt: skip
