"""``boxship ps``."""

from __future__ import annotations

from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..output import filters, local_time, print_list, short_id, short_size, since

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAGS = (
    Flag("all", "a", "bool", "Show all containers (default shows just running)"),
    Flag("filter", "f", "list", "Filter output based on conditions provided", value="filter"),
    Flag(
        "format", "", "string", "Format output using a custom template: 'table', 'table TEMPLATE', 'json', TEMPLATE"
    ),
    Flag("last", "n", "int", "Show n last created containers (includes all states)", -1),
    Flag("latest", "l", "bool", "Show the latest created container (includes all states)"),
    Flag("no-trunc", "", "bool", "Don't truncate output"),
    Flag("quiet", "q", "bool", "Only display container IDs"),
    Flag("size", "s", "bool", "Display total file sizes"),
)


def ports(container: dict[str, Any]) -> str:
    """``0.0.0.0:8080->80/tcp, 443/tcp``."""
    rows = []
    for port in sorted(container.get("Ports") or [], key=lambda p: (p["PrivatePort"], p.get("PublicPort", 0))):
        inside = f"{port['PrivatePort']}/{port['Type']}"
        if port.get("PublicPort"):
            ip = port.get("IP", "")
            ip = f"[{ip}]" if ":" in ip else ip
            rows.append(f"{ip}:{port['PublicPort']}->{inside}")
        else:
            rows.append(inside)
    return ", ".join(rows)


def size(container: dict[str, Any]) -> str:
    own, whole = container.get("SizeRw", 0), container.get("SizeRootFs", 0)
    return f"{short_size(own)} (virtual {short_size(whole)})" if whole else short_size(own)


def fields(no_trunc: bool) -> dict[str, Any]:
    def command(c: dict[str, Any]) -> str:
        text = c["Command"]
        if not no_trunc and len(text) > 20:
            text = text[:19] + "…"
        return f'"{text}"'

    return {
        "ID": ("CONTAINER ID", lambda c: c["Id"] if no_trunc else short_id(c["Id"])),
        "Image": ("IMAGE", lambda c: c["Image"] if no_trunc or "sha256:" not in c["Image"] else short_id(c["Image"])),
        "Command": ("COMMAND", command),
        "CreatedAt": ("CREATED AT", lambda c: local_time(c["Created"])),
        "RunningFor": ("CREATED", lambda c: since(c["Created"])),
        "Status": ("STATUS", lambda c: c["Status"]),
        "State": ("STATE", lambda c: c["State"]),
        "Ports": ("PORTS", ports),
        "Names": ("NAMES", lambda c: ",".join(name.removeprefix("/") for name in c["Names"])),
        "Size": ("SIZE", size),
        "Labels": ("LABELS", lambda c: ",".join(f"{k}={v}" for k, v in sorted((c["Labels"] or {}).items()))),
        "Mounts": ("MOUNTS", lambda c: ",".join(m.get("Name") or m["Source"] for m in c["Mounts"])),
        "LocalVolumes": ("LOCAL VOLUMES", lambda c: sum(m["Type"] == "volume" for m in c["Mounts"])),
        "Networks": ("NETWORKS", lambda c: ",".join(sorted(c["NetworkSettings"]["Networks"]))),
        "Platform": ("PLATFORM", lambda c: c.get("Platform", "")),
    }


def do(context: Context, o: Parsed) -> int:
    last = 1 if o.latest else o.last
    query = {
        "all": o.all,
        "limit": last if last > 0 else None,
        "size": o.size or ".Size" in o.format,
        "filters": filters(o.filter),
    }
    rows = context.client.request("GET", "/containers/json", query).json()
    columns = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"]
    if o.size:
        columns.append("Size")
    print_list(rows, fields(o.no_trunc), columns, o.format, quiet="ID" if o.quiet else "")
    return 0


COMMAND = Command("ps", "", "List containers", do, FLAGS)
