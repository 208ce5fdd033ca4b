"""What the controller modules share: a controller decides which files get which text, the manager writes them.

A :data:`Write` is ``(controller, file, text)``; a :data:`Read` gives a file's text, or "" when it is not there.
"""

from boxship.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Write = tuple[str, str, str]
    Read = Callable[[str, str], str]
else:  # names for annotations only: the cold path does not import collections.abc
    Write = tuple
    Read = object


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


def cap(value: int) -> str:
    """A v2 limit: the spec's -1 is the kernel's ``max``."""
    return "max" if value < 0 else str(value)
