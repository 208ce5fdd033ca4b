"""``boxship tag``."""

from __future__ import annotations

from boxship.api.engine.client import quote_path
from boxship.flags import Parsed

from ..command import Command, Context
from ..registry import repository_and_tag


def do(context: Context, o: Parsed) -> int:
    source, target = o.args
    repository, tag = repository_and_tag(target)
    context.client.request("POST", f"/images/{quote_path(source)}/tag", {"repo": repository, "tag": tag}).read()
    return 0


COMMAND = Command(
    "tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", do,
    least=2, most=2,
)  # fmt: skip
