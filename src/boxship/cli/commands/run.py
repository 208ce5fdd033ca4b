"""``boxship run``: create, attach, wait, start, and carry bytes until it ends; exits as the container did."""

from __future__ import annotations

import os
import sys

from boxship.api.engine.client import EngineError, Hijacked, quote_path
from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed, UsageError

from ..command import Command, Context
from ..registry import pull
from ..runflags import FLAGS, request
from ..streams import Session
from ..terminal import Raw, is_terminal, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RUN_FLAGS = (
    *FLAGS,
    Flag("detach", "d", "bool", "Run container in background and print container ID"),
    Flag("detach-keys", "", "string", "Override the key sequence for detaching a container"),
    Flag("sig-proxy", "", "bool", "Proxy received signals to the process", True),
)


def create(context: Context, o: Parsed) -> tuple[str, dict[str, Any]]:
    """Create a container; gives its id and the request. Writes the cidfile, prints warnings."""
    body = request(o)
    if o.cidfile and os.path.exists(o.cidfile):
        raise UsageError(
            f"container ID file found, make sure the other container isn't running or delete {o.cidfile}", named=True
        )
    if body["Tty"] and not o.values.get("detach"):
        body["HostConfig"]["ConsoleSize"] = list(size())
    query = {"name": o.name, "platform": o.platform}
    if o.pull == "always":
        pull(context, body["Image"], platform=o.platform, quiet=o.quiet, out=sys.stderr)
    try:
        answer = context.client.request("POST", "/containers/create", query, body).json()
    except EngineError as error:
        if error.status != 404 or "No such image" not in error.message or o.pull == "never":
            raise
        if not o.quiet:
            print(f"Unable to find image '{_tagged(body['Image'])}' locally", file=sys.stderr)
        pull(context, body["Image"], platform=o.platform, quiet=o.quiet, out=sys.stderr)
        answer = context.client.request("POST", "/containers/create", query, body).json()
    for warning in answer.get("Warnings") or []:
        print(f"WARNING: {warning}", file=sys.stderr)
    if o.cidfile:
        with open(o.cidfile, "w") as f:
            f.write(answer["Id"])
    return answer["Id"], body


def _tagged(image: str) -> str:
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def run(context: Context, o: Parsed) -> int:
    try:
        return _run(context, o)
    except InvalidArgument as error:
        # What the flags say cannot be: docker's code for "not even tried" is 125, but for a missing terminal.
        if isinstance(error, UsageError) and (error.exit_code != 125 or not error.named):
            raise
        print(f"{context.program}: {error}", file=sys.stderr)
        print(f"\nRun '{context.program} run --help' for more information", file=sys.stderr)
        return 125
    except EngineError as error:
        text = error.message.lower()
        code = 125
        if "executable file not found" in text or "no such file or directory" in text:
            code = 127
        elif "permission denied" in text or "is a directory" in text:
            code = 126
        if "permission denied while trying to connect" in text:
            code = 125
        print(f"{context.program}: Error response from daemon: {error.message}", file=sys.stderr)
        print(f"\nRun '{context.program} run --help' for more information", file=sys.stderr)
        return code


def _run(context: Context, o: Parsed) -> int:
    if o.rm and o.restart not in ("", "no"):
        raise UsageError("conflicting options: cannot specify both --restart and --rm", named=True)
    if o.detach and o.attach:
        raise UsageError("conflicting options: cannot specify both --attach and --detach")
    if o.tty and o.interactive and not o.detach and not is_terminal(0):
        raise UsageError("the input device is not a TTY", 1, named=False)
    id, body = create(context, o)
    client = context.client
    path = f"/containers/{id}"
    if o.detach:
        client.request("POST", f"{path}/start")
        print(id)
        return 0
    hijacked: Hijacked | None = None
    if body["AttachStdin"] or body["AttachStdout"] or body["AttachStderr"]:
        query = {
            "stream": True,
            "stdin": body["AttachStdin"],
            "stdout": body["AttachStdout"],
            "stderr": body["AttachStderr"],
            "detachKeys": o.detach_keys,
        }
        hijacked = client.hijack(f"{path}/attach", query)
    # Its headers are here before the start: a container that ends at once is not missed.
    waiting = client.request("POST", f"{path}/wait", {"condition": "removed" if o.rm else "next-exit"})
    client.request("POST", f"{path}/start").read()
    detached = False
    if hijacked is not None:
        detached = carry(context, hijacked, path, body["AttachStdin"], o.tty, o.detach_keys, o.sig_proxy)
    if detached:
        return 0
    return exit_status(waiting.json())


def exit_status(answer: dict[str, Any]) -> int:
    if answer.get("Error"):
        raise EngineError(500, answer["Error"].get("Message", ""))
    return int(answer["StatusCode"])


def carry(
    context: Context, hijacked: Hijacked, path: str, stdin: bool, tty: bool, detach_keys: str, sig_proxy: bool
) -> bool:
    """Serve an attached container in the caller's terminal; True when the caller detached."""
    client = context.client

    def resize() -> None:
        rows, columns = size()
        if rows and columns:
            try:
                client.request("POST", f"{path}/resize", {"h": rows, "w": columns}).read()
            except EngineError:
                return  # it ended meanwhile

    def forward(number: int) -> None:
        try:
            client.request("POST", f"{path}/kill", {"signal": number}).read()
        except EngineError:
            return  # it ended meanwhile

    session = Session(
        hijacked,
        stdin=stdin,
        tty=tty,
        detach_keys=detach_keys,
        on_signal=forward if sig_proxy and not tty else None,
        on_resize=resize if tty else None,
    )
    with Raw(0, wanted=tty and stdin):
        if tty:
            resize()
        session.run()
    hijacked.close()
    if session.detached:
        print("\nread escape sequence", file=sys.stderr)
    return session.detached


__all__ = ["COMMAND", "carry", "create", "exit_status", "quote_path", "run"]

COMMAND = Command(
    "run", "IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image", run, RUN_FLAGS,
    least=1, most=None, interspersed=False,
)  # fmt: skip
