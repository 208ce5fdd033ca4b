"""``boxship``: docker's command line, its commands, flags, output and exit codes.

A command's module is imported when it is called, so that ``boxship ps`` pays for ps alone.
With no engine running, and none named by -H, DOCKER_HOST or a context, one is started in the background.
"""

from __future__ import annotations

import os
import sys

from boxship.api.engine.address import find
from boxship.api.engine.client import Client, EngineError
from boxship.errors import BoxshipError, Unavailable
from boxship.flags import Flag, UsageError, describe, parse

from .command import Command, Context, Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# command -> module; the help of each is shown by `boxship --help`
COMMANDS = {
    "attach": ("attach", "Attach local standard input, output, and error streams to a running container"),
    "commit": ("commit", "Create a new image from a container's changes"),
    "create": ("create", "Create a new container"),
    "diff": ("diff", "Inspect changes to files or directories on a container's filesystem"),
    "engine": ("engine", "Run the engine: the Docker Engine API in the foreground"),
    "events": ("events", "Get real time events from the server"),
    "exec": ("exec", "Execute a command in a running container"),
    "export": ("export", "Export a container's filesystem as a tar archive"),
    "history": ("history", "Show the history of an image"),
    "images": ("images", "List images"),
    "import": ("import_", "Import the contents from a tarball to create a filesystem image"),
    "info": ("info", "Display system-wide information"),
    "inspect": ("inspect", "Return low-level information on Docker objects"),
    "kill": ("kill", "Kill one or more running containers"),
    "login": ("login", "Authenticate to a registry"),
    "logout": ("logout", "Log out from a registry"),
    "pull": ("pull", "Download an image from a registry"),
    "push": ("push", "Upload an image to a registry"),
    "load": ("load", "Load an image from a tar archive or STDIN"),
    "logs": ("logs", "Fetch the logs of a container"),
    "manifest": ("manifest", "Manage image manifests and manifest lists"),
    "network": ("network", "List and inspect networks"),
    "pause": ("pause", "Pause all processes within one or more containers"),
    "port": ("port", "List port mappings or a specific mapping for the container"),
    "ps": ("ps", "List containers"),
    "registry": ("registry", "Serve a registry of images, or collect its garbage"),
    "rename": ("rename", "Rename a container"),
    "restart": ("restart", "Restart one or more containers"),
    "rm": ("rm", "Remove one or more containers"),
    "rmi": ("rmi", "Remove one or more images"),
    "run": ("run", "Create and run a new container from an image"),
    "save": ("save", "Save one or more images to a tar archive (streamed to STDOUT by default)"),
    "start": ("start", "Start one or more stopped containers"),
    "stats": ("stats", "Display a live stream of container(s) resource usage statistics"),
    "stop": ("stop", "Stop one or more running containers"),
    "system": ("system", "Manage the engine: df, info, prune"),
    "tag": ("tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "top": ("top", "Display the running processes of a container"),
    "trace": ("trace", "Show one command's run through every layer, as a timeline"),
    "unpause": ("unpause", "Unpause all processes within one or more containers"),
    "version": ("version", "Show the version information of client and engine"),
    "volume": ("volume", "Manage volumes: create, inspect, ls, prune, rm"),
    "wait": ("wait", "Block until one or more containers stop, then print their exit codes"),
}

# commands that only a group has
GROUPED = {"container-prune": "prune:CONTAINERS", "image-prune": "prune:IMAGES"}

# docker's management commands: `container ls` is `ps`
GROUPS = {
    "container": {
        "ls": "ps", "list": "ps", "ps": "ps", "run": "run", "create": "create", "start": "start", "stop": "stop",
        "restart": "restart", "kill": "kill", "rm": "rm", "remove": "rm", "wait": "wait", "attach": "attach",
        "exec": "exec", "logs": "logs", "inspect": "inspect", "top": "top", "stats": "stats", "rename": "rename",
        "pause": "pause", "unpause": "unpause", "port": "port", "prune": "container-prune",
        "commit": "commit", "diff": "diff", "export": "export",
    },
    "image": {
        "ls": "images", "list": "images", "load": "load", "save": "save", "import": "import", "rm": "rmi",
        "remove": "rmi", "tag": "tag", "inspect": "inspect", "history": "history", "prune": "image-prune",
        "pull": "pull", "push": "push",
    },
}  # fmt: skip

# docker's commands that are not there yet: each says so, where a misspelt one is unknown
MISSING = frozenset(
    {
        "build", "builder", "buildx", "checkpoint", "compose", "config", "context", "cp",
        "node", "plugin", "search", "secret", "service", "stack", "swarm", "trust", "update",
    }
)  # fmt: skip

FLAGS = (
    Flag("host", "H", "list", "Daemon socket to connect to"),
    Flag("context", "c", "string", "Name of the context to use"),
    Flag("config", "", "string", "Location of client config files"),
    Flag("debug", "D", "bool", "Enable debug mode"),
    Flag("log-level", "l", "string", "Set the logging level"),
    Flag("version", "v", "bool", "Print version information and quit"),
    Flag("help", "", "bool", "Print usage"),
)


def usage() -> str:
    rows = "\n".join(f"  {name:<12}{help}" for name, (_, help) in sorted(COMMANDS.items()))
    return (
        "Usage:  boxship [OPTIONS] COMMAND\n\nThe whole container stack, with docker's commands.\n\n"
        f"Commands:\n{rows}\n\nGlobal Options:\n{describe(FLAGS)}\n\n"
        "Run 'boxship COMMAND --help' for more information on a command.\n"
    )


def load(name: str) -> Command:
    """A command's declaration; raises UsageError for an unknown one."""
    from importlib import import_module

    if name in GROUPED:
        module, _, attribute = GROUPED[name].partition(":")
        grouped: Command = getattr(import_module(f"boxship.cli.commands.{module}"), attribute)
        return grouped
    if name in MISSING:
        from .subcommands import not_there

        raise UsageError(not_there(name), 1)
    if name not in COMMANDS:
        raise UsageError(f"unknown command: boxship {name}\n\nRun 'boxship --help' for more information", 1)
    command: Command = import_module(f"boxship.cli.commands.{COMMANDS[name][0]}").COMMAND
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return run(words)
    except UsageError as error:
        # docker names itself before what is missing, not before what a flag does not take
        print(f"boxship: {error.message}" if error.named else error.message, file=sys.stderr)
        return error.exit_code
    except EngineError as error:
        print(f"Error response from daemon: {error.message}", file=sys.stderr)
        return 1
    except BoxshipError as error:
        print(f"boxship: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130


def run(words: list[str], headers: dict[str, str] | None = None) -> int:
    parsed = parse(FLAGS, words, interspersed=False)
    if parsed.config:
        os.environ["DOCKER_CONFIG"] = parsed.config
    if parsed.version:
        from boxship import __version__

        print(f"Boxship version {__version__}")
        return 0
    if not parsed.args or parsed.help or parsed.args[0] == "help":
        if parsed.args[1:]:
            print(load(parsed.args[1]).describe("boxship"), end="")
            return 0
        print(usage(), end="")
        return 0
    name, *rest = parsed.args
    if name in GROUPS:
        if not rest or rest[0] not in GROUPS[name]:
            what = f"'{rest[0]}' is not a command of {name}" if rest else f"'boxship {name}' needs a command"
            raise UsageError(f"{what}: one of {', '.join(sorted(set(GROUPS[name])))}", 1)
        kind = name
        name, rest = GROUPS[name][rest[0]], rest[1:]
        if name == "inspect":
            rest = [f"--type={kind}", *rest]
    command = load(name)
    if rest[:1] in (["--help"], ["-h"]) and not isinstance(command, Program):
        print(command.describe("boxship"), end="")
        return 0
    try:
        options = command.parse(rest, "boxship")
    except UsageError as error:
        raise UsageError(
            f"{error.message}\n\n{command.synopsis('boxship')}\n\nRun 'boxship {name} --help' for more information",
            error.exit_code,
            named=error.named,
        ) from None
    hosts = parsed.host
    if len(hosts) > 1:
        raise UsageError("specify only one -H")
    address, named = find(hosts[0] if hosts else "", parsed.context)
    context = Context(Client(address, headers), "boxship")
    if command.local:
        return command.do(context, options)
    try:
        return command.do(context, options)
    except Unavailable:
        if named:
            raise
    from .background import start_engine

    start_engine(address)
    return command.do(context, options)
