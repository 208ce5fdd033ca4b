"""What a verb of the image tools is: its words, flags, how many arguments it wants, the function that does it.

A verb's module has a ``COMMAND``::

    COMMAND = Command("gc", "", "Remove blobs that no image needs", do, FLAGS)

``do(context, options)`` returns the exit code (0: done) and raises `BoxshipError` for everything that a person can
mend; `boxship.tools.main` prints it in the words of the tool that was called and picks the exit code: 1, or
``error.exit_code`` where an error has one (`Refused`).
Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

from boxship.errors import BoxshipError
from boxship.flags import Flag, Parsed, Usage, UsageError, describe, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Context:
    """What every verb may use: how the program was called, and the flags that stood before the verb.

    ``program`` is what the person typed (``boxship-image``, ``skopeo``, ``umoci``), for messages.
    """

    __slots__ = ("options", "program")

    def __init__(self, program: str, options: Parsed) -> None:
        self.program = program
        self.options = options


class Refused(BoxshipError):
    """An answer that is no fault, with its own exit code: an image that is not valid, a signature not good."""

    kind = "refused"

    def __init__(self, message: str, exit_code: int = 1, *, cause: str = "", remedy: str = "") -> None:
        super().__init__(message, cause=cause, remedy=remedy)
        self.exit_code = exit_code


class Command(Usage):
    """A `Usage` and what it does; ``examples`` are shown by help."""

    COUNTS = ("takes no arguments", "wants at least {}", "wants exactly {}", "wants {} to {}")

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
        examples: tuple[str, ...] = (),
    ) -> None:
        super().__init__(name, usage, help, flags, least, most, interspersed)
        self.do = do
        self.examples = examples

    def parse(self, words: list[str], program: str, shared: tuple[Flag, ...] = ()) -> Parsed:
        """Read the words after the verb; ``shared`` are the program's flags, which may stand here too.

        Raises UsageError.
        """
        parsed = parse((*self.flags, *shared), words, interspersed=self.interspersed)
        count = len(parsed.args)
        if "help" not in parsed.given and not self.takes(count):
            raise UsageError(f"'{program} {self.name}' {self.wanted()}, got {count}: {self.line(program)}", 1)
        return parsed

    def describe(self, program: str) -> str:
        """The verb's help."""
        text = f"{self.help}\n\nUsage:\n  {self.line(program)}\n"
        if self.examples:
            text += "\nExamples:\n" + "".join(f"  {program} {one}\n" for one in self.examples)
        if self.flags:
            text += f"\nFlags:\n{describe(self.flags)}\n"
        return text
