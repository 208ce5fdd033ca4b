"""``boxship network``: ls, inspect."""

from __future__ import annotations

from boxship.api.engine.client import quote_path
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..each import each
from ..output import filters, print_documents, print_list, short_id
from ..subcommands import group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def ls(context: Context, o: Parsed) -> int:
    networks = context.client.request("GET", "/networks", {"filters": filters(o.filter)}).json()
    fields: dict[str, Any] = {
        "ID": ("NETWORK ID", lambda n: n["Id"] if o.no_trunc else short_id(n["Id"])),
        "Name": ("NAME", lambda n: n["Name"]),
        "Driver": ("DRIVER", lambda n: n["Driver"]),
        "Scope": ("SCOPE", lambda n: n["Scope"]),
    }
    print_list(networks, fields, ["ID", "Name", "Driver", "Scope"], o.format, quiet="ID" if o.quiet else "")
    return 0


def inspect(context: Context, o: Parsed) -> int:
    found: list[Any] = []

    def one(name: str) -> None:
        found.append(context.client.request("GET", f"/networks/{quote_path(name)}").json())

    failed = each(o.args, one)
    print_documents(found, o.format)
    return failed


COMMANDS = {
    "inspect": Command(
        "inspect", "NETWORK [NETWORK...]", "Display detailed information on one or more networks", inspect,
        (Flag("format", "f", "string", "Format output using a custom template"),), least=1, most=None,
    ),
    "ls": Command(
        "ls", "", "List networks", ls,
        (
            Flag("filter", "f", "list", "Provide filter values (e.g. driver=bridge)", value="filter"),
            Flag("format", "", "string", "Format output using a custom template"),
            Flag("no-trunc", "", "bool", "Do not truncate the output"),
            Flag("quiet", "q", "bool", "Only display network IDs"),
        ),
    ),
}  # fmt: skip

MISSING = ("connect", "create", "disconnect", "prune", "rm")

COMMAND = group("network", "List and inspect networks", COMMANDS, {"list": "ls"}, MISSING)
