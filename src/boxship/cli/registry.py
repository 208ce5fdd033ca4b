"""What pull, push, run and create share: who we are at a registry, and a transfer's progress on the screen."""

from __future__ import annotations

import sys

from boxship.api.engine.client import EngineError

from .command import Context
from .terminal import is_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO


def repository_and_tag(text: str) -> tuple[str, str]:
    """``REPOSITORY[:TAG]`` in its two parts; a registry's port is no tag."""
    if ":" not in text.rpartition("/")[2]:
        return text, ""
    repository, _, tag = text.rpartition(":")
    return repository, tag


def authorisation(text: str) -> dict[str, str]:
    """The header that tells the engine what ``config.json`` knows for the registry of a reference."""
    import base64
    import json

    from boxship.image.registry.credentials import Credentials, key_of
    from boxship.oci import reference

    domain = reference.parse(text).domain
    known = Credentials().get(domain)
    if not known:
        return {}
    document = {"username": known.username, "password": known.password, "serveraddress": key_of(domain)}
    if known.identity_token:
        document = {"identitytoken": known.identity_token, "serveraddress": key_of(domain)}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(document).encode()).decode()}


def pull(
    context: Context, image: str, *, platform: str = "", all_tags: bool = False, quiet: bool = False,
    out: TextIO | None = None,
) -> None:  # fmt: skip
    """Pull one image, its progress on ``out`` (standard output). Raises EngineError."""
    from boxship.oci import reference

    parsed = reference.parse(image).with_default_tag()
    query = {"fromImage": parsed.familiar_name, "tag": parsed.digest or parsed.tag, "platform": platform}
    answer = context.client.request("POST", "/images/create", query, headers=authorisation(image))
    show(answer.lines(), quiet=quiet, out=out or sys.stdout)


def show(lines: Iterable[dict[str, Any]], *, quiet: bool, out: TextIO) -> None:
    """Print a transfer: on a terminal a line for each layer that changes in place, else one line for each event.

    Raises EngineError for the error that ends it.
    """
    rows: dict[str, int] = {}
    moving = not quiet and out.isatty() and is_terminal(out.fileno())
    for line in lines:
        if "error" in line:
            raise EngineError(500, (line.get("errorDetail") or {}).get("message") or line["error"])
        status, id = line.get("status", ""), line.get("id", "")
        if quiet or not status:
            continue
        text = f"{id}: {status}" if id else status
        if line.get("progressDetail") and not moving:
            continue  # how far it is, is for people who watch
        if not moving or not id or "progressDetail" not in line:
            print(text, file=out, flush=True)
            rows = {name: row + 1 for name, row in rows.items()}
            continue
        if line.get("progress"):
            text += f" {line['progress']}"
        if id not in rows:
            rows = {name: row + 1 for name, row in rows.items()}
            rows[id] = 1
            print(text, file=out, flush=True)
            continue
        up = rows[id]
        out.write(f"\x1b[{up}A\r\x1b[2K{text}\x1b[{up}B\r")
        out.flush()
