"""``umoci tag``: another name for an image."""

from __future__ import annotations

from boxship.flags import Parsed

from ..command import Command, Context
from . import options as shared


def do(context: Context, options: Parsed) -> int:
    from boxship.image.named import resolve

    layout, name = shared.image(options)
    new = shared.valid_name(shared.argument(options, "the new name"), "the new name")
    layout.tag(new, resolve(layout, name).root)
    return 0


COMMAND = Command(
    "tag", "--image PATH[:NAME] NEW-NAME", "creates a new tag in an OCI image", do, shared.IMAGE, least=1, most=1
)
