"""``boxship-image``: finds the verb, reads its flags, prints errors in the words of the tool that was called.

Called by the name ``skopeo`` or ``umoci`` (a link), it is that tool alone: its verbs, help, and way of telling
errors. ``python -m boxship.tools`` is skopeo.
"""

from __future__ import annotations

import os
import sys

from boxship.errors import BoxshipError, Cancelled
from boxship.flags import Flag, Parsed, UsageError, describe, parse

from .command import Command, Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# verb -> the module that has its COMMAND, and the line that the program's help shows
SKOPEO = {
    "copy": ("boxship.tools.copy", "Copy an image from one place to another"),
    "delete": ("boxship.tools.delete", "Delete an image"),
    "generate-sigstore-key": ("boxship.tools.generate_sigstore_key", "Make a key pair for sigstore signatures"),
    "inspect": ("boxship.tools.inspect", "Show an image's manifest, config or a summary of both"),
    "list-tags": ("boxship.tools.list_tags", "List the tags of a repository or an archive"),
    "login": ("boxship.tools.login", "Log in to a registry"),
    "logout": ("boxship.tools.logout", "Log out of a registry"),
    "manifest-digest": ("boxship.tools.manifest_digest", "Compute the digest of a manifest in a file"),
    "standalone-sign": ("boxship.tools.standalone_sign", "Sign a manifest in a file"),
    "standalone-verify": ("boxship.tools.standalone_verify", "Verify a signature in a file"),
    "sync": ("boxship.tools.sync", "Copy many images from one place to another"),
}
IMAGE_TOOLS = {
    "create": ("boxship.tools.create", "Make a bundle for a runtime from an image"),
    "validate": ("boxship.tools.validate", "Check an image, a layout or a single document against the image-spec"),
}

FLAGS = (
    Flag("command-timeout", "", "string", "Give the verb up after DURATION (30s, 5m)", value="DURATION"),
    Flag("debug", "", "bool", "Show where in the program an error came from"),
    Flag("help", "h", "bool", "Show this help"),
    Flag("insecure-policy", "", "bool", "Take images without asking a policy"),
    Flag("override-arch", "", "string", "Choose images for ARCH instead of this machine's", value="ARCH"),
    Flag("override-os", "", "string", "Choose images for OS instead of this machine's", value="OS"),
    Flag("override-variant", "", "string", "Choose images for VARIANT instead of this machine's", value="VARIANT"),
    Flag("policy", "", "string", "The policy file (default: containers' policy.json)", value="PATH"),
    Flag("registries-conf", "", "string", "The registries.conf to use", value="PATH"),
    Flag("registries.d", "", "string", "Where registries' signature stores are described", value="DIRECTORY"),
    Flag("tls-verify", "", "bool", "Require HTTPS and verify certificates (of every registry)"),
    Flag("tmpdir", "", "string", "Where temporary files go", value="DIRECTORY"),
    Flag("user-agent-prefix", "", "string", "What stands before our name in requests", value="PREFIX"),
    Flag("version", "v", "bool", "Show the version"),
)

UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Habit:
    """What a name stands for: a program's verbs, and how it tells that it failed.

    ``logrus``: errors are log lines, as those of the Go tools are.
    """

    def __init__(
        self, program: str, about: str, verbs: Mapping[str, tuple[str, str]], *, logrus: bool = False
    ) -> None:
        self.program = program
        self.about = about
        self.verbs = verbs
        self.logrus = logrus


def habit_of(called: str) -> Habit:
    """The habit for the name that the program was called by."""
    if called == "skopeo":
        return Habit(called, "Various operations with container images and image registries", SKOPEO, logrus=True)
    return Habit("boxship-image", "Copy, inspect, sign, make and check images", SKOPEO | _umoci() | IMAGE_TOOLS)


def _umoci() -> "dict[str, tuple[str, str]]":
    """umoci's verbs; none in an installation that leaves them out."""
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec("boxship.tools.umoci") is None:
        return {}
    verbs: dict[str, tuple[str, str]] = import_module("boxship.tools.umoci").VERBS
    return verbs


def _umoci_program(arguments: Sequence[str] | None) -> int:
    """umoci reads its command line in its own way."""
    from importlib import import_module

    program: Callable[[Sequence[str] | None], int] = import_module("boxship.tools.umoci.main").main
    return program(arguments)


def program(called: str = "") -> None:
    """What the installed program runs: `main`, and its exit code."""
    import gc

    gc.set_threshold(100_000)  # little of what is made at the start is garbage, and looking for it takes time
    # msgspec takes typing_extensions in the place of typing where it finds it, and that loads as long as the rest.
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    import msgspec  # noqa: F401

    del sys.modules["typing_extensions"]
    code = main(called=called)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = 141
    os._exit(code)  # taking the interpreter apart takes as long as copying a small image


