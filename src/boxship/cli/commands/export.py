"""``boxship export``."""

from __future__ import annotations

from urllib.parse import quote

from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..files import write_whole
from ..terminal import is_terminal

FLAGS = (Flag("output", "o", "string", "Write to a file, instead of STDOUT"),)


def do(context: Context, o: Parsed) -> int:
    if not o.output and is_terminal(1):
        raise InvalidArgument("cowardly refusing to save to a terminal", remedy="use the -o flag or redirect")
    write_whole(context.client.request("GET", f"/containers/{quote(o.args[0])}/export").parts(), o.output)
    return 0


COMMAND = Command(
    "export", "CONTAINER", "Export a container's filesystem as a tar archive", do, FLAGS, least=1, most=1
)
