"""``boxship top``."""

from __future__ import annotations

from boxship.flags import Parsed

from ..command import Command, Context
from ..output import print_table


def do(context: Context, o: Parsed) -> int:
    query = {"ps_args": " ".join(o.args[1:])}
    answer = context.client.request("GET", f"/containers/{o.args[0]}/top", query).json()
    print_table(answer["Titles"], answer["Processes"] or [], least=20)
    return 0


COMMAND = Command(
    "top", "CONTAINER [ps OPTIONS]", "Display the running processes of a container", do,
    least=1, most=None, interspersed=False,
)  # fmt: skip