def main(arguments: Sequence[str] | None = None, called: str = "") -> int:
    """The exit code."""
    name = called or os.path.basename(sys.argv[0])
    if name == "umoci" and _umoci():
        return _umoci_program(arguments)
    habit = habit_of(name)
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        return run(habit, words)
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130
    except BoxshipError as error:
        if debug:
            sys.excepthook(type(error), error, error.__traceback__)
        tell(habit, str(error))
        if isinstance(error, TimeIsUp):
            sys.stderr.flush()
            os._exit(1)  # a worker may wait for a peer that does not answer; nobody waits for the worker
        # docker's code for wrong flags means nothing to these tools
        return 1 if isinstance(error, UsageError) else getattr(error, "exit_code", 1)


def tell(habit: Habit, message: str, level: str = "fatal", fields: "Mapping[str, str] | None" = None) -> None:
    """One line on standard error: plain, or as the Go tools' logger writes it."""
    if not habit.logrus:
        said = "".join(f" {name}={value}" for name, value in (fields or {}).items())
        print(f"{habit.program}: {message}{said}", file=sys.stderr)
        return
    import json

    said = "".join(f" {name}={json.dumps(value, ensure_ascii=False)}" for name, value in (fields or {}).items())
    if sys.stderr.isatty():
        print(f"{level[:4].upper()}[0000] {message}{said}", file=sys.stderr)
        return
    from datetime import datetime

    now = datetime.now().astimezone().isoformat(timespec="seconds").replace("+00:00", "Z")
    print(f'time="{now}" level={level} msg={json.dumps(message, ensure_ascii=False)}{said}', file=sys.stderr)


def usage(habit: Habit) -> str:
    rows = "\n".join(f"  {name:<23}{help}" for name, (_, help) in sorted(habit.verbs.items()))
    return (
        f"{habit.about}\n\nUsage:\n  {habit.program} [OPTIONS] COMMAND\n\nCommands:\n{rows}\n\n"
        f"Flags:\n{describe(FLAGS)}\n\nRun '{habit.program} COMMAND --help' for more about a command.\n"
    )


def load(habit: Habit, name: str) -> Command:
    """A verb's declaration; raises UsageError for an unknown one."""
    from importlib import import_module

    if name not in habit.verbs:
        raise UsageError(
            f"Unrecognized command `{habit.program} {name}`\nTry '{habit.program} --help' for more information", 1
        )
    command: Command = import_module(habit.verbs[name][0]).COMMAND
    return command


def run(habit: Habit, words: "list[str]") -> int:
    """Raises BoxshipError."""
    shared = parse(FLAGS, words, interspersed=False)
    if shared.version:
        from boxship import __version__

        print(f"{habit.program} version {__version__}")
        return 0
    if not shared.args or shared.args[0] == "help" or shared.help:
        if shared.args[1:]:
            print(load(habit, shared.args[1]).describe(habit.program), end="")
        else:
            print(usage(habit), end="")
        return 0
    command = load(habit, shared.args[0])
    own = {flag.long for flag in command.flags} | {flag.short for flag in command.flags if flag.short}
    options = command.parse(shared.args[1:], habit.program, tuple(_not_taken(FLAGS, own)))
    if options.values.get("help"):
        print(command.describe(habit.program), end="")
        return 0
    _merge(shared, options, {flag.long for flag in FLAGS} - own)
    with _deadline(shared.command_timeout):
        return command.do(Context(habit.program, shared), options)


def _not_taken(flags: "tuple[Flag, ...]", own: "set[str]") -> "Iterator[Flag]":
    """The program's flags that a verb's do not hide."""
    for flag in flags:
        if flag.long not in own:
            short = "" if flag.short in own else flag.short
            yield Flag(flag.long, short, flag.kind, flag.help, flag.default, flag.value)


def _merge(shared: Parsed, options: Parsed, names: "set[str]") -> None:
    """The program's flags may stand behind the verb, too."""
    for name in names & options.given:
        shared.values[name] = options.values[name]
        shared.given.add(name)


def seconds(text: str) -> float:
    """A duration as Go writes them: ``1h30m``, ``500ms``. Raises UsageError."""
    import re

    parts = re.findall(r"([0-9.]+)(ns|us|µs|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f"invalid duration {text!r}: write a number and a unit, as 30s, 5m or 1h30m")
    try:
        return sum(float(number) * UNITS[unit] for number, unit in parts)
    except ValueError:
        raise UsageError(f"invalid duration {text!r}: a number has one point at most") from None


class TimeIsUp(Cancelled):
    """--command-timeout. Not Unavailable: nobody is to try again."""


class _deadline:
    """The block ends after so many seconds with TimeIsUp; nothing for ""."""

    def __init__(self, text: str) -> None:
        self._seconds = seconds(text) if text else 0.0
        self._text = text

    def __enter__(self) -> None:
        if self._seconds > 0:
            import signal

            signal.signal(signal.SIGALRM, self._late)
            signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def _late(self, number: int, frame: object) -> None:
        raise TimeIsUp("given up", cause=f"it took longer than --command-timeout {self._text}")

    def __exit__(self, *_: object) -> None:
        if self._seconds > 0:
            import signal

            signal.setitimer(signal.ITIMER_REAL, 0)
