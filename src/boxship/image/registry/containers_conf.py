"""``registries.conf``: mirrors, other addresses and blocked registries, as podman and skopeo read it.

containers-registries.conf(5), version 2: a ``[[registry]]`` has a ``prefix`` (default: its ``location``), and the
longest prefix that fits a name decides. ``location`` stands in the prefix's place, ``mirror`` are asked before it.
Files of ``registries.conf.d`` beside the main file add to it and replace its entries, in their names' order.
"""

import os
from typing import Any

import msgspec

from boxship.errors import FailedPrecondition, InvalidArgument
from boxship.oci import reference as references
from boxship.oci.reference import Reference

SYSTEM = "/etc/containers/registries.conf"


class Address(msgspec.Struct, frozen=True):
    """Where a name may be asked for: the name that it has there, and whether anything is verified."""

    reference: Reference
    insecure: bool = False


def addresses(reference: Reference, path: str = "") -> "list[Address]":
    """Where to pull it from, mirrors first; raises InvalidArgument (the file), FailedPrecondition (blocked)."""
    found = _find(reference, path)
    if found is None:
        return [Address(reference)]
    prefix, table = found
    mirrors = [] if table.get("mirror-by-digest-only") and not reference.digest else table.get("mirror") or []
    kinds = {"digest-only": bool(reference.digest), "tag-only": not reference.digest}
    usable = [one for one in mirrors if kinds.get(str(one.get("pull-from-mirror") or "all"), True)]
    return [_at(reference, prefix, one) for one in (*usable, table)]


def address(reference: Reference, path: str = "") -> Address:
    """Where to push to, which is never a mirror."""
    found = _find(reference, path)
    return Address(reference) if found is None else _at(reference, *found)


def default_path() -> str:
    named = os.environ.get("CONTAINERS_REGISTRIES_CONF") or os.environ.get("REGISTRIES_CONFIG_PATH")
    if named:
        return named
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    own = os.path.join(config, "containers", "registries.conf")
    return own if os.path.exists(own) else SYSTEM


def _find(reference: Reference, path: str) -> "tuple[str, dict[str, Any]] | None":
    best: tuple[str, dict[str, Any]] | None = None
    for table in _tables(path or default_path(), named=bool(path)):
        prefix = str(table.get("prefix") or table.get("location") or "")
        length = _fits(reference, prefix)
        if length and (best is None or len(prefix) >= len(best[0])):
            best = (prefix, table)
    if best is not None and best[1].get("blocked"):
        raise FailedPrecondition(
            f"registry {best[0]} is blocked in {path or default_path()}", remedy="remove `blocked = true` there"
        )
    return best


def _fits(reference: Reference, prefix: str) -> int:
    """How many characters of the name the prefix covers; 0 when it does not fit."""
    name = str(reference)
    if prefix.startswith("*."):
        suffix = prefix[1:]
        return len(reference.domain) if reference.domain.endswith(suffix) and "/" not in prefix else 0
    if name == prefix or (prefix and name.startswith(prefix) and name[len(prefix)] in "/:@"):
        return len(prefix)
    return 0


def _at(reference: Reference, prefix: str, table: "dict[str, Any]") -> Address:
    location = str(table.get("location") or "")
    insecure = bool(table.get("insecure", False))
    if not location or location == prefix:
        return Address(reference, insecure)
    renamed = location + str(reference)[_fits(reference, prefix) :]
    return Address(references.parse(renamed), insecure)


def _tables(path: str, *, named: bool) -> "list[dict[str, Any]]":
    """Every ``[[registry]]``, later files last; of two with the same prefix the later one counts."""
    files = [path]
    for directory in () if named else (path + ".d",):
        if os.path.isdir(directory):
            files += sorted(f"{directory}/{name}" for name in os.listdir(directory) if name.endswith(".conf"))
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        for table in _read(file, must=named):
            found[str(table.get("prefix") or table.get("location") or "")] = table
    return list(found.values())


def _read(path: str, *, must: bool) -> "list[dict[str, Any]]":
    if not (must or os.path.exists(path)):
        return []
    import tomllib

    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except FileNotFoundError:
        raise InvalidArgument(f"{path}: no such file", remedy="give an existing --registries-conf") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path}: not TOML", cause=str(error)) from error
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}", cause=error.strerror or str(error)) from error
    tables = document.get("registry") or []
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise InvalidArgument(f"{path}: registry", cause="not a list of tables", remedy="write [[registry]]")
    return tables
