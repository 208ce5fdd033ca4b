"""``boxship unpause``."""

from __future__ import annotations

from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..each import each, post

FLAGS: tuple[Flag, ...] = ()


def do(context: Context, o: Parsed) -> int:
    return each(o.args, lambda name: post(context, name, "unpause"))


COMMAND = Command(
    "unpause",
    "CONTAINER [CONTAINER...]",
    "Unpause all processes within one or more containers",
    do,
    FLAGS,
    least=1,
    most=None,
)
