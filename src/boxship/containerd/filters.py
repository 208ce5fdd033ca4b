"""containerd's filter language: ``name==web,labels."a.b"~=^x`` (pkg/filters).

One filter is a comma-separated list of selectors, all of which must hold; of several filters one must.
A selector is a field path (dotted; quoted where a part has other characters) alone, which asks for presence, or
with ``==``, ``!=`` or ``~=`` (a regular expression that may match anywhere) and a value, quoted or not.
No filter at all matches everything.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from boxship.errors import InvalidArgument
from boxship.protobuf import Any, Message

Path = tuple[str, ...]
Lookup = Callable[[Path], "str | None"]  # None: the field is absent
Filter = Callable[[Lookup], bool]

_FIELD = re.compile(r'[A-Za-z][A-Za-z0-9_]*|"(?:[^"\\]|\\.)*"')
_OPERATOR = re.compile(r"==|!=|~=")
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s,]*')
_PATTERN = re.compile(r'"(?:[^"\\]|\\.)*"|/(?:[^/\\]|\\.)*/|\|(?:[^|\\]|\\.)*\||[^\s,]*')


@dataclass(frozen=True, slots=True)
class Selector:
    path: Path
    operator: str
    value: str

    def holds(self, lookup: Lookup) -> bool:
        found = lookup(self.path)
        match self.operator:
            case "":
                return found is not None
            case "==":
                return found is not None and found == self.value
            case "!=":
                return found != self.value
            case _:
                return found is not None and re.search(self.value, found) is not None


def parse(filters: Sequence[str]) -> Filter:
    """The predicate of ``filters``; raises InvalidArgument that points at the place."""
    alternatives = [_parse_one(text) for text in filters]
    if not alternatives:
        return lambda _lookup: True
    return lambda lookup: any(all(selector.holds(lookup) for selector in selectors) for selectors in alternatives)


def _parse_one(text: str) -> "list[Selector]":
    selectors: list[Selector] = []
    at = 0
    if not text:
        return selectors
    while True:
        path: list[str] = []
        while True:
            field = _FIELD.match(text, at)
            if field is None:
                raise _error(text, at, "expected a field")
            path.append(_unquote(field[0], text, at))
            at = field.end()
            if text[at : at + 1] != ".":
                break
            at += 1
        operator = _OPERATOR.match(text, at)
        value = ""
        if operator is not None:
            at = operator.end()
            match = (_PATTERN if operator[0] == "~=" else _VALUE).match(text, at)
            if match is None or not match[0]:
                raise _error(text, at, "expected a value")
            value = _unquote(match[0], text, at, alternatives=operator[0] == "~=")
            if operator[0] == "~=":
                try:
                    re.compile(value)
                except re.error as error:
                    raise _error(text, at, f"invalid regular expression: {error}") from error
            at = match.end()
        selectors.append(Selector(tuple(path), operator[0] if operator else "", value))
        if at == len(text):
            return selectors
        if text[at] != ",":
            raise _error(text, at, "expected a comma or an operator")
        at += 1


def _unquote(token: str, text: str, at: int, *, alternatives: bool = False) -> str:
    if token[:1] == '"' and len(token) > 1:
        try:
            return str(json.loads(token))
        except ValueError as error:
            raise _error(text, at, "invalid quoting") from error
    if alternatives and len(token) > 1 and token[0] in "/|" and token[-1] == token[0]:
        return token[1:-1].replace("\\" + token[0], token[0])
    return token


def _error(text: str, at: int, cause: str) -> InvalidArgument:
    return InvalidArgument(f"invalid filter {text!r} at character {at + 1}", cause=cause)


def message_lookup(message: "Message | None", names: "dict[str, str] | None" = None) -> Lookup:
    """Looks fields up in a message as containerd's adaptors do: empty is absent, maps take the rest of the path
    as one key. ``names`` translates the first part (``topic`` is ``topic``, but ``runtime`` is ``runtime.name``).
    """

    def lookup(path: Path) -> "str | None":
        if names and path[0] in names:
            path = (*names[path[0]].split("."), *path[1:])
        return _field(message, path)

    return lookup


def _field(value: object, path: Path) -> "str | None":
    for position, part in enumerate(path):
        if isinstance(value, Any):
            value = value.unpack_known()
        if isinstance(value, dict):
            return value.get(".".join(path[position:]))
        if not isinstance(value, Message) or part not in value.fields_by_name:
            return None
        value = getattr(value, part)
    if isinstance(value, bool):
        return "true" if value else None
    if isinstance(value, int | str):
        return str(value) if value else None
    return None if not value else ""
