"""``umoci init``: make an empty layout."""

from __future__ import annotations

from boxship.errors import AlreadyExists
from boxship.flags import Parsed

from ..command import Command, Context
from . import options as shared


def do(context: Context, options: Parsed) -> int:
    import os

    from boxship.image.layout import Layout

    path = shared.layout_path(options)
    if os.path.lexists(path):
        raise AlreadyExists(f"cannot make a layout in {path}", cause="it exists", remedy="name a new directory")
    Layout.create(path)
    return 0


COMMAND = Command("init", "--layout PATH", "create a new OCI layout", do, shared.LAYOUT)
