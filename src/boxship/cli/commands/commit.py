"""``boxship commit``."""

from __future__ import annotations

from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..registry import repository_and_tag

FLAGS = (
    Flag("author", "a", "string", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")'),
    Flag("change", "c", "list", "Apply Dockerfile instruction to the created image"),
    Flag("message", "m", "string", "Commit message"),
    Flag("pause", "p", "bool", "Pause container during commit", default=True),
)


def do(context: Context, o: Parsed) -> int:
    container, *name = o.args
    repository, tag = repository_and_tag(name[0] if name else "")
    query = {
        "container": container, "repo": repository, "tag": tag, "author": o.author, "comment": o.message,
        "changes": o.change, "pause": "1" if o.pause else "0",
    }  # fmt: skip
    print(context.client.request("POST", "/commit", query, {}).json()["Id"])
    return 0


COMMAND = Command(
    "commit", "CONTAINER [REPOSITORY[:TAG]]", "Create a new image from a container's changes", do, FLAGS,
    least=1, most=2,
)  # fmt: skip
