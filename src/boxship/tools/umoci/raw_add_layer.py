"""``umoci raw add-layer``: a layer's tar becomes the top of an image as it is."""

from __future__ import annotations

from boxship.errors import InvalidArgument
from boxship.flags import Parsed

from ..command import Command, Context
from . import options as shared


def do(context: Context, options: Parsed) -> int:
    from boxship.image.compression import CHUNK
    from boxship.image.mutate import Mutation
    from boxship.image.named import resolve

    path = shared.argument(options, "the layer's path")
    layout, name = shared.image(options)
    new = shared.new_name(options, name)
    compression = shared.compression(options)
    mutation = Mutation(layout, resolve(layout, name))
    history = shared.history(options, "umoci raw add-layer", mutation.config.get("author", ""))
    try:
        with open(path, "rb", buffering=0) as file, mutation.layer(history, compression) as layer:
            while data := file.read(CHUNK):
                layer.write(data)
    except OSError as error:
        raise InvalidArgument(f"cannot read the layer {path}", cause=error.strerror or str(error)) from error
    layout.tag(new, mutation.commit().root)
    return 0


COMMAND = Command(
    "add-layer",
    "--image PATH[:NAME] LAYER.tar",
    "add a layer archive verbatim to an image",
    do,
    (*shared.COMPRESS, *shared.HISTORY, *shared.TAG, *shared.IMAGE),
    least=1,
    most=1,
)
