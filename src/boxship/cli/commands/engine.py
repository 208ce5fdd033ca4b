"""``boxship engine``: this process becomes the engine."""

from __future__ import annotations

from boxship.flags import Flag, Parsed

from ..command import Command, Context


def do(context: Context, o: Parsed) -> int:
    from boxship.daemon import main

    return main(o.args)


class _Everything(Command):
    """The engine has its own parser, with dockerd's flags."""

    def parse(self, words: list[str], program: str) -> Parsed:
        flags: tuple[Flag, ...] = ()
        parsed = Parsed(flags)
        parsed.args = words
        return parsed


COMMAND = _Everything(
    "engine", "[OPTIONS]", "Run the engine: the Docker Engine API in the foreground", do, most=None, local=True
)
