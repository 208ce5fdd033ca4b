# ruff: noqa: F811  overload is imported for the type checker only, so ruff does not know it
"""How a message class declares its fields: ``id: str = string(1)``.

To a type checker each of these functions returns the field's default value, so a message's constructor and
attributes are typed by its annotations; at run time it returns a ``Field``, which ``Message`` takes over.
A field of proto3 without ``optional`` has no presence: its default is not sent.
``optional=True``, members of a oneof and messages have presence: None is absent.
A name that Python reserves gets an underscore (``from_``), which the protobuf name does not have.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any as Anything
    from typing import Generic, Literal, TypeVar, overload

    from .messages import Message

    M = TypeVar("M", bound=Message)
    T = TypeVar("T")
else:

    def overload(function: object) -> object:
        return function

    T = None

    class Generic:
        def __class_getitem__(cls, _item: object) -> type:
            return cls


class Field:
    """One declared field: ``number``, ``kind`` (a key of wire.SCALARS, or ``message``), and how often it occurs.

    ``label`` is ``""`` (singular), ``repeated`` or ``map`` (string keys).
    ``rivals`` are the other members of its oneof.
    """

    __slots__ = ("_message", "kind", "label", "name", "number", "oneof", "presence", "rivals")

    def __init__(
        self, number: int, kind: str, *, label: str = "", message: "Anything" = None,
        optional: bool = False, oneof: str = "",
    ) -> None:  # fmt: skip
        self.number = number
        self.kind = kind
        self.label = label
        self.name = ""
        self.oneof = oneof
        self.presence = optional or bool(oneof) or (kind == "message" and not label)
        self.rivals: tuple[str, ...] = ()
        self._message = message

    @property
    def message(self) -> "type[Message]":
        """The class of a message field; resolves ``later``."""
        found: Anything = self._message
        if isinstance(found, _Later):
            found = self._message = found.get()
        return found  # type: ignore[no-any-return]  # checked where the field was declared


class _Later:
    __slots__ = ("get",)

    def __init__(self, get: "Callable[[], Anything]") -> None:
        self.get = get


def later(get: "Callable[[], type[M]]") -> "Callable[..., M]":
    """Names a message class that is declared further down: ``message(5, later(lambda: Struct))``."""
    return _Later(get)  # type: ignore[return-value]  # a declaration, resolved by Field.message


class Kind(Generic[T]):
    """A scalar type: ``string(1)``, ``string(2, optional=True)``, ``string(3, oneof="kind")``."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    @overload
    def __call__(self, number: int) -> "T": ...
    @overload
    def __call__(self, number: int, *, optional: "Literal[True]") -> "T | None": ...
    @overload
    def __call__(self, number: int, *, oneof: str) -> "T | None": ...
    def __call__(self, number: int, *, optional: bool = False, oneof: str = "") -> "Anything":
        return Field(number, self.name, optional=optional, oneof=oneof)


string: "Kind[str]" = Kind("string")
binary: "Kind[bytes]" = Kind("bytes")
boolean: "Kind[bool]" = Kind("bool")
int32: "Kind[int]" = Kind("int32")
int64: "Kind[int]" = Kind("int64")
uint32: "Kind[int]" = Kind("uint32")
uint64: "Kind[int]" = Kind("uint64")
double: "Kind[float]" = Kind("double")
enum: "Kind[int]" = Kind("enum")
"""An open enum: a plain int, whose names are the constants of an ``Enum`` class."""


def message(number: int, cls: "Callable[..., M]", *, oneof: str = "") -> "M | None":
    """A nested message; None when absent."""
    return Field(number, "message", message=cls, oneof=oneof)  # type: ignore[return-value]  # see the module


def repeated(number: int, item: "Callable[..., T]") -> "list[T]":
    """``repeated(3, Mount)`` or ``repeated(4, string)``; numbers are packed, as in proto3."""
    return _container(number, item, "repeated")  # type: ignore[no-any-return]  # see the module


def mapping(number: int, value: "Callable[..., T]") -> "dict[str, T]":
    """``map<string, T>``: ``mapping(5, string)`` or ``mapping(5, Descriptor)``."""
    return _container(number, value, "map")  # type: ignore[no-any-return]  # see the module


def _container(number: int, item: "Anything", label: str) -> "Anything":
    if isinstance(item, Kind):
        return Field(number, item.name, label=label)
    return Field(number, "message", label=label, message=item)
