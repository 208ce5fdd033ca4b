"""``boxship create``."""

from __future__ import annotations

from boxship.flags import Parsed

from ..command import Command, Context
from ..runflags import FLAGS
from .run import create


def do(context: Context, o: Parsed) -> int:
    print(create(context, o)[0])
    return 0


COMMAND = Command(
    "create", "IMAGE [COMMAND] [ARG...]", "Create a new container", do, FLAGS,
    least=1, most=None, interspersed=False,
)  # fmt: skip
