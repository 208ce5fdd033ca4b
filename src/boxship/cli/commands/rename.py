"""``boxship rename``."""

from __future__ import annotations

from ..command import Command, Context
from ..flags import Parsed


def do(context: Context, o: Parsed) -> int:
    context.client.request("POST", f"/containers/{o.args[0]}/rename", {"name": o.args[1]}).read()
    return 0


COMMAND = Command("rename", "CONTAINER NEW_NAME", "Rename a container", do, least=2, most=2)
