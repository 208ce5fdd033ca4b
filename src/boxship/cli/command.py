"""What a command is: its words, its flags, how many arguments it wants, and the function that does it.

A command's module has a ``COMMAND``; modules are imported when their command is called.
"""

from __future__ import annotations

from boxship.api.engine import Client
from boxship.flags import Flag, Parsed, Usage, UsageError, describe, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Context:
    """What every command may use: the engine's client and how the program was called."""

    def __init__(self, client: Client, program: str) -> None:
        self.client = client
        self.program = program


class Command(Usage):
    """A `Usage` and what it does."""

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
        super().__init__(name, usage, help, flags, least, most, interspersed)
        self.do = do
        self.local = local  # needs no engine

    def parse(self, words: list[str], program: str) -> Parsed:
        """Raises UsageError."""
        parsed = parse(self.flags, words, interspersed=self.interspersed)
        if not self.takes(len(parsed.args)):
            raise UsageError(f"'{program} {self.name}' {self.wanted()}", 1)
        return parsed

    def synopsis(self, program: str) -> str:
        return f"Usage:  {self.line(program)}"

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
