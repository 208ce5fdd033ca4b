"""``delete``: remove an image from where it is (a registry's manifest, a layout's name, an engine's image)."""

from __future__ import annotations

from boxship.flags import Parsed

from .command import Command, Context
from .images import AUTHFILE, RETRIES, access, end_flags, name, retrying


def do(context: Context, o: Parsed) -> int:
    from boxship.image.transports import delete

    wanted, reach = name(o.args[0]), access(context, o)
    retrying(o, lambda: delete(wanted, reach))
    return 0


COMMAND = Command(
    "delete", "IMAGE-NAME", "Delete an image",
    do, (AUTHFILE, *RETRIES, *end_flags()), least=1, most=1,
    examples=("delete docker://registry.example.com/example/pause:latest",),
)  # fmt: skip
