"""Commands that have commands of their own: ``volume ls``, ``network inspect``, ``system df``."""

from __future__ import annotations

from boxship.flags import Parsed, UsageError

from .command import Command, Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection


def not_there(name: str) -> str:
    """What is said of a command that docker has."""
    return f"'{name}' is not there yet: boxship has no such command of docker's so far"


def group(
    name: str,
    help: str,
    commands: dict[str, Command],
    aliases: dict[str, str],
    missing: Collection[str] = (),
    *,
    local: bool = False,
) -> Command:
    """A command whose first word chooses one of ``commands``; ``missing`` are those of docker's not there yet.

    ``local`` commands need no engine.
    """

    def do(context: Context, o: Parsed) -> int:
        word, *rest = o.args or [""]
        chosen = commands.get(aliases.get(word, word))
        if chosen is None:
            rows = "\n".join(f"  {key:<10}{command.help}" for key, command in sorted(commands.items()))
            text = f"Usage:  boxship {name} COMMAND\n\n{help}\n\nCommands:\n{rows}"
            if word in ("", "--help", "-h"):
                print(text)
                return 0
            if word in missing:
                raise UsageError(not_there(f"{name} {word}"), 1)
            raise UsageError(f"'{word}' is not a command of {name}\n\n{text}", 1)
        if rest[:1] in (["--help"], ["-h"]):
            print(chosen.describe(f"boxship {name}"), end="")
            return 0
        return chosen.do(context, chosen.parse(rest, f"boxship {name}"))

    return Command(name, "COMMAND", help, do, least=0, most=None, interspersed=False, local=local)
