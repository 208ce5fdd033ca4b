"""``boxship attach``."""

from __future__ import annotations

from boxship.errors import FailedPrecondition
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from .run import carry, exit_status

FLAGS = (
    Flag("detach-keys", "", "string", "Override the key sequence for detaching a container"),
    Flag("no-stdin", "", "bool", "Do not attach STDIN"),
    Flag("sig-proxy", "", "bool", "Proxy all received signals to the process", True),
)


def do(context: Context, o: Parsed) -> int:
    client = context.client
    document = client.request("GET", f"/containers/{o.args[0]}/json").json()
    if not document["State"]["Running"]:
        raise FailedPrecondition("cannot attach to a stopped container, start it first")
    if document["State"]["Paused"]:
        raise FailedPrecondition("cannot attach to a paused container, unpause it first")
    path, config = f"/containers/{document['Id']}", document["Config"]
    stdin = config["OpenStdin"] and not o.no_stdin
    query = {"stream": True, "stdin": stdin, "stdout": True, "stderr": True, "detachKeys": o.detach_keys}
    waiting = client.request("POST", f"{path}/wait")
    hijacked = client.hijack(f"{path}/attach", query)
    if carry(context, hijacked, path, stdin, config["Tty"], o.detach_keys, o.sig_proxy):
        return 0
    return exit_status(waiting.json())


COMMAND = Command(
    "attach", "CONTAINER", "Attach local standard input, output, and error streams to a running container", do, FLAGS,
    least=1, most=1,
)  # fmt: skip
