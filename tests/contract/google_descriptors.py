"""Our message declarations as classes of the protobuf library, to compare the two codecs.

A pool of its own, so that nothing clashes with other copies of the same messages.
Field types that the declaration leaves open (enums) become open proto3 enums of one member.
"""

import keyword
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from boxship.protobuf import Field, Message

_TYPES = {
    "string": 9, "bytes": 12, "bool": 8, "int32": 5, "int64": 3, "uint32": 13, "uint64": 4,
    "double": 1, "enum": 14, "message": 11,
}  # fmt: skip
_PACKAGE = "boxship_contract"


def wire_name(name: str) -> str:
    """The protobuf name of an attribute: ``from_`` is ``from``."""
    bare = name.removesuffix("_")
    return bare if keyword.iskeyword(bare) else name


def _reach(cls: type[Message], seen: dict[str, type[Message]]) -> dict[str, type[Message]]:
    if cls.full_name not in seen:
        seen[cls.full_name] = cls
        for field in cls.fields_by_name.values():
            if field.kind == "message":
                _reach(field.message, seen)
    return seen


def _local(cls: type[Message]) -> str:
    return cls.full_name.replace(".", "_")


def _describe_field(into: descriptor_pb2.DescriptorProto, field: Field) -> None:
    described = into.field.add(name=wire_name(field.name), number=field.number)
    described.label = described.LABEL_REPEATED if field.label else described.LABEL_OPTIONAL  # type: ignore[assignment]
    type_name = ""
    if field.kind == "message":
        type_name = f".{_PACKAGE}.{_local(field.message)}"
    elif field.kind == "enum":
        type_name = f".{_PACKAGE}.OpenEnum"
    if field.label == "map":
        entry_name = "".join(part.capitalize() for part in wire_name(field.name).split("_")) + "Entry"
        entry = into.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=1, type=9)
        entry.field.add(
            name="value", number=2, label=1, type=_TYPES[field.kind], type_name=type_name or None
        )  # type: ignore[call-overload]
        described.type = _TYPES["message"]  # type: ignore[assignment]
        described.type_name = f".{_PACKAGE}.{into.name}.{entry_name}"
        return
    described.type = _TYPES[field.kind]  # type: ignore[assignment]
    if type_name:
        described.type_name = type_name
    if field.oneof:
        names = [oneof.name for oneof in into.oneof_decl]
        if field.oneof not in names:
            into.oneof_decl.add(name=field.oneof)
            names.append(field.oneof)
        described.oneof_index = names.index(field.oneof)


def google_classes(*roots: type[Message]) -> dict[type[Message], Any]:
    """The protobuf library's class for every message that ``roots`` reach."""
    reached: dict[str, type[Message]] = {}
    for root in roots:
        _reach(root, reached)
    file = descriptor_pb2.FileDescriptorProto(name="contract.proto", package=_PACKAGE, syntax="proto3")
    file.enum_type.add(name="OpenEnum").value.add(name="ZERO", number=0)
    for cls in reached.values():
        described = file.message_type.add(name=_local(cls))
        for field in cls.fields_by_name.values():
            _describe_field(described, field)
        # Fields with presence of their own are oneofs of one member, declared after the real ones.
        for index, field in enumerate(cls.fields_by_name.values()):
            if field.presence and not field.oneof and field.kind != "message":
                described.oneof_decl.add(name="_" + wire_name(field.name))
                described.field[index].proto3_optional = True
                described.field[index].oneof_index = len(described.oneof_decl) - 1
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    return {
        cls: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{_local(cls)}"))
        for cls in reached.values()
    }


def fields_of(cls: type[Message]) -> Iterator[tuple[str, Field]]:
    yield from cls.fields_by_name.items()
