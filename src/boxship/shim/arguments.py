"""The command line of a shim binary, as containerd calls it (containerd docs: core/runtime/v2/README.md).

Go's flag package: one or two dashes, a value after ``=`` or as the next word, and the first word that is no flag
ends the flags.
"""

from ..errors import InvalidArgument

VALUES = ("namespace", "id", "address", "publish-binary", "bundle", "socket")
SWITCHES = ("debug", "v", "version", "info")


class Arguments:
    """``flags`` by name ("" or "true" for switches) and the ``action``: start, delete, or nothing."""

    __slots__ = ("action", "flags")

    def __init__(self, flags: "dict[str, str]", action: str) -> None:
        self.flags = flags
        self.action = action

    def required(self, name: str) -> str:
        value = self.flags.get(name, "")
        if not value:
            raise InvalidArgument(f"-{name} is missing")
        return value


def parse(words: "list[str]") -> Arguments:
    """The words after the program's name; what no containerd sends is InvalidArgument."""
    flags: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "--"):
        name, equals, value = rest.pop(0).lstrip("-").partition("=")
        if name in SWITCHES:
            flags[name] = value or "true"
            continue
        if name not in VALUES:
            raise InvalidArgument(f"flag -{name} is not known")
        if not equals:
            if not rest:
                raise InvalidArgument(f"flag -{name} needs a value")
            value = rest.pop(0)
        flags[name] = value
    action = rest[0] if rest else ""
    if action not in ("", "start", "delete"):
        raise InvalidArgument(f"action {action!r} is not known", remedy="start or delete")
    return Arguments(flags, action)
