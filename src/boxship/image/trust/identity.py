"""Whether the reference in a signature means the image at hand: a policy's ``signedIdentity`` rules."""

from collections.abc import Callable
from typing import Any

from boxship.errors import InvalidArgument
from boxship.oci import reference as references
from boxship.oci.reference import Reference

Match = Callable[["Reference | None", str], bool]
"""(the image's own reference, if it has one; the signature's) -> whether it is accepted."""


def _read(text: str) -> "Reference | None":
    try:
        return references.parse(text)
    except InvalidArgument:
        return None


def _complete(reference: "Reference | None") -> bool:
    return reference is not None and bool(reference.tag or reference.digest)


def exact(image: "Reference | None", signed: str) -> bool:
    found = _read(signed)
    return _complete(image) and _complete(found) and image == found


def repository(image: "Reference | None", signed: str) -> bool:
    found = _read(signed)
    return image is not None and found is not None and image.name == found.name


def repository_or_exact(image: "Reference | None", signed: str) -> bool:
    """An image that was asked for by digest may have any tag in the signature."""
    found = _read(signed)
    if image is not None and image.digest:
        return _complete(found) and repository(image, signed)
    return exact(image, signed)


def _fixed(value: "dict[str, Any]", where: str) -> Match:
    wanted = references.parse(str(value["dockerReference"]))
    if not _complete(wanted):
        raise InvalidArgument(where, cause=f"dockerReference {wanted} has neither tag nor digest")
    return lambda image, signed: exact(wanted, signed)


def _fixed_repository(value: "dict[str, Any]", where: str) -> Match:
    wanted = references.parse(str(value["dockerRepository"]))
    return lambda image, signed: repository(wanted, signed)


def _remapped(value: "dict[str, Any]", where: str) -> Match:
    prefix, signed_prefix = str(value["prefix"]), str(value["signedPrefix"])

    def match(image: "Reference | None", signed: str) -> bool:
        if image is None:
            return False
        text = str(image)
        if text == prefix or (text.startswith(prefix) and text[len(prefix)] in "/:@"):
            image = _read(signed_prefix + text[len(prefix) :])
        return repository_or_exact(image, signed)

    return match


# type -> (its fields, what makes the rule)
MATCHES: "dict[str, tuple[frozenset[str], Callable[[dict[str, Any], str], Match]]]" = {
    "matchExact": (frozenset(), lambda value, where: exact),
    "matchRepoDigestOrExact": (frozenset(), lambda value, where: repository_or_exact),
    "matchRepository": (frozenset(), lambda value, where: repository),
    "exactReference": (frozenset({"dockerReference"}), _fixed),
    "exactRepository": (frozenset({"dockerRepository"}), _fixed_repository),
    "remapIdentity": (frozenset({"prefix", "signedPrefix"}), _remapped),
}


def match_of(value: Any, where: str) -> Match:
    """The rule that ``signedIdentity`` says; raises InvalidArgument. Absent, it is matchRepoDigestOrExact."""
    if value is None:
        return repository_or_exact
    if not isinstance(value, dict) or value.get("type") not in MATCHES:
        raise InvalidArgument(f"{where}: signedIdentity", cause="unknown type", remedy=f"one of {', '.join(MATCHES)}")
    fields, make = MATCHES[value["type"]]
    if set(value) - {"type"} != fields:
        raise InvalidArgument(
            f"{where}: signedIdentity", cause=f"{value['type']} takes {', '.join(fields) or 'no fields'}"
        )
    return make(value, f"{where}: signedIdentity")
