"""``boxship save``."""

from __future__ import annotations

import os
import sys

from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..files import cannot
from ..terminal import is_terminal

FLAGS = (
    Flag("output", "o", "string", "Write to a file, instead of STDOUT"),
    Flag("platform", "", "string", "Save only the given platform variant"),
)


def do(context: Context, o: Parsed) -> int:
    if not o.output and is_terminal(1):
        raise InvalidArgument("cowardly refusing to save to a terminal", remedy="use the -o flag or redirect")
    answer = context.client.request("GET", "/images/get", {"names": o.args})
    if not o.output:
        for part in answer.parts():
            sys.stdout.buffer.write(part)
        return 0
    temporary = f"{o.output}.{os.getpid()}"
    try:
        with open(temporary, "wb") as f:
            for part in answer.parts():
                f.write(part)
        os.rename(temporary, o.output)
    except OSError as error:
        raise cannot("write", o.output, error) from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return 0


COMMAND = Command(
    "save", "IMAGE [IMAGE...]", "Save one or more images to a tar archive (streamed to STDOUT by default)", do, FLAGS,
    least=1, most=None,
)  # fmt: skip
