"""``umoci list``: the names in a layout, one a line."""

from __future__ import annotations

from boxship.flags import Parsed

from ..command import Command, Context
from . import options as shared


def do(context: Context, options: Parsed) -> int:
    from boxship.image.layout import Layout

    for name in sorted({entry.name for entry in Layout(shared.layout_path(options)).entries() if entry.name}):
        print(name)
    return 0


COMMAND = Command("list", "--layout PATH", "lists the set of tags in an OCI layout", do, shared.LAYOUT)
