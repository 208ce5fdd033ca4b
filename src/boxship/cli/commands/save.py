"""``boxship save``."""

from __future__ import annotations

from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..files import write_whole
from ..terminal import is_terminal

FLAGS = (
    Flag("output", "o", "string", "Write to a file, instead of STDOUT"),
    Flag("platform", "", "string", "Save only the given platform variant"),
)


def do(context: Context, o: Parsed) -> int:
    if not o.output and is_terminal(1):
        raise InvalidArgument("cowardly refusing to save to a terminal", remedy="use the -o flag or redirect")
    write_whole(context.client.request("GET", "/images/get", {"names": o.args}).parts(), o.output)
    return 0


COMMAND = Command(
    "save", "IMAGE [IMAGE...]", "Save one or more images to a tar archive (streamed to STDOUT by default)", do, FLAGS,
    least=1, most=None,
)  # fmt: skip
