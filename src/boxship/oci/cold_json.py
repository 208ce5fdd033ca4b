"""JSON for the cold path: the C scanner and encoder of CPython, without the ``json`` package.

``import json`` costs 3 ms (it compiles regular expressions), a third of a whole ``boxship-runc`` run.
Same language, same numbers, same errors in spirit: ``loads`` raises InvalidArgument with the offset.
"""

from boxship.errors import InvalidArgument

try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    FAST = True
except ImportError:  # another interpreter: the package has everything in Python
    FAST = False

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPACE = " \t\r\n"
_CONSTANTS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class _Context:
    """What the C scanner asks its decoder for."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = _CONSTANTS.__getitem__
    memo: "dict[str, str]" = {}  # noqa: RUF012 - the scanner clears it after every call


def loads(text: "str | bytes", what: str = "JSON") -> "Any":
    """The value that ``text`` holds; ``what`` names it in the error."""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise InvalidArgument(f"{what}: not UTF-8", cause=f"byte {error.start}") from error
    if not FAST:
        import json

        try:
            return json.loads(text)
        except ValueError as error:
            raise InvalidArgument(f"{what}: invalid JSON", cause=str(error)) from error
    start = 0
    while start < len(text) and text[start] in _SPACE:
        start += 1
    try:
        value, end = make_scanner(_Context)(text, start)  # type: ignore[arg-type]  # it reads attributes
    except StopIteration as error:
        raise InvalidArgument(f"{what}: invalid JSON", cause=_place(text, error.value)) from error
    except SystemError as error:
        # The C scanner takes JSONDecodeError from sys.modules, and sets no error when json is not there.
        import json

        try:
            json.loads(text)
        except ValueError as described:
            raise InvalidArgument(f"{what}: invalid JSON", cause=str(described)) from described
        raise InvalidArgument(f"{what}: invalid JSON") from error
    except (ValueError, RecursionError) as error:
        # The C scanner raises json.JSONDecodeError, which it imports only then; its message has the place.
        raise InvalidArgument(f"{what}: invalid JSON", cause=str(error)) from error
    if text[end:].strip(_SPACE):
        raise InvalidArgument(f"{what}: invalid JSON", cause="extra data, " + _place(text, end))
    return value


def _place(text: str, at: int) -> str:
    return f"line {text.count(chr(10), 0, at) + 1} column {at - text.rfind(chr(10), 0, at)}"


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not JSON")


def dumps(value: object) -> str:
    """Compact JSON; raises TypeError for what JSON cannot say."""
    if not FAST:
        import json

        return json.dumps(value, separators=(",", ":"))
    encoder = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, False)
    return "".join(encoder(value, 0))


def dumps_indented(value: object, indent: str = "  ", level: int = 0) -> str:
    """JSON for people: one member a line, as Go's MarshalIndent writes it."""
    if isinstance(value, dict) and value:
        inner = indent * (level + 1)
        members = (f"{inner}{dumps(str(k))}: {dumps_indented(v, indent, level + 1)}" for k, v in value.items())
        return "{\n" + ",\n".join(members) + "\n" + indent * level + "}"
    if isinstance(value, (list, tuple)) and value:
        inner = indent * (level + 1)
        items = ",\n".join(inner + dumps_indented(v, indent, level + 1) for v in value)
        return "[\n" + items + "\n" + indent * level + "]"
    return dumps(value)
