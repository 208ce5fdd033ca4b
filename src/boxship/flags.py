"""Command lines as docker reads them (pflag): tables of flags, one parser.

``--name value``, ``--name=value``, ``-n value``, ``-nvalue``, ``-abc`` for three booleans.  Some commands stop at the
first word that is no flag, because the rest is the container's (``run IMAGE ls -l``); the others take flags anywhere.
"""

from __future__ import annotations

from boxship.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class UsageError(InvalidArgument):
    """The command line itself is wrong: exit code 125 for a flag, 1 for a missing argument, as docker has it."""

    def __init__(self, message: str, code: int = 125, *, named: bool | None = None) -> None:
        super().__init__(message)
        self.exit_code = code
        self.named = code != 125 if named is None else named  # the program's name stands before the message


class Flag:
    """``kind``: bool, string, list (may be repeated), int. ``value`` names the argument in help."""

    __slots__ = ("default", "help", "kind", "long", "short", "value")

    def __init__(
        self, long: str, short: str = "", kind: str = "string", help: str = "", default: Any = None, value: str = ""
    ) -> None:
        self.long = long
        self.short = short
        self.kind = kind
        self.help = help
        self.value = value or {"bool": "", "int": "int", "list": "list"}.get(kind, "string")
        self.default: Any = default if default is not None else {"bool": False, "list": [], "int": None}.get(kind, "")


TRUTH = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


class Parsed:
    """What was given: flags by long name (``-`` as ``_``), the words that are none, and which flags were there."""

    def __init__(self, flags: tuple[Flag, ...]) -> None:
        self.values: dict[str, Any] = {
            flag.long: list(flag.default) if flag.kind == "list" else flag.default for flag in flags
        }
        self.given: set[str] = set()
        self.args: list[str] = []

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name.replace("_", "-")]
        except KeyError:
            raise AttributeError(name) from None


def parse(
    flags: tuple[Flag, ...], words: list[str], *, interspersed: bool = True, single_dash: bool = False
) -> Parsed:
    """Raises UsageError in docker's words. With ``single_dash`` ``-name`` is ``--name``, as for Go's flag package."""
    by_long = {flag.long: flag for flag in flags}
    by_short = {flag.short: flag for flag in flags if flag.short}
    found = Parsed(flags)
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            found.args += rest
            break
        if single_dash and word.startswith("-") and word.lstrip("-").partition("=")[0] in by_long:
            word = "--" + word.lstrip("-")
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name not in by_long:
                raise UsageError(f"unknown flag: --{name}")
            _set(found, by_long[name], value if equals else None, rest, f"--{name}")
        elif word.startswith("-") and len(word) > 1:
            _short(found, by_short, word[1:], rest)
        elif interspersed:
            found.args.append(word)
        else:
            found.args += [word, *rest]
            break
    return found


def _short(found: Parsed, by_short: dict[str, Flag], letters: str, rest: list[str]) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        flag = by_short.get(letter)
        if flag is None:
            raise UsageError(f"unknown shorthand flag: '{letter}' in -{letter}{letters}")
        if flag.kind == "bool" and not letters.startswith("="):
            _set(found, flag, None, rest, f"-{letter}")
            continue
        value = letters.removeprefix("=") if letters else None
        _set(found, flag, value, rest, f"-{letter}")
        return


def _set(found: Parsed, flag: Flag, value: str | None, rest: list[str], spelled: str) -> None:
    if flag.kind == "bool":
        text = "true" if value is None else value
        if text.lower() not in TRUTH:
            raise UsageError(f'invalid argument "{text}" for "{_names(flag)}" flag: it must be true or false')
        found.values[flag.long] = TRUTH[text.lower()]
    else:
        if value is None:
            if not rest:
                letter = f"'{flag.short}' in -{flag.short}"
                where = spelled if spelled.startswith("--") else letter
                raise UsageError(f"flag needs an argument: {where}")
            value = rest.pop(0)
        if flag.kind == "list":
            found.values[flag.long].append(value)
        elif flag.kind == "int":
            try:
                found.values[flag.long] = int(value)
            except ValueError:
                raise UsageError(
                    f'invalid argument "{value}" for "{_names(flag)}" flag: it must be a whole number'
                ) from None
        else:
            found.values[flag.long] = value
    found.given.add(flag.long)


def _names(flag: Flag) -> str:
    return f"-{flag.short}, --{flag.long}" if flag.short else f"--{flag.long}"


def describe(flags: tuple[Flag, ...]) -> str:
    """The options of a command's help, one a line."""
    rows = []
    for flag in sorted(flags, key=lambda flag: flag.long):
        short = f"-{flag.short}, " if flag.short else "    "
        rows.append((f"  {short}--{flag.long} {flag.value}".rstrip(), flag.help))
    width = max((len(left) for left, _ in rows), default=0)
    return "\n".join(f"{left:<{width}}   {help}" for left, help in rows)


class Usage:
    """The words that a command takes: its name, its flags, how many arguments (``most`` None: any number).

    Each program's commands add what they do, and say in its words how many arguments they want (``COUNTS``).
    """

    COUNTS = ("accepts no arguments", "requires at least {}", "requires {}", "requires at least {} and at most {}")

    def __init__(
        self,
        name: str,
        usage: str,
        help: str,
        flags: tuple[Flag, ...],
        least: int,
        most: int | None,
        interspersed: bool,
    ) -> None:
        self.name = name
        self.usage = usage
        self.help = help
        self.flags = flags
        self.least = least
        self.most = most
        self.interspersed = interspersed

    def takes(self, count: int) -> bool:
        return count >= self.least and (self.most is None or count <= self.most)

    def wanted(self) -> str:
        def some(number: int) -> str:
            return f"{number} argument" if number == 1 else f"{number} arguments"

        none, at_least, exactly, between = self.COUNTS
        if self.most == 0:
            return none
        if self.most is None:
            return at_least.format(some(self.least))
        if self.least == self.most:
            return exactly.format(some(self.least))
        return between.format(self.least, some(self.most))

    def line(self, program: str) -> str:
        """``boxship run [OPTIONS] IMAGE``."""
        options = " [OPTIONS]" if self.flags else ""
        usage = f" {self.usage}" if self.usage else ""
        return f"{program} {self.name}{options}{usage}"
