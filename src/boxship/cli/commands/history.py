"""``boxship history``."""

from __future__ import annotations

from boxship.api.engine.client import quote_path
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..output import local_time, print_list, short_id, short_size, since

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAGS = (
    Flag("format", "", "string", "Format output using a custom template"),
    Flag("no-trunc", "", "bool", "Don't truncate output"),
    Flag("quiet", "q", "bool", "Only show image IDs"),
)


def do(context: Context, o: Parsed) -> int:
    rows = context.client.request("GET", f"/images/{quote_path(o.args[0])}/history").json()

    def by(row: dict[str, Any]) -> str:
        text: str = row["CreatedBy"]
        return text if o.no_trunc or len(text) <= 45 else text[:44] + "…"

    fields: dict[str, Any] = {
        "ID": ("IMAGE", lambda r: r["Id"] if o.no_trunc else short_id(r["Id"])),
        "CreatedSince": ("CREATED", lambda r: since(r["Created"])),
        "CreatedAt": ("CREATED AT", lambda r: local_time(r["Created"])),
        "CreatedBy": ("CREATED BY", by),
        "Size": ("SIZE", lambda r: short_size(r["Size"])),
        "Comment": ("COMMENT", lambda r: r["Comment"]),
    }
    columns = ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"]
    print_list(rows, fields, columns, o.format, quiet="ID" if o.quiet else "")
    return 0


COMMAND = Command("history", "IMAGE", "Show the history of an image", do, FLAGS, least=1, most=1)
