"""Where a registry's simple signatures are: beside it, as ``registries.d`` says (containers-registries.d(5)).

The most specific entry wins: the name with its tag, the repository, each namespace above it, the registry, then
``default-docker``. Below its ``lookaside`` URL (``sigstore`` in older files) a manifest's signatures are
``PATH@sha256=HEX/signature-1``, ``-2`` and so on; the first number that is missing ends the list.
"""

import os
from typing import Any

import msgspec

from boxship.errors import FailedPrecondition, InvalidArgument, Unavailable
from boxship.oci.digest import algorithm, encoded, parse
from boxship.oci.reference import Reference

from .signatures import Signature, Simple, from_bytes

SYSTEM = "/etc/containers/registries.d"
DEFAULT_ROOT, DEFAULT_HOME = "/var/lib/containers/sigstore", "~/.local/share/containers/sigstore"
LIMIT = 4 << 20
MOST = 100


class Lookaside(msgspec.Struct, frozen=True):
    """Where signatures of one name are read and written; ``attachments``: sigstore ones are in the registry."""

    url: str
    staging: str
    attachments: bool = False

    def read(self, reference: Reference, digest: str) -> "list[Signature]":
        """Raises Unavailable, InvalidArgument."""
        found: list[Signature] = []
        while len(found) < MOST:
            url = self._url(self.url, reference, digest, len(found) + 1)
            data = _fetch(url)
            if data is None:
                break
            found.append(from_bytes(data, f"signature {url}"))
        return found

    def write(self, reference: Reference, digest: str, signatures: "list[Simple]") -> None:
        """The manifest's signatures are these and no others. Raises FailedPrecondition."""
        target = self.staging or self.url
        if not target.startswith("file://"):
            raise FailedPrecondition(
                f"cannot write a signature to {target}", remedy="give a file:// URL as lookaside-staging"
            )
        for number, signature in enumerate(signatures, 1):
            path = self._url(target, reference, digest, number)[len("file://") :]
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path + ".new", "wb") as file:
                    file.write(signature.data)
                os.rename(path + ".new", path)
            except OSError as error:
                raise FailedPrecondition(f"cannot write {path}", cause=error.strerror or str(error)) from error
        number = len(signatures) + 1
        while os.path.exists(path := self._url(target, reference, digest, number)[len("file://") :]):
            os.unlink(path)
            number += 1

    def remove(self, reference: Reference, digest: str) -> None:
        target = self.staging or self.url
        if target.startswith("file://"):
            path = os.path.dirname(self._url(target, reference, digest, 1)[len("file://") :])
            import shutil

            shutil.rmtree(path, ignore_errors=True)  # what is not there needs no removing

    @staticmethod
    def _url(base: str, reference: Reference, digest: str, number: int) -> str:
        checked = parse(digest)
        return f"{base.rstrip('/')}/{reference.path}@{algorithm(checked)}={encoded(checked)}/signature-{number}"


def find(reference: Reference, directory: str = "") -> Lookaside:
    """What ``registries.d`` says about a name. Raises InvalidArgument."""
    default, tables = _read(directory or _default_directory())
    for scope in scopes(reference):
        if scope in tables:
            return _lookaside(tables[scope], default)
    return _lookaside(default, {})


def scopes(reference: Reference) -> "list[str]":
    """The names under which something may be said about a reference, the most specific first."""
    found = [str(reference), reference.name]
    while "/" in found[-1]:
        found.append(found[-1].rpartition("/")[0])
    host = reference.domain.partition(":")[0]
    while "." in host:
        host = host.partition(".")[2]
        found.append(f"*.{host}")
    return found


def _lookaside(table: "dict[str, Any]", default: "dict[str, Any]") -> Lookaside:
    def value(*names: str) -> Any:
        for source in (table, default):
            for name in names:
                if source.get(name) is not None:
                    return source[name]
        return None

    home = DEFAULT_ROOT if os.geteuid() == 0 else os.path.expanduser(DEFAULT_HOME)
    return Lookaside(
        str(value("lookaside", "sigstore") or f"file://{home}"),
        str(value("lookaside-staging", "sigstore-staging") or ""),
        bool(value("use-sigstore-attachments")),
    )


def _default_directory() -> str:
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    own = os.path.join(config, "containers", "registries.d")
    return own if os.path.isdir(own) else SYSTEM


def _read(directory: str) -> "tuple[dict[str, Any], dict[str, dict[str, Any]]]":
    """``default-docker`` and the entries of ``docker`` in all files of the directory."""
    default: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {}
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".yaml"))
    except FileNotFoundError:
        return default, tables
    except OSError as error:
        raise InvalidArgument(f"cannot read {directory}", cause=error.strerror or str(error)) from error
    for name in names:
        document = _yaml(os.path.join(directory, name))
        default = document.get("default-docker") or default
        tables.update(document.get("docker") or {})
    if not all(isinstance(table, dict) for table in (default, *tables.values())):
        raise InvalidArgument(f"{directory}: an entry is no mapping", remedy="see containers-registries.d(5)")
    return default, tables


def _yaml(path: str) -> "dict[str, Any]":
    import yaml

    try:
        with open(path, "rb") as file:
            document = yaml.safe_load(file)
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path}: cannot be read as YAML", cause=" ".join(str(error).split())) from error
    if not isinstance(document or {}, dict):
        raise InvalidArgument(f"{path}: not a mapping")
    return document or {}


def _fetch(url: str) -> "bytes | None":
    """The file at a URL, None when there is none. Raises Unavailable, InvalidArgument."""
    if url.startswith("file://"):
        try:
            with open(url[len("file://") :], "rb") as file:
                return file.read(LIMIT)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"cannot read {url}", cause=error.strerror or str(error)) from error
    if not url.startswith(("http://", "https://")):
        raise InvalidArgument(f"lookaside {url}", cause="neither file:// nor http(s)://")
    from boxship.image.registry.hosts import Endpoint
    from boxship.image.registry.session import Session

    session = Session(Endpoint(url), lambda: None)
    try:
        with session.request("GET", url, expect=(200, 404), what=f"signature {url}") as answer:
            return answer.all(LIMIT, f"signature {url}") if answer.status == 200 else None
    finally:
        session.close()
