"""Image references: ``[domain/]path[:tag][@digest]``, with Docker's habits for what people leave out.

Grammar: distribution/reference. A *familiar* name is what a person types (``busybox``), a *normalised* one is
complete (``docker.io/library/busybox:latest``). The first path component is a domain only when it has a dot
or a colon, is ``localhost``, or has an upper-case letter; else it belongs to the path on Docker Hub.
"""

import re

from boxship.errors import InvalidArgument
from boxship.oci import digest as digests
from boxship.oci.digest import Digest
from boxship.oci.value import Value

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
OFFICIAL = "library"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_DOMAIN = re.compile(rf"(?:{_HOST}(?:\.{_HOST})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


class Reference(Value):
    """A normalised reference; ``str()`` gives the complete form, `familiar` the short one."""

    __slots__ = ("digest", "domain", "path", "tag")

    def __init__(self, domain: str, path: str, tag: str = "", digest: "Digest | None" = None) -> None:
        self.domain = domain
        self.path = path
        self.tag = tag
        self.digest = digest

    @property
    def name(self) -> str:
        """Domain and path, without tag and digest: the repository."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(f"{OFFICIAL}/")
        return short if "/" not in short else self.path

    @property
    def familiar(self) -> str:
        """The form that people read: ``busybox:latest``, ``quay.io/a/b@sha256:...``."""
        return self.familiar_name + self._suffix()

    def with_default_tag(self) -> "Reference":
        """The same with ``:latest`` when it names neither a tag nor a digest."""
        return self if self.tag or self.digest else self.tagged(DEFAULT_TAG)

    def tagged(self, tag: str) -> "Reference":
        """The repository's reference with this tag, and no digest."""
        return Reference(self.domain, self.path, tag)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix()


def parse(text: str) -> Reference:
    """Normalise what a person or a manifest says; raises InvalidArgument with the reason."""
    if not text:
        raise _invalid(text, "it is empty")
    if _IDENTIFIER.fullmatch(text):
        raise _invalid(text, "cannot specify 64-byte hexadecimal strings")
    rest, at, digest_text = text.partition("@")
    digest = digests.parse(digest_text) if at else None
    tag = ""
    head, colon, tail = rest.rpartition(":")
    if colon and "/" not in tail:
        rest, tag = head, tail
        if not _TAG.fullmatch(tag):
            raise _invalid(text, f"invalid tag {tag!r}")
    domain, path = _split_domain(rest)
    if not _DOMAIN.fullmatch(domain):
        raise _invalid(text, f"invalid registry name {domain!r}")
    if path != path.lower():
        raise _invalid(text, "repository name must be lowercase")
    if not _PATH.fullmatch(path):
        raise _invalid(text, f"invalid repository name {path!r}")
    if len(path) > NAME_LIMIT:
        raise _invalid(text, f"repository name must not be more than {NAME_LIMIT} characters")
    return Reference(domain, path, tag, digest)


def normalise(text: str) -> str:
    """The complete form with a tag: ``busybox`` becomes ``docker.io/library/busybox:latest``."""
    return str(parse(text).with_default_tag())


def familiar(text: str) -> str:
    """The short form of a complete name; no reference at all (ctr allows any name) comes back as it is."""
    try:
        return parse(text).familiar
    except InvalidArgument:
        return text


def _split_domain(name: str) -> "tuple[str, str]":
    first, slash, rest = name.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    domain, path = (first, rest) if named else (DEFAULT_DOMAIN, name)
    if domain == LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"{OFFICIAL}/{path}"
    return domain, path


def _invalid(text: str, cause: str) -> InvalidArgument:
    return InvalidArgument(f"invalid reference format: {text!r}", cause=cause)
