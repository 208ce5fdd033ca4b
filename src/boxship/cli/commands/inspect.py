"""``boxship inspect``: containers, images, volumes, networks."""

from __future__ import annotations

import sys

from boxship.api.engine.client import EngineError, quote_path
from boxship.flags import Flag, Parsed, UsageError
from boxship.template import typed

from ..command import Command, Context
from ..output import print_documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAGS = (
    Flag("format", "f", "string", "Format output using a custom template"),
    Flag("size", "s", "bool", "Display total file sizes if the type is container"),
    Flag("type", "", "string", "Only inspect objects of the given type"),
)
PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "volume": "/volumes/{}",
    "network": "/networks/{}",
}


def find(context: Context, name: str, kinds: list[str], size: bool) -> Any:
    """The first kind of object that has the name; raises EngineError."""
    for kind in kinds:
        try:
            query = {"size": size} if kind == "container" else None
            return context.client.request("GET", PATHS[kind].format(quote_path(name)), query).json()
        except EngineError as error:
            if error.status != 404 or len(kinds) == 1:
                raise
    raise EngineError(404, f"No such object: {name}")


def do(context: Context, o: Parsed) -> int:
    if o.type and o.type not in PATHS:
        raise UsageError(f'"{o.type}" is not a valid value for --type: one of {", ".join(PATHS)}')
    found, failed = [], []
    for name in o.args:
        try:
            found.append(find(context, name, [o.type] if o.type else list(PATHS), o.size))
        except EngineError as error:
            failed.append(error.message)
    if found or not o.format:
        print_documents([typed(document) for document in found], o.format)
    for message in failed:
        print(
            f"Error: {message}" if message.startswith("No such object") else f"Error response from daemon: {message}",
            file=sys.stderr,
        )
    return 1 if failed else 0


COMMAND = Command(
    "inspect", "NAME|ID [NAME|ID...]", "Return low-level information on Docker objects", do, FLAGS, least=1, most=None
)
