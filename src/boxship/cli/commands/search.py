"""``boxship search``."""

from __future__ import annotations

from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..output import filters, print_list
from ..registry import authorisation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = 45
"""Characters of a description that are shown."""
FLAGS = (
    Flag("filter", "f", "list", "Filter output based on conditions provided", value="filter"),
    Flag("format", "", "string", "Pretty-print search using a template"),
    Flag("limit", "", "int", "Max number of search results"),
    Flag("no-trunc", "", "bool", "Don't truncate output"),
)


def do(context: Context, o: Parsed) -> int:
    query = {"term": o.args[0], "limit": "" if o.limit is None else str(o.limit), "filters": filters(o.filter)}
    rows = context.client.request("GET", "/images/search", query, headers=_who(o.args[0])).json()

    def about(row: dict[str, Any]) -> str:
        text = (row["description"] or "").replace("\n", " ").replace("\r", " ")
        return text if o.no_trunc or len(text) <= DESCRIPTION else text[: DESCRIPTION - 1] + "…"

    fields: dict[str, Any] = {
        "Name": ("NAME", lambda r: r["name"]),
        "Description": ("DESCRIPTION", about),
        "StarCount": ("STARS", lambda r: str(r["star_count"])),
        "IsOfficial": ("OFFICIAL", lambda r: "[OK]" if r["is_official"] else ""),
        "IsAutomated": ("AUTOMATED", lambda r: "[OK]" if r["is_automated"] else ""),
    }
    print_list(rows, fields, ["Name", "Description", "StarCount", "IsOfficial"], o.format)
    return 0


def _who(term: str) -> dict[str, str]:
    try:
        return authorisation(term)
    except InvalidArgument:
        return {}  # words that are no reference are for Docker Hub, which anybody may search


COMMAND = Command("search", "TERM", "Search a registry for images", do, FLAGS, least=1, most=1)
