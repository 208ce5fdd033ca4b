"""``umoci raw runtime-config``: an image's config.json without its files."""

from __future__ import annotations

from boxship.flags import Flag, Parsed

from ..command import Command, Context
from . import options as shared

FLAGS = (Flag("rootfs", "", "string", "a root file system to look users up in", value="value"),)


def do(context: Context, options: Parsed) -> int:
    from boxship.image import named, runtime_config
    from boxship.image.bundle import write_json

    path = shared.argument(options, "the path of config.json")
    layout, name = shared.image(options)
    image = named.read_config(layout, named.read_manifest(layout, named.resolve(layout, name).manifest))
    spec = runtime_config.convert(image, options.rootfs or None, shared.idmap(options))
    write_json(path, spec, indent="\t")
    return 0


COMMAND = Command(
    "runtime-config",
    "--image PATH[:NAME] [--rootfs ROOTFS] CONFIG.json",
    "generates an OCI runtime configuration for an image",
    do,
    (*FLAGS, *shared.REMAP, *shared.IMAGE),
    least=1,
    most=1,
)
