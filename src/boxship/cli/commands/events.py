"""``boxship events``."""

from __future__ import annotations

import json
import time

from boxship.flags import Flag, Parsed
from boxship.template import parse

from ..command import Command, Context
from ..output import filters
from .logs import moment

FLAGS = (
    Flag("filter", "f", "list", "Filter output based on conditions provided", value="filter"),
    Flag("format", "", "string", "Format output using a custom template"),
    Flag("since", "", "string", "Show all events created since timestamp"),
    Flag("until", "", "string", "Stream events until this timestamp"),
)


def do(context: Context, o: Parsed) -> int:
    query = {"since": moment(o.since), "until": moment(o.until), "filters": filters(o.filter)}
    template = parse(o.format) if o.format and o.format != "json" else None
    for event in context.client.request("GET", "/events", query).lines():
        if o.format == "json":
            print(json.dumps(event, separators=(",", ":")), flush=True)
        elif template is not None:
            print(template.render(event), flush=True)
        else:
            seconds, nanos = divmod(event["timeNano"], 10**9)
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds)) + f".{nanos:09d}"
            zone = time.strftime("%z", time.localtime(seconds))
            zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
            attributes = ", ".join(f"{k}={v}" for k, v in sorted(event["Actor"]["Attributes"].items()))
            text = f"{stamp}{zone} {event['Type']} {event['Action']} {event['Actor']['ID']}"
            print(f"{text} ({attributes})" if attributes else text, flush=True)
    return 0


COMMAND = Command("events", "", "Get real time events from the server", do, FLAGS)
