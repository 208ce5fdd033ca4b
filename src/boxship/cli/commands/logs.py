"""``boxship logs``."""

from __future__ import annotations

import time

from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..streams import Demultiplexer, write_all

FLAGS = (
    Flag("details", "", "bool", "Show extra details provided to logs"),
    Flag("follow", "f", "bool", "Follow log output"),
    Flag("since", "", "string", "Show logs since timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m)"),
    Flag("tail", "n", "string", "Number of lines to show from the end of the logs", "all"),
    Flag("timestamps", "t", "bool", "Show timestamps"),
    Flag("until", "", "string", "Show logs before a timestamp or relative (e.g. 42m)"),
)
UNITS = {"s": 1, "m": 60, "h": 3600}


def moment(text: str) -> str:
    """A point in time for the engine: Unix seconds of ``42m`` ago, others as they are; raises InvalidArgument."""
    import re

    if not text or text.replace(".", "").isdigit() or "-" in text:
        return text
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidArgument(f"invalid value for time: {text!r}", remedy="like 10m, 1h30m, or an RFC 3339 time")
    return f"{time.time() - sum(float(number) * UNITS[unit] for number, unit in parts):.9f}"


def do(context: Context, o: Parsed) -> int:
    query = {
        "stdout": True,
        "stderr": True,
        "follow": o.follow,
        "tail": o.tail,
        "timestamps": o.timestamps,
        "details": o.details,
        "since": moment(o.since),
        "until": moment(o.until),
    }
    client = context.client
    tty = client.request("GET", f"/containers/{o.args[0]}/json").json()["Config"]["Tty"]
    split = Demultiplexer()
    for part in client.request("GET", f"/containers/{o.args[0]}/logs", query).parts():
        if tty:
            write_all(1, part)
            continue
        for stream, data in split.feed(part):
            write_all(2 if stream == 2 else 1, data)
    return 0


COMMAND = Command("logs", "CONTAINER", "Fetch the logs of a container", do, FLAGS, least=1, most=1)
