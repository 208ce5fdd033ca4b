"""One run, seen through every layer: spans that all processes append to one file.

``boxship trace`` sends the W3C ``traceparent`` header with its requests.
The engine opens a trace for it, ``<exec-root>/traces/<trace id>.jsonl``, and every seam below carries two
metadata keys on: ``traceparent`` (as OpenTelemetry's gRPC and ttrpc interceptors do) and
``boxship-trace-file`` (the file, so that a shim needs no connection to report).
Each span is one JSON line, written with one O_APPEND write, so lines of several processes do not mix.
Times are CLOCK_MONOTONIC nanoseconds, which all processes of a host share.
Without a current trace a span costs one context variable look-up.
"""

import os
from _contextvars import ContextVar
from time import monotonic_ns

TRACEPARENT = "traceparent"
TRACE_FILE = "boxship-trace-file"


class Trace:
    """A trace in progress: its 32-digit hex ``id`` and the ``path`` that spans are appended to."""

    __slots__ = ("id", "path")

    def __init__(self, id: str, path: str) -> None:
        self.id = id
        self.path = path

    def headers(self) -> "dict[str, str]":
        """The metadata that carries this trace over a seam."""
        return {TRACEPARENT: "00-" + self.id + "-" + self.id[:16] + "-01", TRACE_FILE: self.path}


current: "ContextVar[Trace | None]" = ContextVar("boxship_trace", default=None)


def trace_id(traceparent: str) -> str:
    """The trace id of a ``traceparent`` header, or "" when it is malformed (then there is no trace)."""
    parts = traceparent.split("-")
    if len(parts) < 4 or len(parts[1]) != 32 or not all(c in "0123456789abcdef" for c in parts[1]):
        return ""
    return parts[1]


def from_metadata(metadata: "dict[str, str]") -> "Trace | None":
    """The trace that a seam's metadata carries, or None."""
    id = trace_id(metadata.get(TRACEPARENT, ""))
    path = metadata.get(TRACE_FILE, "")
    return Trace(id, path) if id and path.startswith("/") else None


def record(layer: str, call: str, start_ns: int, end_ns: int, **fields: object) -> None:
    """Append one finished span to the current trace; without one, do nothing.

    A trace that cannot be written is given up on rather than failing the run that it watches.
    """
    trace = current.get()
    if trace is None:
        return
    import json  # only when someone watches: the cold path must not pay for it

    line = json.dumps({"layer": layer, "call": call, "start": start_ns, "end": end_ns, "pid": os.getpid(), **fields})
    try:
        fd = os.open(trace.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        current.set(None)
        return
    try:
        os.write(fd, line.encode() + b"\n")
    finally:
        os.close(fd)


class span:
    """``with span("shim", "Create", id=...):`` records the block as one span, also when it raises."""

    __slots__ = ("call", "fields", "layer", "start")

    def __init__(self, layer: str, call: str, **fields: object) -> None:
        self.layer = layer
        self.call = call
        self.fields = fields
        self.start = 0

    def __enter__(self) -> "span":
        if current.get() is not None:
            self.start = monotonic_ns()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self.start:
            if error is not None:
                self.fields["error"] = str(error)
            record(self.layer, self.call, self.start, monotonic_ns(), **self.fields)
