"""``umoci gc``: remove what no image of a layout needs."""

from __future__ import annotations

from boxship.flags import Parsed

from ..command import Command, Context
from . import options as shared


def do(context: Context, options: Parsed) -> int:
    from boxship.image.collect import collect
    from boxship.image.layout import Layout

    say = shared.say(context)
    for name in collect(Layout(shared.layout_path(options))):
        say(f"removed {name}")
    return 0


COMMAND = Command("gc", "--layout PATH", "garbage-collects an OCI image's blobs", do, shared.LAYOUT)
