"""``boxship stats``."""

from __future__ import annotations

import sys
import time

from boxship.api.engine.client import EngineError
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..output import human_size, human_size_binary, print_list, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAGS = (
    Flag("all", "a", "bool", "Show all containers (default shows just running)"),
    Flag("format", "", "string", "Format output using a custom template"),
    Flag("no-stream", "", "bool", "Disable streaming stats and only pull the first result"),
    Flag("no-trunc", "", "bool", "Do not truncate output"),
)
COLUMNS = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"]


def cpu(now: dict[str, Any]) -> float:
    """Percent of one processor between this reading and the one before."""
    used, before = now["cpu_stats"], now["precpu_stats"]
    container = used["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    system = used.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    return 100.0 * container / system * used.get("online_cpus", 1) if container > 0 and system > 0 else 0.0


def memory(document: dict[str, Any]) -> int:
    """Used memory without the page cache that can be dropped, as docker shows it."""
    stats = document["memory_stats"]
    inactive = stats.get("stats", {}).get("total_inactive_file", stats.get("stats", {}).get("inactive_file", 0))
    usage: int = stats.get("usage", 0)
    return usage - inactive if inactive < usage else usage


def block(document: dict[str, Any], op: str) -> int:
    entries = document["blkio_stats"].get("io_service_bytes_recursive") or []
    return sum(entry["value"] for entry in entries if entry["op"].lower() == op)


def network(document: dict[str, Any], key: str) -> int:
    return sum(interface[key] for interface in (document.get("networks") or {}).values())


def percent(document: dict[str, Any]) -> float:
    limit = document["memory_stats"].get("limit", 0)
    return 100.0 * memory(document) / limit if limit else 0.0


def fields(no_trunc: bool) -> dict[str, Any]:
    return {
        "Container": ("CONTAINER", lambda d: d["id"] if no_trunc else short_id(d["id"])),
        "ID": ("CONTAINER ID", lambda d: d["id"] if no_trunc else short_id(d["id"])),
        "Name": ("NAME", lambda d: d["name"].removeprefix("/")),
        "CPUPerc": ("CPU %", lambda d: f"{cpu(d):.2f}%"),
        "MemUsage": (
            "MEM USAGE / LIMIT",
            lambda d: f"{human_size_binary(memory(d))} / {human_size_binary(d['memory_stats'].get('limit', 0))}",
        ),
        "MemPerc": ("MEM %", lambda d: f"{percent(d):.2f}%"),
        "NetIO": (
            "NET I/O",
            lambda d: f"{human_size(network(d, 'rx_bytes'))} / {human_size(network(d, 'tx_bytes'))}",
        ),
        "BlockIO": ("BLOCK I/O", lambda d: f"{human_size(block(d, 'read'))} / {human_size(block(d, 'write'))}"),
        "PIDs": ("PIDS", lambda d: d["pids_stats"].get("current", 0)),
    }


def do(context: Context, o: Parsed) -> int:
    client = context.client
    before: dict[str, Any] = {}
    named = o.args
    while True:
        names = named or [c["Id"] for c in client.request("GET", "/containers/json", {"all": o.all}).json()]
        first = not before
        documents = []
        for name in names:
            try:
                query = {"stream": "0", "one-shot": True}
                document = client.request("GET", f"/containers/{name}/stats", query).json()
            except EngineError:
                if named and first:
                    raise
                continue  # it was removed meanwhile
            if document["id"] in before:
                document["precpu_stats"] = before[document["id"]]["cpu_stats"]
            documents.append(document)
        before = {document["id"]: document for document in documents}
        if first and documents:
            time.sleep(1)  # percentages need two readings
            continue
        if not o.no_stream and sys.stdout.isatty():
            sys.stdout.write("\x1b[2J\x1b[H")
        print_list(documents, fields(o.no_trunc), COLUMNS, o.format)
        if o.no_stream:
            return 0
        sys.stdout.flush()
        time.sleep(1)


COMMAND = Command(
    "stats", "[CONTAINER...]", "Display a live stream of container(s) resource usage statistics", do, FLAGS, most=None
)
