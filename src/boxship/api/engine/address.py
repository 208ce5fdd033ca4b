"""Where an engine is: ``unix:///PATH`` or ``tcp://HOST:PORT``, from flags, environment or docker's contexts."""

from __future__ import annotations

import os

from boxship.errors import InvalidArgument, NotFound

DEFAULT = "unix:///run/boxship/engine.sock"


class Address:
    """``kind`` is unix or tcp; ``path`` the socket's, ``host`` and ``port`` the server's."""

    __slots__ = ("host", "kind", "path", "port", "text", "tls")

    def __init__(self, text: str, kind: str, path: str = "", host: str = "", port: int = 0) -> None:
        self.text = text
        self.kind = kind
        self.path = path
        self.host = host
        self.port = port
        self.tls: "tuple[str, str, str, bool] | None" = None  # CA, certificate, key, verify


def parse_address(text: str) -> Address:
    """Raises InvalidArgument for anything but unix:// and tcp://."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "unix" and rest:
        return Address(text, "unix", path="/" + rest.lstrip("/"))
    if separator and scheme in ("tcp", "http", "https") and rest:
        rest = rest.rstrip("/")
        host, colon, port = rest.rpartition(":")
        if not colon or rest.endswith("]"):
            host, port = rest, "2375"
        if port.isdigit() and int(port) < 65536:
            return Address(text, "tcp", host=host.strip("[]") or "127.0.0.1", port=int(port))
    raise InvalidArgument(f"unable to parse docker host `{text}`", remedy="unix:///PATH or tcp://HOST:PORT")


def config_directory() -> str:
    return os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")


def find(host: str = "", context: str = "") -> "tuple[Address, bool]":
    """The engine to talk to, and whether somebody named it; an unnamed one may be started.

    ``host`` (-H) over ``context`` (-c) over DOCKER_HOST over DOCKER_CONTEXT over the configuration's current context.
    Raises NotFound for an unknown context.
    """
    if not host and not context:
        host = os.environ.get("DOCKER_HOST", "")
    if host:
        return _with_tls(parse_address(host)), True
    context = context or os.environ.get("DOCKER_CONTEXT", "") or _current_context()
    if context in ("", "default"):
        return parse_address(DEFAULT), False
    return parse_address(_context_host(context)), True


def _with_tls(address: Address) -> Address:
    verify = bool(os.environ.get("DOCKER_TLS_VERIFY"))
    if address.kind == "tcp" and (verify or os.environ.get("DOCKER_TLS") or address.text.startswith("https://")):
        directory = os.environ.get("DOCKER_CERT_PATH") or config_directory()
        files = [os.path.join(directory, name) for name in ("ca.pem", "cert.pem", "key.pem")]
        address.tls = (files[0], files[1], files[2], verify)
    return address


def _current_context() -> str:
    import json

    try:
        with open(os.path.join(config_directory(), "config.json")) as f:
            value = json.load(f).get("currentContext", "")
    except (OSError, ValueError, AttributeError):
        return ""
    return value if isinstance(value, str) else ""


def _context_host(name: str) -> str:
    import hashlib
    import json

    digest = hashlib.sha256(name.encode()).hexdigest()
    try:
        with open(os.path.join(config_directory(), "contexts", "meta", digest, "meta.json")) as f:
            return str(json.load(f)["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError, TypeError):
        raise NotFound(f"context {name!r}: context not found", remedy="docker context ls lists them") from None
