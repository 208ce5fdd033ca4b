"""``boxship port``."""

from __future__ import annotations

from boxship.errors import NotFound
from boxship.flags import Parsed

from ..command import Command, Context


def do(context: Context, o: Parsed) -> int:
    document = context.client.request("GET", f"/containers/{o.args[0]}/json").json()
    ports = document["NetworkSettings"]["Ports"] or {}
    if len(o.args) == 1:
        for inside, bindings in sorted(ports.items()):
            for binding in bindings or []:
                print(f"{inside} -> {binding['HostIp']}:{binding['HostPort']}")
        return 0
    wanted = o.args[1] if "/" in o.args[1] else f"{o.args[1]}/tcp"
    if not ports.get(wanted):
        raise NotFound(f"no public port '{wanted}' published for {o.args[0]}")
    for binding in ports[wanted]:
        print(f"{binding['HostIp']}:{binding['HostPort']}")
    return 0


COMMAND = Command(
    "port", "CONTAINER [PRIVATE_PORT[/PROTO]]", "List port mappings or a specific mapping for the container", do,
    least=1, most=2,
)  # fmt: skip
