# ruff: noqa: RUF012  ClassVar is imported for the type checker only, so ruff does not know it
"""Typed protobuf messages: a class declares its full name and its fields once.

::

    class Mount(Message, name="containerd.types.Mount"):
        type: str = string(1)
        options: list[str] = repeated(4, string)

    Mount(type="bind").encode()      Mount.decode(data)

An instance keeps only the fields that were set; the defaults are class attributes, so an absent field costs
nothing.  Lists and maps are made when first asked for.  Fields that a newer peer sends and we do not know are
kept and sent on.  Two messages are equal when their bytes are.
"""

from ..errors import InvalidArgument, PeerError
from . import wire
from .fields import Field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any as Anything
    from typing import ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_options: object) -> "Callable[[type], type]":
        return lambda cls: cls


registry: "dict[str, type[Message]]" = {}
"""Every declared message by full name; ``Any.unpack`` looks here."""


@dataclass_transform(kw_only_default=True)
class Message:
    """Base of all messages.  Subclass with ``name=`` the protobuf full name; no further inheritance."""

    full_name: "ClassVar[str]" = ""
    fields_by_name: "ClassVar[dict[str, Field]]" = {}
    _writers: "ClassVar[list[tuple[str, bool, wire.Writer]]]" = []
    _readers: "ClassVar[dict[int, wire.Reader]]" = {}
    _containers: "ClassVar[dict[str, type]]" = {}
    _oneofs: "ClassVar[dict[str, list[str]]]" = {}
    _unknown = b""

    def __init_subclass__(cls, *, name: str = "") -> None:
        cls.full_name = name
        declared = {key: value for key, value in vars(cls).items() if isinstance(value, Field)}
        oneofs: dict[str, list[str]] = {}
        for key, field in declared.items():
            field.name = key
            if field.oneof:
                oneofs.setdefault(field.oneof, []).append(key)
        cls.fields_by_name = declared
        cls._oneofs = oneofs
        cls._writers, cls._readers, cls._containers = [], {}, {}
        for key, field in sorted(declared.items(), key=lambda item: item[1].number):
            if field.oneof:
                field.rivals = tuple(other for other in oneofs[field.oneof] if other != key)
            cls._writers.append((key, field.presence, wire.writer(field)))
            cls._readers.update(wire.readers(field))
            if field.label:
                cls._containers[key] = dict if field.label == "map" else list
                delattr(cls, key)
            else:
                setattr(cls, key, None if field.presence else wire.SCALARS[field.kind][1])
        registry[name] = cls

    def __init__(self, **values: "Anything") -> None:
        if not values.keys() <= self.fields_by_name.keys():
            strange = ", ".join(sorted(values.keys() - self.fields_by_name.keys()))
            raise TypeError(self.full_name + " has no field " + strange)
        self.__dict__.update(values)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            make = self._containers.get(name)
            if make is None:
                raise AttributeError(self.full_name + " has no field " + name)
            value = self.__dict__[name] = make()
            return value

    def encode(self) -> bytes:
        """This message's bytes, fields in order of their numbers, unknown fields last.

        A value that its field cannot carry, or two members of one oneof, is InvalidArgument.
        """
        values = self.__dict__
        if self._oneofs:
            for oneof in self._oneofs:
                self.which(oneof)
        out: list[bytes] = []
        for name, presence, put in self._writers:
            value = values.get(name)
            if value if not presence else value is not None:
                put(value, out)
        if self._unknown:
            out.append(self._unknown)
        return b"".join(out)

    @classmethod
    def decode(cls, data: bytes) -> "Self":
        """The message in ``data``; bytes that are not one are a PeerError."""
        message = cls()
        data = bytes(data)
        try:
            message.merge(data, 0, len(data))
        except IndexError:
            raise PeerError(cls.full_name + ": the message is cut short") from None
        except RecursionError:
            raise PeerError(cls.full_name + ": messages are nested too deep") from None
        return message

    def merge(self, data: bytes, pos: int, end: int) -> None:
        """Read the fields in ``data[pos:end]`` into this message, as protobuf merges."""
        known = self._readers
        values = self.__dict__
        while pos < end:
            start = pos
            tag = data[pos]
            pos += 1
            if tag > 127:
                tag, pos = wire.read_tag(data, start)
            take = known.get(tag)
            if take is not None:
                pos = take(values, data, pos, end)
            elif tag >> 3 == 0:
                raise PeerError(self.full_name + ": field number 0 does not exist")
            else:
                pos = wire.skip(data, pos, end, tag & 7)
                self._unknown += data[start:pos]
        if pos != end:
            raise PeerError(self.full_name + ": the message is cut short")

    def which(self, oneof: str) -> "str | None":
        """The name of the member of ``oneof`` that is set; two set members are InvalidArgument."""
        members = [name for name in self._oneofs[oneof] if self.__dict__.get(name) is not None]
        if len(members) > 1:
            raise InvalidArgument(self.full_name + ": only one of " + ", ".join(members) + " may be set")
        return members[0] if members else None

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.encode() == other.encode()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        set_fields = [
            name + "=" + repr(self.__dict__[name])
            for name in self.fields_by_name
            if self.__dict__.get(name) is not None
        ]
        return type(self).__name__ + "(" + ", ".join(set_fields) + ")"


class Enum:
    """Names for an open protobuf enum: a class of int constants that tells them apart by ``name_of``."""

    full_name: "ClassVar[str]" = ""

    def __init_subclass__(cls, *, name: str = "") -> None:
        cls.full_name = name

    @classmethod
    def members(cls) -> "dict[str, int]":
        return {key: value for key, value in vars(cls).items() if type(value) is int}

    @classmethod
    def name_of(cls, number: int) -> str:
        """The constant's name, or the number in decimal when a newer peer sent it."""
        for key, value in cls.members().items():
            if value == number:
                return key
        return str(number)
