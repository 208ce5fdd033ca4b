"""``boxship exec``."""

from __future__ import annotations

import sys

from boxship.api.engine.client import EngineError
from boxship.flags import Flag, Parsed, UsageError

from ..command import Command, Context
from ..runflags import environment
from ..streams import Session
from ..terminal import Raw, is_terminal, size

FLAGS = (
    Flag("detach", "d", "bool", "Detached mode: run command in the background"),
    Flag("detach-keys", "", "string", "Override the key sequence for detaching a container"),
    Flag("env", "e", "list", "Set environment variables"),
    Flag("env-file", "", "list", "Read in a file of environment variables"),
    Flag("interactive", "i", "bool", "Keep STDIN open even if not attached"),
    Flag("privileged", "", "bool", "Give extended privileges to the command"),
    Flag("tty", "t", "bool", "Allocate a pseudo-TTY"),
    Flag("user", "u", "string", "Username or UID (format: <name|uid>[:<group|gid>])"),
    Flag("workdir", "w", "string", "Working directory inside the container"),
)


def do(context: Context, o: Parsed) -> int:
    if o.tty and o.interactive and not o.detach and not is_terminal(0):
        raise UsageError("the input device is not a TTY", 1)
    container, *command = o.args
    rows, columns = size() if o.tty else (0, 0)
    body = {
        "User": o.user,
        "Privileged": o.privileged,
        "Tty": o.tty,
        "ConsoleSize": [rows, columns] if o.tty else None,
        "AttachStdin": o.interactive and not o.detach,
        "AttachStdout": not o.detach,
        "AttachStderr": not o.detach,
        "DetachKeys": o.detach_keys,
        "Env": environment(o.env, o.env_file),
        "WorkingDir": o.workdir,
        "Cmd": command,
    }
    client = context.client
    id = client.request("POST", f"/containers/{container}/exec", None, body).json()["Id"]
    start = {"Detach": o.detach, "Tty": o.tty}
    if o.detach:
        client.request("POST", f"/exec/{id}/start", None, start).read()
        return 0
    hijacked = client.hijack(f"/exec/{id}/start", None, start)

    def resize() -> None:
        height, width = size()
        try:
            client.request("POST", f"/exec/{id}/resize", {"h": height, "w": width}).read()
        except EngineError:
            return  # it ended meanwhile

    session = Session(
        hijacked, stdin=o.interactive, tty=o.tty, detach_keys=o.detach_keys, on_resize=resize if o.tty else None
    )
    with Raw(0, wanted=o.tty and o.interactive):
        session.run()
    hijacked.close()
    if session.detached:
        print("\nread escape sequence", file=sys.stderr)
        return 0
    return int(client.request("GET", f"/exec/{id}/json").json()["ExitCode"] or 0)


COMMAND = Command(
    "exec", "CONTAINER COMMAND [ARG...]", "Execute a command in a running container", do, FLAGS,
    least=2, most=None, interspersed=False,
)  # fmt: skip
