"""Which devices a container may use: runtime-spec ``linux.resources.devices``.

v1 has a controller for it (admin-guide/cgroup-v1/devices.rst), v2 an eBPF program (``device_filter``).
Both are made from the same ``Rules``, which is what the v1 controller holds: a default and a set of exceptions.
A rule without a type, or of type ``a``, sets the default and forgets all before it, which is why the usual list opens
with "deny all"; any other adds an exception to the default or takes one back.
Only what has changed is written to a v1 group, so an update never takes a device away for a moment.
"""

from boxship.errors import InvalidArgument

from .writes import Read, Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Key: TypeAlias = "tuple[str, int, int]"

ANY = -1
LETTERS = "rwm"
READ, WRITE, MAKE = 1, 2, 4
ALL = READ | WRITE | MAKE
_BITS = {"r": READ, "w": WRITE, "m": MAKE}
_MOST = 2**32 - 1


class Rules:
    """The default, and the exceptions from it: access bits by (type, major, minor), where ANY is every number."""

    __slots__ = ("allow", "exceptions")

    def __init__(self, allow: bool = False) -> None:
        self.allow = allow
        self.exceptions: dict[Key, int] = {}

    def add(self, allow: bool, type: str, major: int, minor: int, access: int, path: str = "a device rule") -> None:
        """One more rule. Raises InvalidArgument for one that the v1 controller would ignore without a word."""
        if type == "a":
            self.allow = allow
            self.exceptions = {}
            return
        key = (type, major, minor)
        have = self.exceptions.get(key, 0)
        if allow != self.allow:
            self.exceptions[key] = have | access
            return
        for wider in ((type, ANY, minor), (type, major, ANY), (type, ANY, ANY)):
            if wider != key and self.exceptions.get(wider, 0) & access:
                raise InvalidArgument(
                    f"{path}: cannot punch a hole in the rule for {_line(wider, self.exceptions[wider])}",
                    remedy="name the devices that are meant, instead of all of them",
                )
        if have & ~access:
            self.exceptions[key] = have & ~access
        else:
            self.exceptions.pop(key, None)

    def permits(self, type: str, major: int, minor: int, access: int) -> bool:
        """What the kernel answers: an exception must cover all of an access to allow it, any of it to deny it."""
        for key in ((type, major, minor), (type, ANY, minor), (type, major, ANY), (type, ANY, ANY)):
            bits = self.exceptions.get(key, 0)
            if bits & access if self.allow else bits and not access & ~bits:
                return not self.allow
        return self.allow


def _number(rule: "dict[str, object]", key: str, path: str) -> int:
    value = rule.get(key)
    if value is None or value == ANY:
        return ANY
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{path}.{key} must be a whole number, not {value!r}")
    if not 0 <= value <= _MOST:
        raise InvalidArgument(f"{path}.{key} must be 0 to {_MOST}, not {value}")
    return value


def rules(value: object) -> Rules:
    """``linux.resources.devices`` as rules. Raises InvalidArgument naming the element."""
    if not isinstance(value, list):
        raise InvalidArgument("linux.resources.devices must be an array")
    found = Rules()
    for index, rule in enumerate(value):
        path = f"linux.resources.devices[{index}]"
        if not isinstance(rule, dict):
            raise InvalidArgument(f"{path} must be an object")
        kind = rule.get("type") or "a"
        if kind not in ("a", "b", "c"):
            raise InvalidArgument(f"{path}.type must be a, b or c, not {kind!r}")
        access = rule.get("access") or LETTERS
        bits = 0
        for letter in access if isinstance(access, str) else "":
            bits |= _BITS.get(letter, 0)  # "rwa" is met in the wild (validate lets it pass): it means rw
        if not bits:
            raise InvalidArgument(f"{path}.access must be made of r, w and m, not {access!r}")
        major, minor = _number(rule, "major", path), _number(rule, "minor", path)
        found.add(bool(rule.get("allow")), kind, major, minor, bits, path)
    return found


# ── v1 ──


def _letters(access: int) -> str:
    return "".join(letter for letter in LETTERS if _BITS[letter] & access)


def _line(key: "Key", access: int) -> str:
    type, major, minor = key
    numbers = ":".join("*" if value == ANY else str(value) for value in (major, minor))
    return f"{type} {numbers} {_letters(access)}"


def parse_list(text: str) -> Rules:
    """What devices.list says; of a group whose default is to allow it does not say the exceptions."""
    found = Rules()
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if len(words) != 4:
            continue
        if words[0] == "a":
            found.add(True, "a", ANY, ANY, ALL)
            continue
        major, minor = (ANY if word == "*" else int(word) for word in words[1:3])
        access = sum(_BITS[letter] for letter in words[3])
        found.add(True, words[0], major, minor, access)
    return found


def transition(old: Rules, new: Rules) -> "list[tuple[bool, str]]":
    """(allow, line) of each write that turns a group with the rules ``old`` into one with ``new``, in order."""
    lines: list[tuple[bool, str]] = []
    before = old.exceptions
    if old.allow or old.allow != new.allow:
        lines.append((new.allow, "a"))
        before = {}
    for key, access in before.items():
        dropped = access & ~new.exceptions.get(key, 0)
        if dropped:
            lines.append((new.allow, _line(key, dropped)))
    for key, access in new.exceptions.items():
        gained = access & ~before.get(key, 0)
        if gained:
            lines.append((not new.allow, _line(key, gained)))
    return lines


_MOST_REMEMBERED = 64
_remembered: "dict[tuple[object, ...], list[Write]]" = {}
_WORDS = ("allow", "type", "major", "minor", "access")


def v1(resources: "dict[str, object]", read: Read, *, new: bool = False) -> "list[Write]":
    """The writes that bring a group to the rules.

    A ``new`` group has its parent's rules, whatever they are: it starts over.  Most containers of a process have the
    same rules, so what that takes is remembered.
    """
    value = resources.get("devices")
    if value is None:
        return []
    if not new:
        return _writes(parse_list(read("devices", "devices.list")), rules(value))
    key: tuple[object, ...] = ()
    if isinstance(value, list) and all(isinstance(rule, dict) for rule in value):
        key = tuple([rule.get(word) for rule in value for word in _WORDS])
    try:
        writes = _remembered.get(key)
    except TypeError:  # something in it is a list: rules() says what
        return _writes(Rules(True), rules(value))
    if writes is None:
        writes = _writes(Rules(True), rules(value))
        if len(_remembered) >= _MOST_REMEMBERED:
            _remembered.clear()
        if key:
            _remembered[key] = writes
    return writes


def _writes(old: Rules, new: Rules) -> "list[Write]":
    return [("devices", "devices.allow" if allow else "devices.deny", line) for allow, line in transition(old, new)]
