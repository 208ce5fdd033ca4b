"""``boxship push``."""

from __future__ import annotations

import sys

from boxship.api.engine.client import quote_path
from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed
from boxship.oci import reference

from ..command import Command, Context
from ..registry import authorisation, show

FLAGS = (
    Flag("all-tags", "a", "bool", "Push all tags of an image to the repository"),
    Flag("disable-content-trust", "", "bool", "Skip image signing", True),
    Flag("quiet", "q", "bool", "Suppress verbose output"),
)


def do(context: Context, o: Parsed) -> int:
    parsed = reference.parse(o.args[0])
    if parsed.digest:
        raise InvalidArgument("cannot push a digest reference")
    if o.all_tags and parsed.tag:
        raise InvalidArgument("tag can't be used with --all-tags/-a")
    tags = [parsed.tag]
    if o.all_tags:
        images = context.client.request("GET", "/images/json").json()
        names = [reference.parse(tag) for image in images for tag in image.get("RepoTags") or []]
        tags = sorted(one.tag for one in names if one.name == parsed.name)
    elif not parsed.tag:
        tags = [reference.DEFAULT_TAG]
        if not o.quiet:
            print("Using default tag: latest")
    for tag in tags:
        path = f"/images/{quote_path(parsed.familiar_name)}/push"
        # docker sends the header always; an engine refuses a push without.
        headers = authorisation(o.args[0]) or {"X-Registry-Auth": "e30="}
        answer = context.client.request("POST", path, {"tag": tag}, headers=headers)
        show(answer.lines(), quiet=o.quiet, out=sys.stdout)
        if o.quiet:
            print(f"{parsed.name}:{tag}")
    return 0


COMMAND = Command("push", "NAME[:TAG]", "Upload an image to a registry", do, FLAGS, least=1, most=1)
