"""``umoci repack``: what was changed in a bundle becomes a layer on top of its image."""

from __future__ import annotations

from boxship.flags import Flag, Parsed

from ..command import Command, Context
from . import options as shared

FLAGS = (
    Flag("mask-path", "", "list", "path prefixes in which changes are left out of the new layer", value="value"),
    Flag("no-mask-volumes", "", "bool", "do not leave out the image's volumes"),
    Flag("refresh-bundle", "", "bool", "update the bundle metadata to reflect the packed root file system"),
)


def do(context: Context, options: Parsed) -> int:
    from boxship.image import bundle
    from boxship.image.mutate import Mutation

    layout, name = shared.image(options)
    path = shared.argument(options, "the bundle's path")
    compression = shared.compression(options)
    author = Mutation(layout, bundle.read_meta(path).source).config.get("author", "")
    made = bundle.repack(
        layout,
        name,
        path,
        history=shared.history(options, "umoci repack", author),
        compression=compression,
        masked=options.mask_path,
        mask_volumes=not options.no_mask_volumes,
        refresh=options.refresh_bundle,
        say=shared.say(context),
    )
    shared.say(context)(f"made {name}: {made.manifest.digest}")
    return 0


COMMAND = Command(
    "repack",
    "--image PATH[:NEW-NAME] BUNDLE",
    "repacks an OCI runtime bundle into a reference",
    do,
    (*FLAGS, *shared.COMPRESS, *shared.HISTORY, *shared.IMAGE),
    least=1,
    most=1,
)
