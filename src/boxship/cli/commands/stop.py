"""``boxship stop``."""

from __future__ import annotations

from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..each import each, post

FLAGS = (
    Flag("signal", "s", "string", "Signal to send to the container"),
    Flag("time", "t", "int", "Seconds to wait before killing the container"),
    Flag("timeout", "", "int", "Seconds to wait before killing the container"),
)


def do(context: Context, o: Parsed) -> int:
    return each(
        o.args,
        lambda name: post(context, name, "stop", t=o.time if o.time is not None else o.timeout, signal=o.signal),
    )


COMMAND = Command(
    "stop", "CONTAINER [CONTAINER...]", "Stop one or more running containers", do, FLAGS, least=1, most=None
)
