"""What a JSON document must look like, said as data, and complaints that name the place.

A *shape* is a small object; `complaints` walks a value along it and says every fault with its JSON path
(``manifests[0].digest``).  Keys that no shape names are allowed, as the specs ask of readers.

`boxship.oci.strict_json` reads the values.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .strict_json import short

Path = str


@dataclass(frozen=True, slots=True)
class Complaint:
    """``path`` is "" for the document itself."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


class Shape:
    """One kind of value; `check` yields what is wrong with one."""

    name = "anything"

    def check(self, value: Any, path: Path) -> Iterator[Complaint]:
        return iter(())


@dataclass(frozen=True)
class Text(Shape):
    """A string; ``rule`` gives the reason why one is not good, "" when it is."""

    rule: "Callable[[str], str] | None" = None
    name = "a string"

    def check(self, value: Any, path: Path) -> Iterator[Complaint]:
        if not isinstance(value, str):
            yield _not(self, value, path)
        elif self.rule and (reason := self.rule(value)):
            yield Complaint(path, f"{short(value)} {reason}")


@dataclass(frozen=True)
class Whole(Shape):
    least: int = -(1 << 63)
    most: int = (1 << 63) - 1
    name = "a whole number"

    def check(self, value: Any, path: Path) -> Iterator[Complaint]:
        if not isinstance(value, int) or isinstance(value, bool):
            yield _not(self, value, path)
        elif not self.least <= value <= self.most:
            wanted = f"must be {self.least}" if self.least == self.most else f"must be {self.least} to {self.most}"
            yield Complaint(path, f"{short(value)} {wanted}")


@dataclass(frozen=True)
class Truth(Shape):
    name = "true or false"

    def check(self, value: Any, path: Path) -> Iterator[Complaint]:
        if not isinstance(value, bool):
            yield _not(self, value, path)


@dataclass(frozen=True)
class List(Shape):
    of: Shape
    least: int = 0
    name = "a list"

    def check(self, value: Any, path: Path) -> Iterator[Complaint]:
        if not isinstance(value, list):
            yield _not(self, value, path)
            return
        if len(value) < self.least:
            yield Complaint(path, f"it has {len(value)} entries, {self.least} or more are needed")
        for number, one in enumerate(value):
            yield from self.of.check(one, f"{path}[{number}]")


@dataclass(frozen=True)
class Map(Shape):
    """Any keys but the empty one, all values alike."""

    of: Shape
    name = "an object"

    def check(self, value: Any, path: Path) -> Iterator[Complaint]:
        if not isinstance(value, dict):
            yield _not(self, value, path)
            return
        for key, one in value.items():
            if not key:
                yield Complaint(path, "a key is empty")
            yield from self.of.check(one, f"{path}[{json.dumps(key)}]")


@dataclass(frozen=True)
class Object(Shape):
    """Named keys. ``rule`` sees the whole object when all its keys are good."""

    required: "dict[str, Shape]" = field(default_factory=dict)
    optional: "dict[str, Shape]" = field(default_factory=dict)
    rule: "Callable[[dict[str, Any]], Iterator[Complaint]] | None" = None
    name = "an object"

    def check(self, value: Any, path: Path) -> Iterator[Complaint]:
        if not isinstance(value, dict):
            yield _not(self, value, path)
            return
        good = True
        for key, shape in (self.required | self.optional).items():
            if key in value:
                for complaint in shape.check(value[key], _key(path, key)):
                    good = False
                    yield complaint
            elif key in self.required:
                good = False
                yield Complaint(_key(path, key), "it is missing")
        if good and self.rule:
            for complaint in self.rule(value):
                yield Complaint(_key(path, complaint.path), complaint.text)


@dataclass(frozen=True)
class Nullable(Shape):
    """``of`` or null."""

    of: Shape

    def check(self, value: Any, path: Path) -> Iterator[Complaint]:
        return iter(()) if value is None else self.of.check(value, path)


def complaints(shape: Shape, value: Any) -> "list[Complaint]":
    return list(shape.check(value, ""))


_KINDS = {
    str: "a string", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object",
}  # fmt: skip


def _not(shape: Shape, value: Any, path: Path) -> Complaint:
    return Complaint(path, f"it must be {shape.name}, not {_KINDS.get(type(value), 'null')}")


def _key(path: Path, key: str) -> Path:
    return f"{path}.{key}" if path else key
