"""``umoci insert``: files become a layer on top of an image, without unpacking it."""

from __future__ import annotations

from boxship.flags import Flag, Parsed, UsageError

from ..command import Command, Context
from . import options as shared

FLAGS = (
    Flag("whiteout", "", "bool", "insert a 'removal entry' for the given path"),
    Flag("opaque", "", "bool", "mask any previous entries in the target directory"),
)


def do(context: Context, options: Parsed) -> int:
    from boxship.image.bundle import insert
    from boxship.image.named import resolve

    wanted = 1 if options.whiteout else 2
    if len(options.args) != wanted:
        raise UsageError(f"invalid number of positional arguments: expected {wanted}, got {len(options.args)}")
    layout, name = shared.image(options)
    content = None if options.whiteout else shared.argument(options, "SOURCE")
    insert(
        layout,
        resolve(layout, name),
        shared.new_name(options, name),
        shared.argument(options, "TARGET", wanted - 1),
        content,
        opaque=options.opaque,
        history=shared.history(options, "umoci insert"),
        compression=shared.compression(options),
        idmap=shared.idmap(options),
    )
    return 0


COMMAND = Command(
    "insert",
    "--image PATH[:NAME] SOURCE TARGET | --whiteout TARGET",
    "insert content into an OCI image",
    do,
    (*FLAGS, *shared.COMPRESS, *shared.REMAP, *shared.HISTORY, *shared.TAG, *shared.IMAGE),
    least=1,
    most=2,
    examples=(
        "insert --image images:base mybinary /usr/bin/mybinary",
        "insert --image images:base --opaque myoptdir /opt",
        "insert --image images:base --whiteout /some/old/dir",
    ),
)
