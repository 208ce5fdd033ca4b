"""``umoci remove``: a name goes; what it meant stays until ``gc``."""

from __future__ import annotations

from boxship.flags import Parsed

from ..command import Command, Context
from . import options as shared


def do(context: Context, options: Parsed) -> int:
    layout, name = shared.image(options)
    layout.untag(name)
    return 0


COMMAND = Command("remove", "--image PATH[:NAME]", "removes a tag from an OCI image", do, shared.IMAGE)
