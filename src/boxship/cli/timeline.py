"""One run through all layers, drawn: as text for a terminal, as one self-contained HTML page.

A span is a dict with ``layer``, ``call``, ``start`` and ``end`` (CLOCK_MONOTONIC nanoseconds), ``pid`` and fields of
its own.  Layers are nested in the order of LAYERS; a span's depth is its layer's.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Span = dict[str, Any]

# layer -> what it is, for the page's legend; from the outermost in
LAYERS = {
    "boxship": "the command line, speaking the Docker Engine API",
    "engine": "HTTP routes and services of the Docker Engine API",
    "containerd": "content, snapshots, containers and tasks (containerd's gRPC services)",
    "shim": "one process per container, called over ttrpc",
    "libcontainer": "config.json becomes a plan of system calls",
    "executor": "the plan carried out in the new namespaces, step by step",
}
COLOURS = {
    "boxship": "#4c78a8", "engine": "#f58518", "containerd": "#54a24b", "shim": "#b279a2",
    "libcontainer": "#e45756", "executor": "#9d755d",
}  # fmt: skip
BAR = 30


def ordered(spans: Sequence[Span]) -> list[Span]:
    """By start; of spans that start together the outer layer first."""
    depth = {layer: number for number, layer in enumerate(LAYERS)}
    return sorted(spans, key=lambda s: (s["start"], depth.get(s["layer"], len(depth)), -s["end"]))


def _extent(spans: Sequence[Span]) -> tuple[int, int]:
    return min(s["start"] for s in spans), max(s["end"] for s in spans)


def _error(span: Span) -> str:
    return f"  ✗ {span['error']}" if span.get("error") else ""


def as_text(spans: Sequence[Span], title: str, width: int = 118) -> str:
    """A table: when each call began and how long it took, indented by layer, with a bar for its place in the run."""
    if not spans:
        return f"{title}: nothing was recorded\n"
    first, last = _extent(spans)
    total = max(last - first, 1)
    depth = {layer: number for number, layer in enumerate(LAYERS)}
    seen = [layer for layer in LAYERS if any(s["layer"] == layer for s in spans)]
    lines = [f"{title}: {total / 1e6:.1f} ms through {len(seen)} layers ({', '.join(seen)})", ""]
    room = max(width - BAR - 22, 30)
    lines.append(f"{'at ms':>8} {'took':>8}  {'layer and call':<{room}} {'where in the run'}")
    for span in ordered(spans):
        begin, end = (span["start"] - first) * BAR / total, (span["end"] - first) * BAR / total
        left = min(int(begin), BAR - 1)
        bar = " " * left + "█" * max(1, min(round(end) - left, BAR - left))
        name = "  " * depth.get(span["layer"], 0) + f"{span['layer']}: {span['call']}"
        name += _error(span)
        if len(name) > room:
            name = name[: room - 1] + "…"
        lines.append(
            f"{(span['start'] - first) / 1e6:8.2f} {(span['end'] - span['start']) / 1e6:8.3f}  "
            f"{name:<{room}} ▕{bar:<{BAR}}▏"
        )
    lines.append("")
    for layer in seen:
        own = [s for s in spans if s["layer"] == layer]
        busy = union(own) / 1e6
        lines.append(f"{layer:>14}  {len(own):4d} calls  {busy:8.2f} ms  {LAYERS[layer]}")
    return "\n".join(lines) + "\n"


def union(spans: Sequence[Span]) -> int:
    """Nanoseconds covered by at least one of the spans."""
    covered, until = 0, 0
    for span in sorted(spans, key=lambda s: s["start"]):
        start = max(span["start"], until)
        if span["end"] > start:
            covered += span["end"] - start
            until = span["end"]
    return covered


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 13px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fff; }}
h1 {{ font-size: 1.3em; margin: 0 0 .2em; }} p {{ margin: .2em 0 1em; color: #555; }}
.key span {{ display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .4em 0 1em; }}
table {{ border-collapse: collapse; width: 100%; table-layout: fixed; }}
td {{ padding: 1px 6px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }}
td.n {{ text-align: right; width: 5.5em; font-variant-numeric: tabular-nums; color: #555; }}
td.c {{ width: 40%; }} td.b {{ position: relative; border-left: 1px solid #ddd; }}
td.b div {{ position: absolute; top: 3px; bottom: 3px; min-width: 2px; border-radius: 2px; }}
tr:hover {{ background: #f4f4f4; }} .error {{ color: #b00020; }}
th {{ text-align: left; font-weight: 600; padding: 4px 6px; border-bottom: 1px solid #ccc; }}
@media (prefers-color-scheme: dark) {{
 body {{ background: #1b1b1b; color: #ddd; }} tr:hover {{ background: #2a2a2a; }}
 p, td.n {{ color: #999; }} td.b {{ border-color: #444; }} }}
</style></head><body>
<h1>{title}</h1><p>{summary}</p><p class="key">{key}</p>
<table><thead><tr><th class="n" style="width:5.5em">at ms</th><th style="width:5.5em">took ms</th>
<th style="width:40%">layer and call</th><th>where in the run</th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


def as_html(spans: Sequence[Span], title: str) -> str:
    """The same as one page that needs nothing else."""
    from html import escape

    first, last = _extent(spans) if spans else (0, 1)
    total = max(last - first, 1)
    depth = {layer: number for number, layer in enumerate(LAYERS)}
    rows = []
    for span in ordered(spans):
        layer = span["layer"]
        left, wide = (span["start"] - first) * 100 / total, (span["end"] - span["start"]) * 100 / total
        details = ", ".join(
            f"{k}={v}" for k, v in span.items() if k not in ("layer", "call", "start", "end", "error")
        )
        problem = f' <span class="error">{escape(str(span["error"]))}</span>' if span.get("error") else ""
        rows.append(
            f'<tr title="{escape(span["call"], quote=True)} ({escape(details, quote=True)})">'
            f'<td class="n">{(span["start"] - first) / 1e6:.2f}</td>'
            f'<td class="n">{(span["end"] - span["start"]) / 1e6:.3f}</td>'
            f'<td class="c" style="padding-left:{6 + 14 * depth.get(layer, 0)}px">{escape(layer)}: '
            f"{escape(span['call'])}{problem}</td>"
            f'<td class="b"><div style="left:{left:.3f}%;width:{wide:.3f}%;background:{COLOURS.get(layer, "#888")}">'
            "</div></td></tr>"
        )
    key = "".join(
        f'<span style="background:{COLOURS[layer]}"></span>{escape(layer)}: {escape(what)}<br>'
        for layer, what in LAYERS.items()
        if any(s["layer"] == layer for s in spans)
    )
    return PAGE.format(
        title=escape(title),
        summary=f"{total / 1e6:.1f} ms, {len(spans)} calls and steps",
        key=key,
        rows="\n".join(rows),
    )
