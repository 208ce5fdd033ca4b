"""``boxship trace -- COMMAND``: run a command and show its way through every layer."""

from __future__ import annotations

import json
import os
import re
import sys
import time

from boxship.api.engine.client import Client, EngineError
from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed
from boxship.tracing import TRACEPARENT

from ..command import Command, Context
from ..timeline import as_html, as_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAGS = (
    Flag("html", "", "string", "Write the timeline to this file as one self-contained page", value="FILE"),
    Flag("json", "", "bool", "Print the spans as JSON lines instead of the timeline"),
)
LONG_ID = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")  # ids are shown as `ps` shows them
SETTLED = 0.05  # seconds without a new span after which the run counts as written down


def do(context: Context, o: Parsed) -> int:
    from ..main import run

    id = os.urandom(16).hex()
    own: list[dict[str, Any]] = []

    def observe(call: str, start: int, end: int) -> None:
        own.append({"layer": "boxship", "call": call, "start": start, "end": end, "pid": os.getpid()})

    Client.observer = staticmethod(observe)
    began = time.monotonic_ns()
    try:
        context.client.request("GET", "/_ping").read()  # an engine that must be started first is not part of the run
        own.clear()
        began = time.monotonic_ns()
        words = ["-H", context.client.address.text, *o.args]
        code = run(words, {TRACEPARENT: f"00-{id}-{id[:16]}-01"})
    finally:
        Client.observer = None
    sys.stdout.flush()
    own.insert(
        0,
        {
            "layer": "boxship",
            "call": " ".join(o.args),
            "start": began,
            "end": time.monotonic_ns(),
            "pid": os.getpid(),
            "exit_code": code,
        },
    )
    spans = [{**span, "call": LONG_ID.sub(r"\1", span["call"])} for span in own + _spans(context, id)]
    title = f"boxship {' '.join(o.args)}"
    if o.json:
        for span in spans:
            print(json.dumps(span))
    elif not o.html:
        print(f"\n{as_text(spans, title, _width())}", end="")
    if o.html:
        try:
            with open(o.html, "w", encoding="utf-8") as f:
                f.write(as_html(spans, title))
        except OSError as error:
            raise InvalidArgument(f"write {o.html}", cause=error.strerror or str(error)) from error
        print(f"boxship: wrote the timeline of {len(spans)} calls and steps to {o.html}", file=sys.stderr)
    return code


def _width() -> int:
    try:
        return max(os.get_terminal_size(1).columns, 100)
    except OSError:
        return 130


def _spans(context: Context, id: str) -> list[dict[str, Any]]:
    """What the layers below wrote, once nothing is added any more."""
    before = -1
    text = b""
    while len(text) != before:
        before = len(text)
        time.sleep(SETTLED)
        try:
            text = context.client.request("GET", f"/boxship/traces/{id}").read()
        except EngineError as error:
            if error.status == 404:
                return []  # the command asked the engine for nothing, or the engine is not ours
            raise
    return [json.loads(line) for line in text.splitlines()]


COMMAND = Command(
    "trace", "-- COMMAND [ARG...]", "Show one command's run through every layer, as a timeline", do, FLAGS,
    least=1, most=None, interspersed=False,
)  # fmt: skip
