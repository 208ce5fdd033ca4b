"""Tables, ``--format``, and docker's ways to write sizes, times and ids."""

from __future__ import annotations

import json
import sys
import time

from boxship.api.engine.words import duration
from boxship.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Fields = dict[str, tuple[str, Callable[[Any], Any]]]


class Row:
    """One row of a list for a template: field names to what they show, computed when asked for."""

    def __init__(self, fields: Fields, item: Any) -> None:
        self._fields = fields
        self._item = item

    def field(self, name: str) -> Any:
        from boxship.template import TemplateError

        if name == "Label":
            return lambda key: (self._item.get("Labels") or {}).get(key, "")
        if name not in self._fields:
            raise TemplateError(f"template: can't evaluate field {name}")
        return self._fields[name][1](self._item)

    def everything(self) -> dict[str, str]:
        return {name: str(get(self._item)) for name, (_, get) in sorted(self._fields.items())}


def print_list(
    items: Sequence[Any],
    fields: Fields,
    columns: Sequence[str],
    form: str,
    *,
    quiet: str = "",
    no_header: bool = False,
) -> None:
    """Print a list as docker does: a table of ``columns``, or as ``form`` says.

    ``fields`` maps a template's field to its heading and how it is got; ``quiet`` names the one field to print.
    """
    if quiet:
        for item in items:
            print(fields[quiet][1](item))
        return
    if not form or form == "table":
        rows = [[str(fields[name][1](item)) for name in columns] for item in items]
        print_table([fields[name][0] for name in columns], rows, no_header)
        return
    if form == "json":
        form = "{{json .}}"
    if form.startswith("table "):
        _template_table(items, fields, unescape(form.removeprefix("table ")))
        return
    from boxship.template import parse

    template = parse(unescape(form))
    for item in items:
        print(template.render(Row(fields, item)))


def _template_table(items: Sequence[Any], fields: Fields, form: str) -> None:
    from boxship.template import parse

    template = parse(form)
    headings = template.render({name: heading for name, (heading, _) in fields.items()})
    rows = [template.render(Row(fields, item)).split("\t") for item in items]
    print_table(headings.split("\t"), rows)


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], no_header: bool = False, least: int = 10
) -> None:
    """Columns as wide as their widest cell and three spaces more, but no less than ``least``: docker's tabwriter."""
    every = ([] if no_header else [list(headings)]) + [list(row) for row in rows]
    if not every:
        return
    widths = [max(least - 3, *(len(row[n]) if n < len(row) else 0 for row in every)) for n in range(len(headings))]
    out = []
    for row in every:
        cells = [f"{cell:<{widths[n]}}" for n, cell in enumerate(row[:-1])] + [row[-1]]
        out.append("   ".join(cells).rstrip() if row is every[0] and not no_header else "   ".join(cells))
    sys.stdout.write("\n".join(out) + "\n")


def print_documents(documents: Sequence[Any], form: str) -> None:
    """``inspect``: all documents as one JSON array, or each through a template."""
    if not form:
        print(json.dumps(documents, indent=4, ensure_ascii=False))
        return
    if form == "json":
        for document in documents:
            print(json.dumps(document, separators=(",", ":"), ensure_ascii=False))
        return
    from boxship.template import parse

    template = parse(unescape(form))
    for document in documents:
        print(template.render(document))


def unescape(text: str) -> str:
    """``\\t`` and ``\\n`` of a --format are a tab and a newline."""
    return text.replace("\\t", "\t").replace("\\n", "\n")


def short_id(id: str) -> str:
    return id.removeprefix("sha256:")[:12]


def human_size(size: float, units: Sequence[str] = ("B", "kB", "MB", "GB", "TB", "PB"), base: float = 1000) -> str:
    """Four significant digits, as go-units has them: ``12.3kB``."""
    number = 0
    while size >= base and number < len(units) - 1:
        size /= base
        number += 1
    return f"{size:.4g}{units[number]}"


def human_size_binary(size: float) -> str:
    return human_size(size, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"), 1024)


def short_size(size: float) -> str:
    """Three significant digits: the SIZE column of images and containers."""
    units = ("B", "kB", "MB", "GB", "TB")
    number = 0
    while size >= 1000 and number < len(units) - 1:
        size /= 1000
        number += 1
    return f"{size:.3g}{units[number]}"


def ago(seconds: float) -> str:
    """docker's words for how long ago something was."""
    return f"{duration(max(seconds, 0))} ago"


def since(unix: float) -> str:
    return ago(time.time() - unix)


def local_time(unix: float) -> str:
    """``2026-11-24 03:16:24 +0000 UTC``."""
    moment = time.localtime(unix)
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", moment)


def parse_size(text: str, what: str) -> int:
    """``512m``, ``1g``, ``1024``, ``1.5GiB`` in bytes; raises InvalidArgument."""
    import re

    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([bkmgtp]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise InvalidArgument(f"invalid size: '{text}' for {what}", remedy="a number with b, k, m or g")
    return int(float(match[1]) * 1024 ** "bkmgtp".index(match[2] or "b"))


def filters(values: Sequence[str]) -> str:
    """``--filter key=value`` as the API's parameter; raises InvalidArgument."""
    found: dict[str, dict[str, bool]] = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not equals:
            raise InvalidArgument(f'invalid argument "{value}" for "-f, --filter" flag: invalid filter \'{value}\'')
        found.setdefault(key.strip().lower(), {})[rest.strip()] = True
    return json.dumps(found) if found else ""
