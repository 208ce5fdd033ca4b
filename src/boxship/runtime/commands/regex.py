"""``kill -r`` and ``delete -r``: many containers at once, by a regular expression, as crun has it."""

import re

from boxship.errors import InvalidArgument
from boxship.libcontainer.container import Container


def matching(pattern: str, root: str) -> "list[Container]":
    """The containers whose id the pattern is found in; none is fine. Raises InvalidArgument for a bad pattern."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InvalidArgument(f"--regex {pattern!r} is no regular expression", cause=str(error)) from error
    return [container for container in Container.list(root=root) if compiled.search(container.id)]
