"""``boxship rm``."""

from __future__ import annotations

from boxship.api.engine.client import EngineError, quote_path
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..each import each

FLAGS = (
    Flag("force", "f", "bool", "Force the removal of a running container (uses SIGKILL)"),
    Flag("link", "l", "bool", "Remove the specified link"),
    Flag("volumes", "v", "bool", "Remove anonymous volumes associated with the container"),
)


def do(context: Context, o: Parsed) -> int:
    def one(name: str) -> str | None:
        query = {"force": o.force, "v": o.volumes, "link": o.link}
        try:
            context.client.request("DELETE", f"/containers/{quote_path(name)}", query).read()
        except EngineError as error:
            if o.force and error.status == 404:
                return None  # forced: gone is what was wanted
            raise
        return name

    return each(o.args, one)


COMMAND = Command("rm", "CONTAINER [CONTAINER...]", "Remove one or more containers", do, FLAGS, least=1, most=None)
