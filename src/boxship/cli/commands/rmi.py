"""``boxship rmi``."""

from __future__ import annotations

from boxship.api.engine.client import EngineError, quote_path
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..each import each

FLAGS = (
    Flag("force", "f", "bool", "Force removal of the image"),
    Flag("no-prune", "", "bool", "Do not delete untagged parents"),
)


def do(context: Context, o: Parsed) -> int:
    def one(name: str) -> str | None:
        query = {"force": o.force, "noprune": o.no_prune}
        try:
            answer = context.client.request("DELETE", f"/images/{quote_path(name)}", query).json()
        except EngineError as error:
            if o.force and error.status == 404:
                return None  # forced: gone is what was wanted
            raise
        rows = [f"{key}: {value}" for entry in answer for key, value in entry.items()]
        return "\n".join(rows)

    return each(o.args, one)


COMMAND = Command("rmi", "IMAGE [IMAGE...]", "Remove one or more images", do, FLAGS, least=1, most=None)
