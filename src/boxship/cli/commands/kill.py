"""``boxship kill``."""

from __future__ import annotations

from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..each import each, post

FLAGS = (Flag("signal", "s", "string", "Signal to send to the container"),)


def do(context: Context, o: Parsed) -> int:
    return each(o.args, lambda name: post(context, name, "kill", signal=o.signal))


COMMAND = Command(
    "kill", "CONTAINER [CONTAINER...]", "Kill one or more running containers", do, FLAGS, least=1, most=None
)
