"""``umoci``: its verbs, help and exit codes, read as its own command line is (urfave/cli: ``-flag`` is ``--flag``).

``boxship-image`` calls the same verbs. What fails says why in one line and exits with 1.
"""

from __future__ import annotations

import os
import sys

from boxship.errors import BoxshipError, DataLoss
from boxship.flags import Flag, Parsed, UsageError
from boxship.flags import parse as parse_flags

from ..command import Command, Context
from . import RAW, VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEVELS = ("debug", "info", "warn", "error", "fatal")
FLAGS = (
    Flag("verbose", "", "bool", "alias for --log=info"),
    Flag("log", "", "string", "set the log level (debug, info, [warn], error, fatal)", default="warn", value="value"),
    Flag("help", "h", "bool", "show help"),
    Flag("version", "v", "bool", "print the version"),
)
HELP = (Flag("help", "h", "bool", "show help"),)
_HELP_WORDS = ("help", "h")
# The words that scripts look for when a blob is not what its descriptor promised.
_UMOCI_WORDS = {
    "digest mismatch": "verified reader digest mismatch",
    "size mismatch": "verified reader size mismatch",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    try:
        return run(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130
    except BoxshipError as error:
        print(f"umoci: {words(error)}", file=sys.stderr)
        return getattr(error, "exit_code", 1) if not isinstance(error, UsageError) else 1


def words(error: BoxshipError) -> str:
    """An error in one line."""
    if isinstance(error, DataLoss) and error.cause in _UMOCI_WORDS:
        return f"{error.message}: {_UMOCI_WORDS[error.cause]}"
    return str(error)


def run(arguments: list[str]) -> int:
    """Raises BoxshipError."""
    shared = parse_flags(FLAGS, arguments, interspersed=False, single_dash=True)
    if shared.version:
        return _version()
    if shared.verbose and "log" in shared.given:
        raise UsageError("--log=* and --verbose are mutually exclusive")
    if shared.log not in LEVELS:
        raise UsageError(f"invalid --log: {shared.log!r} is no level: choose one of {', '.join(LEVELS)}")
    name, *rest = shared.args or ["help"]
    if shared.help or (name in _HELP_WORDS and not rest):
        print(usage(), end="")
        return 0
    if name in _HELP_WORDS:
        name, *rest = [*rest, "--help"]
    command = load(name)
    parsed = parse(command, rest, "umoci")
    if parsed is None:
        print(describe(command, "umoci"), end="")
        return 0
    return command.do(Context("umoci", shared), parsed)


def load(name: str) -> Command:
    from importlib import import_module

    if name not in VERBS:
        raise UsageError(f"unknown command: {name}: 'umoci help' lists them")
    command: Command = import_module(VERBS[name][0]).COMMAND
    return command


def parse(command: Command, arguments: list[str], program: str) -> Parsed | None:
    """A verb's flags and arguments; None when its help is wanted. Raises UsageError."""
    parsed = parse_flags((*command.flags, *HELP), arguments, interspersed=command.interspersed, single_dash=True)
    if parsed.help:
        return None
    count = len(parsed.args)
    if count < command.least or (command.most is not None and count > command.most):
        least, most = command.least, command.most
        wanted = "none" if most == 0 else str(least) if least == most else f"{least} to {most}"
        raise UsageError(
            f"expected {wanted} positional arguments, got {count}: {program} {command.name} {command.usage}"
        )
    return parsed


def describe(command: Command, program: str) -> str:
    """A verb's help, in the form of urfave/cli."""
    text = f"NAME:\n   {program} {command.name} - {command.help}\n\nUSAGE:\n   {program} {command.name}"
    text += f"{' [command options]' if command.flags else ''} {command.usage}\n"
    if command.examples:
        text += "\nEXAMPLES:\n" + "".join(f"   {program} {one}\n" for one in command.examples)
    if command.name == "raw":
        text += f"\nCOMMANDS:\n{_commands(RAW)}"
    return text + f"\nOPTIONS:\n{_options((*command.flags, *HELP))}"


def usage() -> str:
    return (
        "NAME:\n   umoci - umoci modifies Open Container images\n\n"
        "USAGE:\n   umoci [global options] command [command options] [arguments...]\n\n"
        f"COMMANDS:\n{_commands(VERBS)}   help, h     shows a list of commands or help for one command\n\n"
        f"GLOBAL OPTIONS:\n{_options(FLAGS)}"
    )


def _commands(verbs: Mapping[str, tuple[str, str]]) -> str:
    """One line a module: aliases stand together."""
    names: dict[str, list[str]] = {}
    for verb, (module, _) in verbs.items():
        names.setdefault(module, []).append(verb)
    rows = [(", ".join(sorted(group, key=len, reverse=True)), verbs[group[0]][1]) for group in names.values()]
    width = max(10, *(len(left) for left, _ in rows))
    return "".join(f"   {left:<{width}}  {help}\n" for left, help in sorted(rows))


def _options(flags: tuple[Flag, ...]) -> str:
    rows = []
    for flag in flags:
        left = f"--{flag.long}" + (f", -{flag.short}" if flag.short else "")
        default = f' (default: "{flag.default}")' if flag.kind == "string" and flag.default else ""
        rows.append((f"{left} {flag.value}".rstrip(), flag.help + default))
    width = max(len(left) for left, _ in rows)
    return "".join(f"   {left:<{width}}  {help}\n" for left, help in rows)


def _version() -> int:
    from boxship import __version__
    from boxship.image.layout import VERSION
    from boxship.image.runtime_config import RUNTIME_SPEC

    print(f"umoci version {__version__} (Boxship)\nimage spec: 1.1.1, layout {VERSION}\nruntime spec: {RUNTIME_SPEC}")
    return 0
