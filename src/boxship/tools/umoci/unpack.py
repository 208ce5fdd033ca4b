"""``umoci unpack``: a bundle for a runtime, which ``repack`` can make an image of again."""

from __future__ import annotations

from boxship.flags import Parsed

from ..command import Command, Context
from . import options as shared


def do(context: Context, options: Parsed) -> int:
    from boxship.image import bundle

    layout, name = shared.image(options)
    path = shared.argument(options, "the bundle's path")
    bundle.unpack(layout, name, path, shared.manner(options), say=shared.say(context))
    return 0


COMMAND = Command(
    "unpack",
    "--image PATH[:NAME] BUNDLE",
    "unpacks a reference into an OCI runtime bundle",
    do,
    (*shared.KEEP_DIRLINKS, *shared.REMAP, *shared.IMAGE),
    least=1,
    most=1,
)
