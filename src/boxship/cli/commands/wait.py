"""``boxship wait``."""

from __future__ import annotations

from boxship.flags import Parsed

from ..command import Command, Context
from ..each import each


def do(context: Context, o: Parsed) -> int:
    def one(name: str) -> str:
        return str(context.client.request("POST", f"/containers/{name}/wait").json()["StatusCode"])

    return each(o.args, one)


COMMAND = Command(
    "wait", "CONTAINER [CONTAINER...]", "Block until one or more containers stop, then print their exit codes", do,
    least=1, most=None,
)  # fmt: skip
