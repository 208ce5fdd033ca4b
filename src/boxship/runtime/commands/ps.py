"""``ps``: the container's processes, as pids or as the lines of ps(1)."""

from boxship.errors import FailedPrecondition, InvalidArgument
from boxship.libcontainer.container import Container
from boxship.oci import cold_json

from ..main import Call


def run(call: Call) -> int:
    pids = Container.load(call.id(), root=call.root).pids()
    format = call.options.text("format", "table")
    if format == "json":
        print(cold_json.dumps(pids))
        return 0
    if format != "table":
        raise InvalidArgument(f"--format {format!r}: must be table or json")
    import subprocess

    arguments = call.options.operands[1:] or ["-ef"]
    try:
        lines = subprocess.run(["ps", *arguments], capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        raise FailedPrecondition(f"run ps {' '.join(arguments)}", cause=str(error)) from error
    titles = lines[0].split()
    if "PID" not in titles:
        raise InvalidArgument(f"ps {' '.join(arguments)} prints no PID column")
    column = titles.index("PID")
    print(lines[0])
    for line in lines[1:]:
        fields = line.split()
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            print(line)
    return 0
