"""``boxship pull``."""

from __future__ import annotations

from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed
from boxship.oci import reference

from ..command import Command, Context
from ..registry import pull

FLAGS = (
    Flag("all-tags", "a", "bool", "Download all tagged images in the repository"),
    Flag("disable-content-trust", "", "bool", "Skip image verification", True),
    Flag("platform", "", "string", "Set platform if server is multi-platform capable"),
    Flag("quiet", "q", "bool", "Suppress verbose output"),
)


def do(context: Context, o: Parsed) -> int:
    parsed = reference.parse(o.args[0])
    if o.all_tags:
        if parsed.tag or parsed.digest:
            raise InvalidArgument("tag can't be used with --all-tags/-a")
        for tag in _tags(parsed):
            pull(context, f"{o.args[0]}:{tag}", platform=o.platform, quiet=o.quiet)
        print(parsed.name)
        return 0
    if not parsed.tag and not parsed.digest and not o.quiet:
        print("Using default tag: latest")
    pull(context, o.args[0], platform=o.platform, quiet=o.quiet)
    print(parsed.with_default_tag())
    return 0


def _tags(parsed: reference.Reference) -> list[str]:
    from boxship.image.registry.client import Repository
    from boxship.image.registry.credentials import Credentials

    repository = Repository(parsed, credentials=Credentials())
    try:
        return repository.tags()
    finally:
        repository.close()


COMMAND = Command("pull", "NAME[:TAG|@DIGEST]", "Download an image from a registry", do, FLAGS, least=1, most=1)
