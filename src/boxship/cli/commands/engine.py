"""``boxship engine``: this process becomes the engine."""

from __future__ import annotations

from boxship.flags import Parsed

from ..command import Context, Program


def do(context: Context, o: Parsed) -> int:
    from boxship.daemon import main

    return main(o.args)


COMMAND = Program("engine", "[OPTIONS]", "Run the engine: the Docker Engine API in the foreground", do)
