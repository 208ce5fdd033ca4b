"""``boxship diff``."""

from __future__ import annotations

from urllib.parse import quote

from boxship.flags import Parsed

from ..command import Command, Context

KINDS = "CAD"


def do(context: Context, o: Parsed) -> int:
    for change in context.client.request("GET", f"/containers/{quote(o.args[0])}/changes").json() or []:
        print(KINDS[change["Kind"]], change["Path"])
    return 0


COMMAND = Command(
    "diff", "CONTAINER", "Inspect changes to files or directories on a container's filesystem", do, least=1, most=1
)
