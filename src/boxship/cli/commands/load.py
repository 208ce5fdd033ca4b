"""``boxship load``."""

from __future__ import annotations

import sys

from boxship.api.engine.client import EngineError
from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..files import cannot
from ..terminal import is_terminal

FLAGS = (
    Flag("input", "i", "string", "Read from tar archive file, instead of STDIN"),
    Flag("quiet", "q", "bool", "Suppress the load output"),
)


def do(context: Context, o: Parsed) -> int:
    if not o.input and is_terminal(0):
        raise InvalidArgument("requested load from stdin, but stdin is empty", remedy="give a file with -i")
    try:
        source = open(o.input, "rb") if o.input else sys.stdin.buffer  # noqa: SIM115 - closed with the process
    except OSError as error:
        raise cannot("open", o.input, error) from error
    answer = context.client.request(
        "POST", "/images/load", {"quiet": o.quiet}, stream=source, content_type="application/x-tar"
    )
    for line in answer.lines():
        if "error" in line:
            raise EngineError(500, line["error"])
        sys.stdout.write(line.get("stream", ""))
    return 0


COMMAND = Command("load", "", "Load an image from a tar archive or STDIN", do, FLAGS)
