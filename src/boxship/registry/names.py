"""What repositories, tags and digests may be called (distribution-spec, Pulling manifests)."""

from __future__ import annotations

import re

from boxship.errors import InvalidArgument
from boxship.oci import digest as digests
from boxship.oci.digest import Digest

from .errors import SpecError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
NAME_LIMIT = 255


def repository(text: str) -> str:
    """``text`` when it names a repository; raises SpecError (NAME_INVALID)."""
    if len(text) > NAME_LIMIT or not _NAME.fullmatch(text):
        raise SpecError(
            "NAME_INVALID",
            f"invalid repository name {text[:NAME_LIMIT]!r}",
            cause=f"lower-case words with . _ - between them, separated by /, {NAME_LIMIT} characters at most",
        )
    return text


def digest(text: str, what: str = "digest") -> Digest:
    """Raises SpecError (DIGEST_INVALID) for anything but a digest that can be verified here."""
    try:
        return digests.parse(text)
    except InvalidArgument as error:
        raise SpecError("DIGEST_INVALID", f"{what}: {error.message}", cause=error.cause) from error


def is_tag(text: str) -> bool:
    return bool(_TAG.fullmatch(text))


def tag(text: str) -> str:
    """Raises SpecError (MANIFEST_INVALID), as the spec has no code for tags."""
    if not is_tag(text):
        cause = "a tag is up to 128 of a-z A-Z 0-9 _ . -, and does not begin with . or -"
        raise SpecError("MANIFEST_INVALID", f"invalid tag {text[:128]!r}", cause=cause)
    return text


def reference(text: str) -> str:
    """A tag or a digest."""
    return digest(text) if ":" in text else tag(text)
