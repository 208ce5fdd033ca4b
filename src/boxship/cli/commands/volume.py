"""``boxship volume``: create, inspect, ls, prune, rm."""

from __future__ import annotations

from boxship.api.engine.client import quote_path
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..each import each
from ..output import filters, human_size, print_documents, print_list
from ..subcommands import group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def create(context: Context, o: Parsed) -> int:
    body = {
        "Name": (o.args[0] if o.args else "") or o.name,
        "Driver": o.driver,
        "Labels": dict(text.partition("=")[::2] for text in o.label),
        "DriverOpts": dict(text.partition("=")[::2] for text in o.opt),
    }
    print(context.client.request("POST", "/volumes/create", None, body).json()["Name"])
    return 0


def ls(context: Context, o: Parsed) -> int:
    volumes = context.client.request("GET", "/volumes", {"filters": filters(o.filter)}).json()["Volumes"] or []
    fields: dict[str, Any] = {
        "Driver": ("DRIVER", lambda v: v["Driver"]),
        "Name": ("VOLUME NAME", lambda v: v["Name"]),
        "Mountpoint": ("MOUNTPOINT", lambda v: v["Mountpoint"]),
        "Scope": ("SCOPE", lambda v: v["Scope"]),
        "Labels": ("LABELS", lambda v: ",".join(f"{k}={x}" for k, x in sorted((v["Labels"] or {}).items()))),
        "Availability": ("AVAILABILITY", lambda v: "N/A"),  # this and what follows: of cluster volumes
        "Group": ("GROUP", lambda v: "N/A"),
        "Links": ("LINKS", lambda v: "N/A"),
        "Size": ("SIZE", lambda v: "N/A"),
        "Status": ("STATUS", lambda v: "N/A"),
    }
    print_list(volumes, fields, ["Driver", "Name"], o.format, quiet="Name" if o.quiet else "")
    return 0


def inspect(context: Context, o: Parsed) -> int:
    found: list[Any] = []

    def one(name: str) -> None:
        found.append(context.client.request("GET", f"/volumes/{quote_path(name)}").json())

    failed = each(o.args, one)
    print_documents(found, o.format)
    return failed


def rm(context: Context, o: Parsed) -> int:
    def one(name: str) -> str:
        context.client.request("DELETE", f"/volumes/{quote_path(name)}", {"force": o.force}).read()
        return name

    return each(o.args, one)


def prune(context: Context, o: Parsed) -> int:
    if not o.force and not confirm("This will remove anonymous local volumes not used by at least one container."):
        return 0
    wanted = filters([*o.filter, *(["all=true"] if o.all else [])])
    answer = context.client.request("POST", "/volumes/prune", {"filters": wanted}).json()
    if answer["VolumesDeleted"]:
        print("Deleted Volumes:", *answer["VolumesDeleted"], sep="\n")
        print()
    print(f"Total reclaimed space: {human_size(answer['SpaceReclaimed'])}")
    return 0


def confirm(warning: str) -> bool:
    """Ask before something is lost; no answer is no."""
    try:
        return input(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


FORMAT = Flag("format", "f", "string", "Format output using a custom template")
FILTER = Flag("filter", "f", "list", "Provide filter values (e.g. dangling=true)", value="filter")

COMMANDS = {
    "create": Command(
        "create", "[VOLUME]", "Create a volume", create,
        (
            Flag("driver", "d", "string", "Specify volume driver name", "local"),
            Flag("label", "", "list", "Set metadata for a volume"),
            Flag("name", "", "string", "Specify volume name"),
            Flag("opt", "o", "list", "Set driver specific options"),
        ),
        most=1,
    ),
    "inspect": Command(
        "inspect", "VOLUME [VOLUME...]", "Display detailed information on one or more volumes", inspect, (FORMAT,),
        least=1, most=None,
    ),
    "ls": Command(
        "ls", "", "List volumes", ls,
        (
            FILTER,
            Flag("format", "", "string", "Format output using a custom template"),
            Flag("quiet", "q", "bool", "Only display volume names"),
        ),
    ),
    "prune": Command(
        "prune", "", "Remove unused local volumes", prune,
        (
            Flag("all", "a", "bool", "Remove all unused volumes, not just anonymous ones"),
            Flag("filter", "", "list", "Provide filter values (e.g. label=<label>)", value="filter"),
            Flag("force", "f", "bool", "Do not prompt for confirmation"),
        ),
    ),
    "rm": Command(
        "rm", "VOLUME [VOLUME...]", "Remove one or more volumes", rm,
        (Flag("force", "f", "bool", "Force the removal of one or more volumes"),), least=1, most=None,
    ),
}  # fmt: skip

COMMAND = group("volume", "Manage volumes", COMMANDS, {"list": "ls", "remove": "rm"})
