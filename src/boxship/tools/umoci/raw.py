"""``umoci raw``: the steps of other verbs by themselves (`boxship.tools.umoci.RAW`)."""

from __future__ import annotations

from boxship.flags import Parsed, UsageError

from ..command import Command, Context
from . import RAW


def do(context: Context, options: Parsed) -> int:
    from . import main

    if not options.args or options.args[0] in ("help", "h"):
        print(main.describe(COMMAND, context.program), end="")
        return 0
    command = load(options.args[0])
    program = f"{context.program} raw"
    parsed = main.parse(command, options.args[1:], program)
    if parsed is None:
        print(main.describe(command, program), end="")
        return 0
    return command.do(context, parsed)


def load(name: str) -> Command:
    from importlib import import_module

    if name not in RAW:
        raise UsageError(f"unknown command: raw {name}: known are {', '.join(sorted(RAW))}")
    command: Command = import_module(RAW[name][0]).COMMAND
    return command


COMMAND = Command(
    "raw",
    f"{{{' | '.join(sorted(RAW))}}} ...",
    "advanced internal image tooling",
    do,
    most=None,
    interspersed=False,
)
