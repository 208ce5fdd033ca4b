"""``boxship rename``."""

from __future__ import annotations

import sys

from boxship.api.engine.client import EngineError, quote_path
from boxship.flags import Parsed

from ..command import Command, Context


def do(context: Context, o: Parsed) -> int:
    old, new = o.args
    try:
        context.client.request("POST", f"/containers/{quote_path(old)}/rename", {"name": new}).read()
    except EngineError as error:
        print(f"Error response from daemon: {error.message}", file=sys.stderr)
        print(f"Error: failed to rename container named {old}", file=sys.stderr)
        return 1
    return 0


COMMAND = Command("rename", "CONTAINER NEW_NAME", "Rename a container", do, least=2, most=2)
