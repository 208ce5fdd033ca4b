"""``list``: all containers below --root."""

import os

from boxship.errors import InvalidArgument, NotFound
from boxship.libcontainer.container import Container
from boxship.oci import cold_json

from ..main import Call
from .state import entry

COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def _owner(path: str) -> str:
    try:
        uid = os.stat(path).st_uid
    except FileNotFoundError:
        return ""  # deleted meanwhile
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def run(call: Call) -> int:
    if call.root_given and not os.path.isdir(call.root):
        raise NotFound(f"--root {call.root}: no such directory")
    containers = Container.list(root=call.root)
    if call.options.flag("quiet"):
        for container in containers:
            print(container.id)
        return 0
    entries = [{**entry(container), "owner": _owner(container.directory)} for container in containers]
    format = call.options.text("format", "table")
    if format == "json":
        print(cold_json.dumps(entries))
        return 0
    if format != "table":
        raise InvalidArgument(f"--format {format!r}: must be table or json")
    rows = [COLUMNS] + [tuple(str(e[column.lower()]) for column in COLUMNS) for e in entries]
    widths = [max(12, *(len(row[i]) + 3 for row in rows)) for i in range(len(COLUMNS) - 1)]
    for row in rows:
        print("".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)))
    return 0
