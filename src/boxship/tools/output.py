"""Printing a result: JSON as the Go tools indent it, or a person's template."""

from __future__ import annotations

import json

from boxship.flags import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=4, ensure_ascii=False))


def show(value: Any, form: str) -> None:
    """As JSON (no ``form``, or one that says so), or through a Go template. Raises UsageError."""
    if form in ("", "json", "{{json .}}", "{{ json . }}"):
        if form.startswith("{"):
            print(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
        else:
            show_json(value)
        return
    from boxship.template import TemplateError, parse

    try:
        text = parse(form.replace("\\n", "\n").replace("\\t", "\t")).render(value)
    except TemplateError as error:
        raise UsageError(f"--format: {error.message}") from error
    print(text, end="" if text.endswith("\n") else "\n")
