"""What a command is: its words, its flags, how many arguments it wants, and the function that does it.

A command's module has a ``COMMAND``; modules are imported when their command is called.
"""

from __future__ import annotations

from boxship.api.engine import Client
from boxship.flags import Flag, Parsed, UsageError, describe, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Context:
    """What every command may use: the engine's client and how the program was called."""

    def __init__(self, client: Client, program: str) -> None:
        self.client = client
        self.program = program


class Command:
    """``least`` and ``most`` count arguments (most None: any number)."""

    def __init__(
        self,
        name: str,
        usage: str,
        help: str,
        do: Callable[[Context, Parsed], int],
        flags: tuple[Flag, ...] = (),
        *,
        least: int = 0,
        most: int | None = 0,
        interspersed: bool = True,
        local: bool = False,
    ) -> None:
        self.name = name
        self.usage = usage
        self.help = help
        self.do = do
        self.flags = flags
        self.least = least
        self.most = most
        self.interspersed = interspersed
        self.local = local  # needs no engine

    def parse(self, words: list[str], program: str) -> Parsed:
        """Raises UsageError."""
        parsed = parse(self.flags, words, interspersed=self.interspersed)
        count = len(parsed.args)
        if count < self.least or (self.most is not None and count > self.most):
            raise UsageError(f"'{program} {self.name}' {self._wanted()}", 1)
        return parsed

    def _wanted(self) -> str:
        def some(number: int) -> str:
            return f"{number} argument" if number == 1 else f"{number} arguments"

        if self.most == 0:
            return "accepts no arguments"
        if self.most is None:
            return f"requires at least {some(self.least)}"
        if self.least == self.most:
            return f"requires {some(self.least)}"
        return f"requires at least {self.least} and at most {some(self.most)}"

    def synopsis(self, program: str) -> str:
        options = " [OPTIONS]" if self.flags else ""
        usage = f" {self.usage}" if self.usage else ""
        return f"Usage:  {program} {self.name}{options}{usage}"

    def describe(self, program: str) -> str:
        text = f"{self.synopsis(program)}\n\n{self.help}\n"
        if self.flags:
            text += f"\nOptions:\n{describe(self.flags)}\n"
        return text


class Program(Command):
    """A command that is a program of its own, with its own parser and help: it is handed the words as they are."""

    def __init__(self, name: str, usage: str, help: str, do: Callable[[Context, Parsed], int]) -> None:
        super().__init__(name, usage, help, do, most=None, local=True)

    def parse(self, words: list[str], program: str) -> Parsed:
        parsed = Parsed(self.flags)
        parsed.args = words
        return parsed
