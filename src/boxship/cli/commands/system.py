"""``boxship system``: df, info, prune."""

from __future__ import annotations

from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..output import filters, human_size, print_table
from ..subcommands import group
from .info import COMMAND as INFO
from .volume import confirm


def df(context: Context, o: Parsed) -> int:
    usage = context.client.request("GET", "/system/df").json()
    containers, images, volumes = usage["Containers"] or [], usage["Images"] or [], usage["Volumes"] or []
    running = [c for c in containers if c["State"] == "running"]
    used = {c["ImageID"] for c in containers}
    rows = [
        ("Images", len(images), len([i for i in images if i["Id"] in used]), usage["LayersSize"]),
        ("Containers", len(containers), len(running), sum(c.get("SizeRw", 0) for c in containers)),
        (
            "Local Volumes",
            len(volumes),
            len([v for v in volumes if v["UsageData"]["RefCount"]]),
            sum(v["UsageData"]["Size"] for v in volumes),
        ),
    ]
    print_table(["TYPE", "TOTAL", "ACTIVE", "SIZE"], [[k, str(n), str(a), human_size(s)] for k, n, a, s in rows])
    return 0


def prune(context: Context, o: Parsed) -> int:
    what = "all stopped containers and " + ("all images without a container" if o.all else "all dangling images")
    if not o.force and not confirm(f"This will remove {what}."):
        return 0
    client = context.client
    removed = client.request("POST", "/containers/prune").json()
    query = {"filters": filters(["dangling=false"] if o.all else ["dangling=true"])}
    images = client.request("POST", "/images/prune", query).json()
    freed = removed["SpaceReclaimed"] + images["SpaceReclaimed"]
    if o.volumes:
        freed += client.request("POST", "/volumes/prune").json()["SpaceReclaimed"]
    for id in removed["ContainersDeleted"] or []:
        print(f"deleted container: {id}")
    for entry in images["ImagesDeleted"] or []:
        for key, value in entry.items():
            print(f"{key.lower()}: {value}")
    print(f"Total reclaimed space: {human_size(freed)}")
    return 0


COMMANDS = {
    "df": Command("df", "", "Show disk usage", df),
    "info": INFO,
    "prune": Command(
        "prune", "", "Remove unused data", prune,
        (
            Flag("all", "a", "bool", "Remove all unused images, not just dangling ones"),
            Flag("force", "f", "bool", "Do not prompt for confirmation"),
            Flag("volumes", "", "bool", "Prune anonymous volumes"),
        ),
    ),
}  # fmt: skip

COMMAND = group("system", "Manage the engine: df, info, prune", COMMANDS, {})
