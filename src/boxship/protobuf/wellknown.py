"""The messages that come with protobuf and gRPC themselves.

containerd writes an Any's ``type_url`` as the bare full name; Google's own code puts ``type.googleapis.com/``
in front.  Both are read.  Source: google/protobuf/{any,timestamp,empty,field_mask,struct,wrappers}.proto,
google/rpc/status.proto.
"""

from ..errors import FailedPrecondition, InvalidArgument
from .fields import binary, boolean, double, enum, int32, int64, later, mapping, message, repeated, string
from .fields import uint32 as uint32_field
from .messages import Message, registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    M = TypeVar("M", bound=Message)


class Empty(Message, name="google.protobuf.Empty"):
    """Nothing."""


class Any(Message, name="google.protobuf.Any"):
    """A message of any type beside its type's name."""

    type_url: str = string(1)
    value: bytes = binary(2)

    @classmethod
    def pack(cls, inner: Message, *, prefix: str = "") -> "Any":
        """``inner`` under its full name; Google's status details want ``type.googleapis.com/`` as ``prefix``."""
        return cls(type_url=prefix + inner.full_name, value=inner.encode())

    @property
    def name(self) -> str:
        """The full name without the URL before it."""
        return self.type_url.rpartition("/")[2]

    def holds(self, cls: "type[Message]") -> bool:
        return self.name == cls.full_name

    def unpack(self, cls: "type[M]") -> "M":
        """The message inside, which must be a ``cls`` (else InvalidArgument)."""
        if not self.holds(cls):
            raise InvalidArgument("expected a " + cls.full_name + ", not " + (self.name or "nothing"))
        return cls.decode(self.value)

    def unpack_known(self) -> Message:
        """The message inside as the class that was declared under its name; none is FailedPrecondition."""
        cls = registry.get(self.name)
        if cls is None:
            raise FailedPrecondition("no message named " + self.name + " is declared here")
        return cls.decode(self.value)


class Timestamp(Message, name="google.protobuf.Timestamp"):
    """A point in time, UTC, in seconds and nanoseconds since 1970."""

    seconds: int = int64(1)
    nanos: int = int32(2)

    @classmethod
    def from_ns(cls, ns: int) -> "Timestamp":
        """From ``time.time_ns()``."""
        seconds, nanos = divmod(ns, 1_000_000_000)
        return cls(seconds=seconds, nanos=nanos)

    def to_ns(self) -> int:
        return self.seconds * 1_000_000_000 + self.nanos


class Duration(Message, name="google.protobuf.Duration"):
    seconds: int = int64(1)
    nanos: int = int32(2)


class FieldMask(Message, name="google.protobuf.FieldMask"):
    """The fields that an update touches, as dotted paths."""

    paths: list[str] = repeated(1, string)


class Value(Message, name="google.protobuf.Value"):
    """A JSON value; ``null_value`` is 0 when it is null."""

    null_value: "int | None" = enum(1, oneof="kind")
    number_value: "float | None" = double(2, oneof="kind")
    string_value: "str | None" = string(3, oneof="kind")
    bool_value: "bool | None" = boolean(4, oneof="kind")
    struct_value: "Struct | None" = message(5, later(lambda: Struct), oneof="kind")
    list_value: "ListValue | None" = message(6, later(lambda: ListValue), oneof="kind")


class Struct(Message, name="google.protobuf.Struct"):
    """A JSON object."""

    fields: dict[str, Value] = mapping(1, Value)


class ListValue(Message, name="google.protobuf.ListValue"):
    """A JSON array."""

    values: list[Value] = repeated(1, Value)


class UInt32Value(Message, name="google.protobuf.UInt32Value"):
    value: int = uint32_field(1)


class Status(Message, name="google.rpc.Status"):
    """How a call failed: a google.rpc.Code, a message for people, and details for programs."""

    code: int = int32(1)
    message: str = string(2)
    details: list[Any] = repeated(3, Any)
