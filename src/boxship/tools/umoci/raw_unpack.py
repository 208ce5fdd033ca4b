"""``umoci raw unpack``: an image's files without a bundle around them."""

from __future__ import annotations

from boxship.flags import Parsed

from ..command import Command, Context
from . import options as shared


def do(context: Context, options: Parsed) -> int:
    from boxship.image import named
    from boxship.image.bundle import unpack_rootfs

    path = shared.argument(options, "the path of the root file system")
    layout, name = shared.image(options)
    manifest = named.read_manifest(layout, named.resolve(layout, name).manifest)
    image = named.read_config(layout, manifest)
    unpack_rootfs(layout, manifest, image, path, shared.manner(options), say=shared.say(context))
    return 0


COMMAND = Command(
    "unpack",
    "--image PATH[:NAME] ROOTFS",
    "unpacks a reference into a root file system",
    do,
    (*shared.KEEP_DIRLINKS, *shared.REMAP, *shared.IMAGE),
    least=1,
    most=1,
)
