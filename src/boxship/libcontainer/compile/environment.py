"""process.env as the program gets it: each name once, the last value wins, and HOME is always set.

The order is that of the last occurrences (as runc has it): an image's variables come first, what the user says for
this container comes after them.
"""

from boxship.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def prepare(variables: "Sequence[str]") -> "list[str]":
    """The variables without duplicates and without an empty HOME, which means "look it up".

    Raises InvalidArgument for one that is not NAME=VALUE: execve(2) would take it, programs would not find it.
    """
    last: dict[str, str] = {}
    for index, variable in enumerate(variables):
        name, equals, value = variable.partition("=")
        if not equals or not name or "\0" in variable:
            what = "has no '='" if not equals else "has no name" if not name else "contains a NUL byte"
            raise InvalidArgument(f"process.env[{index}]: {variable!r} {what}", remedy="write NAME=VALUE")
        last.pop(name, None)  # so that it is inserted anew, at the end
        last[name] = variable
        if name == "HOME" and not value:
            del last[name]
    return list(last.values())


def has_home(variables: "Sequence[str]") -> bool:
    """Whether the last HOME has a value, so that nobody need look it up in the image's passwd."""
    found = False
    for variable in variables:
        if variable.startswith("HOME="):
            found = len(variable) > 5
    return found
