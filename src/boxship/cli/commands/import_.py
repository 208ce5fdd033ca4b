"""``boxship import``."""

from __future__ import annotations

import sys

from boxship.api.engine.client import EngineError
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..files import cannot
from ..registry import repository_and_tag

FLAGS = (
    Flag("change", "c", "list", "Apply Dockerfile instruction to the created image"),
    Flag("message", "m", "string", "Set commit message for imported image"),
    Flag("platform", "", "string", "Set platform if server is multi-platform capable"),
)


def do(context: Context, o: Parsed) -> int:
    source, *name = o.args
    repository, tag = repository_and_tag(name[0] if name else "")
    query = {"fromSrc": "-", "repo": repository, "tag": tag, "message": o.message, "changes": o.change}
    if source.startswith(("http://", "https://")):
        query["fromSrc"] = source
        answer = context.client.request("POST", "/images/create", query)
    else:
        try:
            stream = sys.stdin.buffer if source == "-" else open(source, "rb")  # noqa: SIM115 - closed with the process
        except OSError as error:
            raise cannot("open", source, error) from error
        answer = context.client.request("POST", "/images/create", query, stream=stream)
    for line in answer.lines():
        if "error" in line:
            raise EngineError(500, line["error"])
        print(line.get("status", ""))
    return 0


COMMAND = Command(
    "import", "file|URL|- [REPOSITORY[:TAG]]", "Import the contents from a tarball to create a filesystem image", do,
    FLAGS, least=1, most=2,
)  # fmt: skip
