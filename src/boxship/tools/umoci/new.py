"""``umoci new``: an image without layers."""

from __future__ import annotations

from boxship.flags import Parsed

from ..command import Command, Context
from . import options as shared


def do(context: Context, options: Parsed) -> int:
    from boxship.image.mutate import new_image

    layout, name = shared.image(options)
    descriptor = new_image(layout, name)
    shared.say(context)(f"made {name}: {descriptor.digest}")
    return 0


COMMAND = Command("new", "--image PATH[:NAME]", "creates a blank tagged OCI image", do, shared.IMAGE)
