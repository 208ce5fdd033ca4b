"""Which images a ``sync`` means: a repository's tags, the images below a directory, or a list in YAML.

The YAML file is skopeo's (skopeo-sync(1), "YAML FILE CONTENT"): registries with ``images`` (repository -> tags or
digests, none meaning all tags), ``images-by-tag-regex``, ``images-by-semver``, and how to reach each.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from boxship.errors import BoxshipError, InvalidArgument, NotFound
from boxship.image import semver
from boxship.image.registry.credentials import Credential
from boxship.image.transports.base import Access, Name
from boxship.image.transports.docker import Registry
from boxship.oci import digest as digests
from boxship.oci import reference as references
from boxship.oci.reference import Reference

REGISTRY_FIELDS = frozenset(
    {"images", "images-by-tag-regex", "images-by-semver", "credentials", "tls-verify", "cert-dir"}
)


@dataclass(frozen=True, slots=True)
class Group:
    """Images of one source, with how to reach it; ``below`` is the directory that their names are relative to."""

    images: tuple[Name, ...]
    access: Access
    below: str = ""


Warn = Callable[[str], None]


def from_repository(text: str, access: Access) -> Group:
    """One image, or all tags of a repository. Raises NotFound (none), and what listing takes."""
    reference = references.parse(text)
    if reference.tag or reference.digest:
        return Group((_name(reference),), access)
    tags = tags_of(reference, access)
    if not tags:
        raise NotFound(f'No images to sync found in "{text}"')
    return Group(tuple(_name(reference.tagged(tag)) for tag in tags), access)


def from_directory(path: str, access: Access) -> Group:
    """Every ``dir:`` image at or below ``path``. Raises NotFound."""
    if not os.path.isdir(path):
        raise NotFound(f"Invalid source directory specified: {path}", cause="no such directory")
    found = []
    for root, directories, files in os.walk(path):
        directories.sort()
        if "manifest.json" in files:
            found.append(Name("dir", root))
            directories.clear()
    if not found:
        raise NotFound(f'No images to sync found in "{path}"')
    return Group(tuple(found), access, path)


def from_yaml(data: bytes, what: str, access: Access, warn: Warn) -> list[Group]:
    """The groups of a YAML file; what cannot be listed is told to ``warn`` and left out. Raises InvalidArgument."""
    import yaml

    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{what} is no YAML", cause=" ".join(str(error).split())) from error
    if not isinstance(document, dict):
        raise InvalidArgument(f"{what}", cause="not a mapping of registries")
    found: list[Group] = []
    for registry, table in document.items():
        if not isinstance(table, dict):
            raise InvalidArgument(f"{what}: {registry}", cause="not a mapping")
        unknown = set(table) - REGISTRY_FIELDS
        if unknown:
            raise InvalidArgument(
                f"{what}: {registry}: unknown field {sorted(map(str, unknown))[0]!r}",
                remedy=f"one of {', '.join(sorted(REGISTRY_FIELDS))}",
            )
        reach = _access(table, access, f"{what}: {registry}")
        wanted = list(_wanted(str(registry), table, reach, what))
        if not wanted:
            warn(f"No images specified for registry {registry}")
        for repository, list_them in wanted:
            try:
                images = list_them()
            except BoxshipError as error:
                warn(f"Error processing repo {repository}, skipping: {error}")
                continue
            if images:
                found.append(Group(images, reach))
            else:
                warn(f"No refs to sync found for {repository}")
    return found


def _wanted(
    registry: str, table: dict[str, Any], access: Access, what: str
) -> Iterator[tuple[str, Callable[[], tuple[Name, ...]]]]:
    """Each repository of a registry, with what lists its images."""
    for field, select in (("images", _listed), ("images-by-tag-regex", _by_regex), ("images-by-semver", _by_semver)):
        entries = table.get(field) or {}
        if not isinstance(entries, dict):
            raise InvalidArgument(f"{what}: {registry}: {field}", cause="not a mapping of repositories")
        for repository, value in entries.items():
            full = f"{registry}/{repository}"
            yield full, lambda f=full, v=value, s=select: s(_repository(f), v, access)  # type: ignore[misc]  # bound now


def _repository(text: str) -> Reference:
    found = references.parse(text)
    if found.tag or found.digest:
        raise InvalidArgument(f"{text} names a reference, not a repository")
    return found


def _listed(reference: Reference, value: Any, access: Access) -> tuple[Name, ...]:
    if not isinstance(value or [], list):
        raise InvalidArgument(f"{reference.name}: not a list of tags and digests")
    found = []
    for one in map(str, value or tags_of(reference, access)):
        separator = "@" if _is_digest(one) else ":"
        found.append(_name(references.parse(f"{reference.name}{separator}{one}")))
    return tuple(found)


def _by_regex(reference: Reference, value: Any, access: Access) -> tuple[Name, ...]:
    try:
        pattern = re.compile(str(value))
    except re.error as error:
        raise InvalidArgument(f"{reference.name}: {value!r} is no regular expression", cause=str(error)) from error
    return tuple(_name(reference.tagged(tag)) for tag in tags_of(reference, access) if pattern.search(tag))


def _by_semver(reference: Reference, value: Any, access: Access) -> tuple[Name, ...]:
    fits = semver.constraint(str(value))
    return tuple(_name(reference.tagged(tag)) for tag in tags_of(reference, access) if fits(tag))


def tags_of(reference: Reference, access: Access) -> list[str]:
    source = Registry(_name(reference.with_default_tag()), access)
    try:
        return source.tags()
    finally:
        source.close()


def _name(reference: Reference) -> Name:
    return Name("docker", f"//{reference}")


def _is_digest(text: str) -> bool:
    try:
        digests.parse(text)
    except InvalidArgument:
        return False
    return True


def _access(table: dict[str, Any], access: Access, where: str) -> Access:
    changes: dict[str, Any] = {}
    if table.get("cert-dir"):
        changes["cert_dir"] = str(table["cert-dir"])
    if "tls-verify" in table:
        if not isinstance(table["tls-verify"], bool):
            raise InvalidArgument(f"{where}: tls-verify", cause="neither true nor false")
        changes["tls_verify"] = table["tls-verify"]
    credentials = table.get("credentials")
    if credentials:
        if not isinstance(credentials, dict) or not credentials.get("username"):
            raise InvalidArgument(f"{where}: credentials", remedy="give username and password")
        changes["credential"] = Credential(str(credentials["username"]), str(credentials.get("password", "")))
    return msgspec.structs.replace(access, **changes)
