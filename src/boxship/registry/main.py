"""``boxship registry``: serve a registry, or collect its garbage."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from boxship.errors import BoxshipError
from boxship.flags import Flag, Parsed, UsageError, describe, parse

PROGRAM = "boxship registry"
GC_AGE = "24h"
LEAST_AGE = 600.0
"""Seconds for which content is left alone while the registry is served: between a blob and its manifest."""
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, slots=True)
class Verb:
    help: str
    do: Callable[[str, Parsed], int]
    flags: tuple[Flag, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when done (or after a signal), 1 when it could not be, 2 for a wrong command line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            print(usage())
            return 0 if words else 2
        verb = VERBS.get(words[0])
        if verb is None:
            raise UsageError(f"{words[0]!r} is not one of {', '.join(VERBS)}")
        flags = (*verb.flags, Flag("help", "h", "bool", "Print usage"))
        options = parse(flags, words[1:])
        if options.help:
            print(f"{verb.help}\n\nUsage:\n  {PROGRAM} {words[0]} [OPTIONS] DIR\n\nFlags:\n{describe(flags)}")
            return 0
        if len(options.args) != 1:
            raise UsageError(f"{words[0]} wants exactly one directory, got {len(options.args)}")
        return verb.do(options.args[0], options)
    except UsageError as error:
        print(f"{PROGRAM}: {error}\nSee '{PROGRAM} --help'.", file=sys.stderr)
        return 2
    except BoxshipError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1


def usage() -> str:
    lines = [f"Usage:  {PROGRAM} COMMAND\n", "A registry of images (OCI distribution-spec 1.1)\n", "Commands:"]
    lines += [f"  {name:<6} {verb.help}" for name, verb in VERBS.items()]
    return "\n".join([*lines, "", f"Run '{PROGRAM} COMMAND --help' for more information on a command."])


def _serve(root: str, options: Parsed) -> int:
    from .routes import Limits
    from .server import Collecting, Settings, serve

    if options.tls_key and not options.tls_cert:
        raise UsageError("--tls-key needs --tls-cert")
    if options.anonymous_pull and not options.htpasswd:
        raise UsageError("--anonymous-pull needs --htpasswd: without it everybody may do everything")
    collecting = None
    if options.gc_every:
        every, age = _seconds(options.gc_every, "--gc-every"), _seconds(options.gc_older_than, "--gc-older-than")
        if every < 1 or age < LEAST_AGE:
            raise UsageError("--gc-every is at least 1s, --gc-older-than 10m: a push may take that long")
        collecting = Collecting(every, age, options.gc_untagged)
    elif options.gc_untagged or options.gc_older_than != GC_AGE:
        raise UsageError("--gc-untagged and --gc-older-than need --gc-every")
    level = options.log_level.upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise UsageError(f"--log-level {options.log_level!r} is not one of debug, info, warning, error")
    settings = Settings(
        root, options.listen, options.tls_cert, options.tls_key, options.htpasswd,
        options.anonymous_pull, options.sparse, Limits(_size(options.max_upload), options.read_only),
        collecting,
    )  # fmt: skip
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(settings))
    else:
        uvloop.run(serve(settings))
    return 0


def _collect(root: str, options: Parsed) -> int:
    from .collect import collect
    from .registry import Registry

    age = _seconds(options.older_than, "--older-than")
    _must_be_registry(root)
    registry = Registry(root)
    try:
        gone = collect(registry, age=age, untagged=options.untagged, dry=options.dry_run)
    finally:
        registry.close()
    would = "would remove" if options.dry_run else "removed"
    print(f"{would} {gone.manifests} manifests and {gone.blobs} blobs, {gone.freed} bytes")
    return 0


def _must_be_registry(root: str) -> None:
    """To collect is not to make a registry where there is none."""
    import os

    from boxship.errors import NotFound

    if not os.path.exists(os.path.join(root, "registry.db")):
        raise NotFound(f"{root} is not a registry", cause="it has no registry.db")


def _size(text: str) -> int:
    """``512m`` in bytes, "" as 0; raises UsageError."""
    number, unit = text.rstrip("kKmMgGtTbB"), text.lower().removesuffix("b")[-1:]
    if not text:
        return 0
    if not number.isdigit():
        raise UsageError(f"--max-upload {text!r} is not a size such as 10g")
    return int(number) * UNITS["" if unit.isdigit() else unit]


def _seconds(text: str, flag: str) -> float:
    """``90``, ``30m``, ``24h``, ``7d`` in seconds; raises UsageError."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (text[:-1], text[-1:]) if text[-1:] in units else (text, "s")
    if not number.isdigit():
        raise UsageError(f"{flag} {text!r} is not a time such as 24h")
    return float(int(number) * units[unit])


SERVE_FLAGS = (
    Flag("listen", help="Where to listen (default 127.0.0.1:5000)", default="127.0.0.1:5000", value="HOST:PORT"),
    Flag("tls-cert", help="Certificate (chain) to serve https with", value="FILE"),
    Flag("tls-key", help="Its key, when it is in a file of its own", value="FILE"),
    Flag("htpasswd", help="Let in only these users (bcrypt, as 'htpasswd -B' writes them)", value="FILE"),
    Flag("anonymous-pull", "", "bool", "Ask for a password only where something is changed"),
    Flag("read-only", "", "bool", "Refuse every change"),
    Flag("sparse", "", "bool", "Take manifests whose content is not (all) there"),
    Flag("max-upload", help="Largest blob that is taken, such as 10g", value="SIZE"),
    Flag("gc-every", help="Collect garbage while serving, so often (default: never)", value="TIME"),
    Flag(
        "gc-older-than",
        help="With --gc-every: leave what came or was asked for since (default 24h)",
        default=GC_AGE,
        value="TIME",
    ),
    Flag("gc-untagged", "", "bool", "With --gc-every: remove manifests without a tag, too"),
    Flag("log-level", help="debug, info, warning or error", default="info", value="LEVEL"),
)
GC_FLAGS = (
    Flag("older-than", help="Leave what came since then (default 24h)", default="24h", value="TIME"),
    Flag("untagged", "", "bool", "Remove manifests without a tag, too"),
    Flag("dry-run", "n", "bool", "Only say what would be removed"),
)
VERBS = {
    "serve": Verb("Serve the registry in DIR, in the foreground", _serve, SERVE_FLAGS),
    "gc": Verb("Remove blobs that no manifest needs (while DIR is not served)", _collect, GC_FLAGS),
}
