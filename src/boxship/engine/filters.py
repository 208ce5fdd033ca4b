"""The ``filters`` query parameter: a JSON object of lists, or of objects whose keys are the values (old clients)."""

from __future__ import annotations

import msgspec

from boxship.errors import InvalidArgument

Filters = dict[str, list[str]]


def parse_filters(text: str, allowed: frozenset[str]) -> Filters:
    """The filters by key; raises InvalidArgument for broken JSON and for a key that is not ``allowed``."""
    if not text:
        return {}
    try:
        raw = msgspec.json.decode(text.encode(), type=dict[str, list[str] | dict[str, bool]])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidArgument(f"invalid filters {text!r}: {error}") from error
    found: Filters = {}
    for key, values in raw.items():
        if key not in allowed:
            raise InvalidArgument(f"invalid filter '{key}'", remedy="one of " + ", ".join(sorted(allowed)))
        found[key] = [v for v, on in values.items() if on] if isinstance(values, dict) else values
    return found


def has_label(labels: dict[str, str], wanted: str) -> bool:
    """``label=key`` or ``label=key=value``."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def truth(values: list[str], key: str) -> bool:
    """A boolean filter; raises InvalidArgument for anything but true/false/1/0."""
    table = {"true": True, "1": True, "false": False, "0": False}
    if len(values) != 1 or values[0].lower() not in table:
        raise InvalidArgument(f"invalid filter '{key}={values}': must be true or false")
    return table[values[0].lower()]
