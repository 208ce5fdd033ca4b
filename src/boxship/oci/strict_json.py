"""Reads JSON as strictly as two readers need to agree on it.

A key that stands twice in an object is a fault, since some readers take the first and some the last.
"""

import json
import re
from typing import Any

from boxship.errors import InvalidArgument

DEPTH = 64
"""Documents nest four or five deep; what is deeper than this is meant to hurt."""


def load(data: bytes, limit: int) -> Any:
    """The JSON value. Raises InvalidArgument: not JSON (with line and column), too large, too deep, a key twice."""
    if len(data) > limit:
        raise InvalidArgument(f"it is larger than {limit} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"it is not UTF-8: byte {error.start}") from None
    if _depth(text) > DEPTH:
        raise InvalidArgument(f"it is nested more than {DEPTH} deep")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise InvalidArgument(f"it is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except ValueError:  # Python's guard against numbers of thousands of digits
        raise InvalidArgument("it is not JSON that can be read: a number has too many digits") from None


def _object(pairs: "list[tuple[str, Any]]") -> "dict[str, Any]":
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidArgument(f"the key {short(twice)} stands twice in an object")
    return found


def _constant(word: str) -> Any:
    raise InvalidArgument(f"it is not JSON: {word} is no number")


_STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def _depth(text: str) -> int:
    deepest = depth = 0
    for match in _STRINGS_AND_BRACKETS.finditer(text):
        if match[0] in ("[", "{"):
            depth += 1
            deepest = max(deepest, depth)
        elif match[0] in ("]", "}"):
            depth -= 1
    return deepest


def short(value: Any) -> str:
    """A value for an error message."""
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
