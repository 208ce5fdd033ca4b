"""``boxship start``."""

from __future__ import annotations

from sys import stderr

from boxship.flags import Flag, Parsed, UsageError

from ..command import Command, Context
from ..each import each, post
from .run import carry, exit_status

FLAGS = (
    Flag("attach", "a", "bool", "Attach STDOUT/STDERR and forward signals"),
    Flag("detach-keys", "", "string", "Override the key sequence for detaching a container"),
    Flag("interactive", "i", "bool", "Attach container's STDIN"),
)


def do(context: Context, o: Parsed) -> int:
    if not (o.attach or o.interactive):
        started: list[str] = []

        def one(name: str) -> str:
            post(context, name, "start")
            started.append(name)
            return name

        failed = each(o.args, one)
        if failed:
            print(
                f"Error: failed to start containers: {', '.join(n for n in o.args if n not in started)}", file=stderr
            )
        return failed
    if len(o.args) > 1:
        raise UsageError("you cannot start and attach multiple containers at once", 1)
    client = context.client
    config = client.request("GET", f"/containers/{o.args[0]}/json").json()
    path = f"/containers/{config['Id']}"
    stdin = o.interactive and config["Config"]["OpenStdin"]
    query = {"stream": True, "stdin": stdin, "stdout": True, "stderr": True, "detachKeys": o.detach_keys}
    hijacked = client.hijack(f"{path}/attach", query)
    waiting = client.request("POST", f"{path}/wait", {"condition": "next-exit"})
    client.request("POST", f"{path}/start").read()
    if carry(context, hijacked, path, stdin, config["Config"]["Tty"], o.detach_keys, True):
        return 0
    return exit_status(waiting.json())


COMMAND = Command(
    "start", "CONTAINER [CONTAINER...]", "Start one or more stopped containers", do, FLAGS, least=1, most=None
)
