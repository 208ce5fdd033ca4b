"""``list-tags``: the tags of a repository in a registry, or the references in a docker-archive."""

from __future__ import annotations

from boxship.errors import InvalidArgument
from boxship.flags import Parsed, UsageError

from .command import Command, Context
from .images import AUTHFILE, RETRIES, access, end_flags, retrying

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def do(context: Context, o: Parsed) -> int:
    from boxship.tools.output import show_json

    transport, colon, details = o.args[0].partition(":")
    reach = access(context, o)
    found: dict[str, Any]
    if colon and transport == "docker":
        found = retrying(o, lambda: _repository(details, reach))
    elif colon and transport == "docker-archive":
        from boxship.image.transports.docker_archive import check, tags_of
        from boxship.image.transports.layout import split

        check(details)
        found = {"Tags": tags_of(split(details)[0], reach.tmpdir)}
    elif colon:
        raise UsageError(
            f"Unsupported transport '{transport}' for tag listing. Only supported: docker, docker-archive"
        )
    else:
        raise UsageError(f'Invalid image name "{o.args[0]}", expected colon-separated transport:reference')
    show_json(found)
    return 0


def _repository(details: str, reach: Any) -> dict[str, Any]:
    from boxship.image.transports import Name
    from boxship.image.transports.docker import Registry
    from boxship.oci import reference

    if not details.startswith("//"):
        raise InvalidArgument(f"docker: image reference {details} does not start with //")
    parsed = reference.parse(details[2:])
    if parsed.tag or parsed.digest:
        raise InvalidArgument(f"docker:{details}", cause="No tag or digest allowed in reference")
    source = Registry(Name("docker", details), reach)
    try:
        return {"Repository": parsed.name, "Tags": source.tags()}
    finally:
        source.close()


COMMAND = Command(
    "list-tags", "SOURCE-IMAGE",
    "List the tags of docker://REPOSITORY, or the references in docker-archive:PATH",
    do, (AUTHFILE, *RETRIES, *end_flags(layouts=False)), least=1, most=1,
    examples=("list-tags docker://docker.io/fedora", "list-tags docker-archive:saved.tar"),
)  # fmt: skip
