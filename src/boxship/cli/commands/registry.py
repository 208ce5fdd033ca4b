"""``boxship registry``: this process becomes a registry, or collects one's garbage."""

from __future__ import annotations

from boxship.flags import Parsed

from ..command import Context, Program


def do(context: Context, o: Parsed) -> int:
    from boxship.registry.main import main

    return main(o.args)


COMMAND = Program("registry", "COMMAND", "Serve a registry of images, or collect its garbage", do)
