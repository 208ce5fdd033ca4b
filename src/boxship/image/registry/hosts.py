"""Where a registry answers: its own address, mirrors, TLS settings.

Read, per registry, from ``hosts.toml`` below a certs directory (containerd, docs/hosts.md) or the certificates that
docker keeps there (``*.crt`` for authorities, ``NAME.cert`` with ``NAME.key`` for ourselves).
Plain HTTP is spoken on the loopback interface, and to registries that the settings name as insecure, after TLS was
tried (docker's ``insecure-registries``).
"""

import os
import socket
from collections.abc import Iterator
from typing import Any

import msgspec

from boxship.errors import InvalidArgument

DIRECTORIES = ("/etc/boxship/certs.d", "/etc/docker/certs.d", "/etc/containerd/certs.d")
_REAL = {"docker.io": "https://registry-1.docker.io", "index.docker.io": "https://registry-1.docker.io"}


class Endpoint(msgspec.Struct, frozen=True):
    """One address of a registry. ``url`` has no path but possibly a prefix; ``own`` is False for a mirror.

    ``verify`` False takes any certificate. ``capabilities`` are some of pull, resolve and push.
    """

    url: str
    own: bool = True
    verify: bool = True
    authorities: tuple[str, ...] = ()
    client: "tuple[str, str] | None" = None
    capabilities: frozenset[str] = frozenset({"pull", "resolve", "push"})

    @property
    def plain(self) -> bool:
        return self.url.startswith("http://")


class Settings(msgspec.Struct, frozen=True):
    """``insecure``: registries (``host``, ``host:port`` or a CIDR); ``mirrors``: URLs to ask first, by registry.

    ``verify`` True asks for TLS with a good certificate also on loopback, False for neither anywhere.
    ``certificates`` is a directory for every registry, in the place of those below ``directories``.
    ``agent`` stands before our own name in the User-Agent of requests.
    """

    insecure: tuple[str, ...] = ()
    mirrors: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    directories: tuple[str, ...] = DIRECTORIES
    verify: "bool | None" = None
    certificates: str = ""
    agent: str = ""


def is_loopback(domain: str) -> bool:
    name = _name(domain)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    for family, first in ((socket.AF_INET, b"\x7f"), (socket.AF_INET6, bytes(15) + b"\1")):
        try:
            return socket.inet_pton(family, name).startswith(first)
        except OSError:
            continue  # an address of the other family, or a name
    return False


def _name(domain: str) -> str:
    if domain.startswith("["):
        return domain[1:].partition("]")[0]
    return domain.partition(":")[0]


def _is_insecure(domain: str, settings: Settings) -> bool:
    if settings.verify is not None:
        return not settings.verify
    if is_loopback(domain) or domain in settings.insecure or _name(domain) in settings.insecure:
        return True
    if not settings.insecure:
        return False
    import ipaddress

    try:
        address = ipaddress.ip_address(_name(domain))
    except ValueError:
        return False
    for text in settings.insecure:
        try:
            if address in ipaddress.ip_network(text, strict=False):
                return True
        except ValueError:
            continue  # a name, compared above
    return False


def endpoints(domain: str, settings: Settings, capability: str) -> "list[Endpoint]":
    """Where to ask, in order, for ``capability``: mirrors first, the registry itself last."""
    found: list[Endpoint] = []
    if settings.certificates:
        found = list(_own(domain, settings, *_certificates(settings.certificates)))
    for directory in settings.directories if not found else ():
        path = os.path.join(
            directory, domain.replace(":", "_") if not os.path.isdir(f"{directory}/{domain}") else domain
        )
        if os.path.isfile(path + "/hosts.toml"):
            found = list(_from_toml(path + "/hosts.toml", domain))
            break
        if os.path.isdir(path):
            found = list(_own(domain, settings, *_certificates(path)))
            break
    if not any(one.own for one in found):
        found += _own(domain, settings, (), None)
    mirrors = [
        Endpoint(url.rstrip("/"), own=False, capabilities=frozenset({"pull", "resolve"}))
        for url in settings.mirrors.get(domain, ())
    ]
    return [one for one in mirrors + found if capability in one.capabilities]


def _own(
    domain: str, settings: Settings, authorities: "tuple[str, ...]", client: "tuple[str, str] | None"
) -> Iterator[Endpoint]:
    url = _REAL.get(domain, f"https://{domain}")
    insecure = _is_insecure(domain, settings)
    verify = not insecure or (bool(authorities) and settings.verify is None)
    yield Endpoint(url, verify=verify, authorities=authorities, client=client)
    if insecure and not (authorities and verify):
        yield Endpoint(f"http://{domain}")


def _certificates(directory: str) -> "tuple[tuple[str, ...], tuple[str, str] | None]":
    """docker's way: every ``*.crt`` is an authority, the first ``*.cert`` with its key is ours."""
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise InvalidArgument(f"certificate directory {directory}", cause=error.strerror or str(error)) from error
    authorities = tuple(f"{directory}/{name}" for name in names if name.endswith(".crt"))
    for name in names:
        if name.endswith(".cert"):
            key = name[:-5] + ".key"
            if key not in names:
                raise InvalidArgument(f"{directory}/{name}: its key {key} is missing")
            return authorities, (f"{directory}/{name}", f"{directory}/{key}")
    return authorities, None


def _from_toml(path: str, domain: str) -> Iterator[Endpoint]:
    import tomllib

    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"{path}: not TOML", cause=str(error)) from error
    directory = os.path.dirname(path)
    for url, table in (document.get("host") or {}).items():
        yield _endpoint(url, table, directory, path, own=False)
    server = document.get("server") or _REAL.get(domain, f"https://{domain}")
    yield _endpoint(server, document, directory, path, own=True)


def _endpoint(url: str, table: "dict[str, Any]", directory: str, path: str, *, own: bool) -> Endpoint:
    if "://" not in url:
        url = "https://" + url
    if not url.startswith(("http://", "https://")):
        raise InvalidArgument(f"{path}: {url!r} is neither http nor https")
    authorities = table.get("ca") or ()
    if isinstance(authorities, str):
        authorities = (authorities,)
    client = table.get("client")
    pair: tuple[str, str] | None = None
    if isinstance(client, str):
        pair = (_beside(directory, client), _beside(directory, client))
    elif isinstance(client, list) and client:
        first = client[0] if isinstance(client[0], list) else client
        pair = (_beside(directory, first[0]), _beside(directory, first[-1]))
    return Endpoint(
        url.rstrip("/"),
        own=own,
        verify=not table.get("skip_verify", False),
        authorities=tuple(_beside(directory, one) for one in authorities),
        client=pair,
        capabilities=frozenset(table.get("capabilities") or ("pull", "resolve", "push")),
    )


def _beside(directory: str, path: str) -> str:
    return path if path.startswith("/") else f"{directory}/{path}"
