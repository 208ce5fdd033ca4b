"""What the controller modules share: a controller decides which files get which text, the manager writes them.

A :data:`Write` is ``(controller, file, text)``, with a fourth element when some errno is no failure: the tuple of
those numbers.
Writes happen in order, so a setting that the kernel accepts only after another one is written before it, tolerating
EINVAL, and again behind it.
A :data:`Read` gives a file's text, or "" when it is not there.
"""

from boxship.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    Write: TypeAlias = "tuple[str, str, str] | tuple[str, str, str, tuple[int, ...]]"
    Read: TypeAlias = Callable[[str, str], str]
else:  # names for annotations only: the cold path does not import collections.abc
    Write = tuple
    Read = object

UNLIMITED = 2**64 - 1


def table(resources: "dict[str, object]", key: str) -> "dict[str, object]":
    """The object ``linux.resources.<key>``, empty when absent; raises InvalidArgument for another type."""
    value = resources.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument(f"linux.resources.{key} must be an object, not {type(value).__name__}")
    return value


def number(object: "dict[str, object]", name: str, key: str) -> "int | None":
    """The whole number ``linux.resources.<name>.<key>`` or None; raises InvalidArgument for another type."""
    value = object.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"linux.resources.{name}.{key} must be a whole number, not {value!r}")
    return value


def text(object: "dict[str, object]", name: str, key: str) -> str:
    """The string ``linux.resources.<name>.<key>``, "" when absent; raises InvalidArgument for another type."""
    value = object.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgument(f"linux.resources.{name}.{key} must be a string, not {value!r}")
    return value


def truth(object: "dict[str, object]", name: str, key: str) -> bool:
    """The boolean ``linux.resources.<name>.<key>``, False when absent; raises InvalidArgument for another type."""
    value = object.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InvalidArgument(f"linux.resources.{name}.{key} must be true or false, not {value!r}")
    return value


def objects(value: object, name: str) -> "Iterator[tuple[str, dict[str, object]]]":
    """(its JSON path below linux.resources, the object) of each element of an array of objects; none when absent."""
    if value is None:
        return
    if not isinstance(value, list):
        raise InvalidArgument(f"linux.resources.{name} must be an array, not {type(value).__name__}")
    for index, element in enumerate(value):
        path = f"{name}[{index}]"
        if not isinstance(element, dict):
            raise InvalidArgument(f"linux.resources.{path} must be an object, not {type(element).__name__}")
        yield path, element


def needed(object: "dict[str, object]", name: str, key: str) -> int:
    """A whole number that must be there, zero or above."""
    value = number(object, name, key)
    if value is None:
        raise InvalidArgument(f"linux.resources.{name}.{key} is missing")
    if value < 0:
        raise InvalidArgument(f"linux.resources.{name}.{key} must not be negative, as {value} is")
    return value


def device(object: "dict[str, object]", name: str) -> str:
    """``major:minor`` of an object that names a device."""
    return f"{needed(object, name, 'major')}:{needed(object, name, 'minor')}"


def cap(value: int) -> str:
    """A v2 limit: the spec's -1 is the kernel's ``max``."""
    return "max" if value < 0 else str(value)


def counter(text: str, otherwise: int = 0) -> int:
    """The number that a file holds; ``otherwise`` when it is not there, and UNLIMITED for ``max``."""
    text = text.strip()
    if text.isdigit():
        return int(text)
    return UNLIMITED if text == "max" else otherwise


def pairs(text: str) -> "dict[str, int]":
    """A flat keyed file, one ``key value`` a line."""
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.strip().isdigit():
            found[key] = int(value)
    return found
