"""What the verbs that reach images share: flags for one end of a copy, and how they become an `Access`.

Flags for an end carry its prefix (``--src-creds``, ``--dest-creds``); verbs with one image have none.
"""

from __future__ import annotations

import sys

from boxship.errors import BoxshipError, InvalidArgument, Unavailable
from boxship.flags import Flag, Parsed, UsageError

from .command import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from boxship.image.registry.credentials import Credential
    from boxship.image.transports import Access, Name, Source

    T = TypeVar("T")

AUTHFILE = Flag(
    "authfile", "", "string", "The auth file (default: $XDG_RUNTIME_DIR/containers/auth.json)", value="PATH"
)
RETRIES = (
    Flag("retry-times", "", "int", "Try so many times again when the other side is away", value="N"),
    Flag("retry-delay", "", "string", "Wait so long before it (default: 1s, 2s, 4s, ...)", value="DURATION"),
)
# prefix -> the other name that skopeo has for --PREFIXcreds
_OTHER_CREDS = {"src-": "screds", "dest-": "dcreds"}


def end_flags(prefix: str = "", *, layouts: bool = True) -> tuple[Flag, ...]:
    """The flags for one end; ``layouts`` False for verbs that reach registries only."""
    found = [
        Flag(f"{prefix}cert-dir", "", "string", "Certificates (*.crt, *.cert, *.key) for the registry", value="PATH"),
        Flag(f"{prefix}creds", "", "string", "Log in to the registry as USERNAME", value="USERNAME[:PASSWORD]"),
        Flag(f"{prefix}no-creds", "", "bool", "Reach the registry as nobody"),
        Flag(f"{prefix}password", "", "string", "The password for the registry"),
        Flag(f"{prefix}registry-token", "", "string", "A bearer token for the registry", value="TOKEN"),
        Flag(f"{prefix}tls-verify", "", "bool", "Require HTTPS and verify certificates"),
        Flag(f"{prefix}username", "", "string", "The name to log in to the registry by"),
    ]
    if prefix:
        found.append(Flag(f"{prefix}authfile", "", "string", "The auth file for this end", value="PATH"))
        found.append(
            Flag(_OTHER_CREDS[prefix], "", "string", f"The same as --{prefix}creds", value="USERNAME[:PASSWORD]")
        )
    if layouts:
        found.append(
            Flag(f"{prefix}daemon-host", "", "string", "The engine of docker-daemon: and boxship:", value="HOST")
        )
        found.append(
            Flag(f"{prefix}shared-blob-dir", "", "string", "Where oci: layouts share blobs", value="DIRECTORY")
        )
    return tuple(found)


def access(context: Context, o: Parsed, prefix: str = "", **more: Any) -> Access:
    """What the flags of one end say. Raises UsageError."""
    from boxship.image.transports import Access

    def value(name: str, default: Any = "") -> Any:
        return o.values.get(prefix + name, default)

    verify: bool | None = None
    if context.options.values.get("tls-verify") is not None and "tls-verify" in context.options.given:
        verify = context.options.tls_verify
    if f"{prefix}tls-verify" in o.given:
        verify = value("tls-verify")
    return Access(
        credential=_credential(o, prefix),
        authfile=value("authfile") or o.values.get("authfile", ""),
        registry_token=value("registry-token"),
        cert_dir=value("cert-dir"),
        tls_verify=verify,
        daemon_host=value("daemon-host"),
        shared_blobs=value("shared-blob-dir"),
        registries_conf=context.options.registries_conf,
        registries_d=context.options.values["registries.d"],
        tmpdir=context.options.tmpdir,
        agent=context.options.user_agent_prefix,
        platform=_platform(context),
        **more,
    )


def _platform(context: Context) -> Any:
    from boxship.oci import platform

    here, o = platform.host(), context.options
    architecture = o.override_arch or here.architecture
    variant = o.override_variant or ("" if o.override_arch else here.variant)
    return platform.normalise(o.override_os or here.os, architecture, variant)


def _credential(o: Parsed, prefix: str) -> Credential | None:
    from boxship.image.registry.credentials import Credential

    creds = o.values.get(f"{prefix}creds") or o.values.get(_OTHER_CREDS.get(prefix, ""), "")
    username, password = o.values.get(f"{prefix}username", ""), o.values.get(f"{prefix}password", "")
    nobody = o.values.get(f"{prefix}no-creds", False)
    if creds and (username or nobody):
        other = f"--{prefix}no-creds" if nobody else f"--{prefix}username"
        raise UsageError(f"creds and {other} cannot be specified at the same time: --{prefix}creds names a user, too")
    if nobody and username:
        raise UsageError(f"--{prefix}no-creds and --{prefix}username cannot be specified at the same time")
    if bool(username) != bool(password):
        raise UsageError(f"--{prefix}username and --{prefix}password are given together")
    if creds:
        username, colon, password = creds.partition(":")
        if not username:
            raise UsageError(f"--{prefix}creds: the username is empty")
        if not colon:
            from getpass import getpass

            password = getpass(f"Password for {username}: ") if sys.stdin.isatty() else ""
    return Credential() if nobody else Credential(username, password) if username else None


def name(text: str, what: str = "") -> Name:
    """An image's name; raises InvalidArgument in skopeo's words."""
    from boxship.image.transports import parse

    try:
        return parse(text)
    except InvalidArgument as error:
        where = f"Invalid {what} name {text}" if what else f'Error parsing image name "{text}"'
        raise InvalidArgument(f"{where}: {error.message}", cause=error.cause, remedy=error.remedy) from error


def retrying(o: Parsed, do: Callable[[], T]) -> T:
    """Call it, and again as --retry-times says while the other side is away."""
    import time

    from .main import seconds

    times = o.values.get("retry-times") or 0
    delay = seconds(o.values["retry-delay"]) if o.values.get("retry-delay") else 0.0
    for attempt in range(times):
        try:
            return do()
        except Unavailable as error:
            wait = delay or float(2**attempt)
            print(f"Failed, retrying in {wait:g}s ... ({attempt + 1}/{times}). Error: {error}", file=sys.stderr)
            time.sleep(wait)
    return do()


def opened(o: Parsed, text: str, reach: Access) -> Source:
    """A source; what it says when it cannot be opened names the image."""
    from boxship.image.transports import open_source

    wanted = name(text)
    return retrying(o, lambda: open_source(wanted, reach))


def told(what: str, error: BoxshipError) -> BoxshipError:
    """The same error with the step before it."""
    error.message = f"{what}: {error.message}"
    return error


def words(values: list[str]) -> list[str]:
    """A flag that takes a list with commas, and may be repeated."""
    return [word for value in values for word in value.split(",") if word]


def numbers(values: list[str], flag: str) -> tuple[int, ...]:
    """Raises UsageError."""
    try:
        return tuple(int(word) for word in words(values))
    except ValueError:
        raise UsageError(f"invalid argument for --{flag}: layers are numbered, as 0 or -1") from None
