"""Parse, dispatch, report: the whole of a ``boxship-runc`` run, seen from above."""

import os
import sys

from boxship.errors import BoxshipError, InvalidArgument

from .options import GLOBAL, VERBS, Parsed, check_operands, parse
from .report import Log

SPEC_VERSION = "1.3.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Call:
    """One invocation: the global settings and the verb's own flags."""

    __slots__ = ("as_crun", "cgroup_manager", "criu", "log", "options", "root", "root_given")

    def __init__(self, root: str, log: Log, options: Parsed, cgroup_manager: str, criu: str) -> None:
        self.root = root
        self.log = log
        self.options = options
        self.cgroup_manager = cgroup_manager
        self.criu = criu
        self.root_given = False
        self.as_crun = False  # the command line is crun's

    def id(self) -> str:
        """The container's id: the first operand, which `check_operands` has seen to be there."""
        return self.options.operands[0]


def default_root() -> str:
    """Where state is kept: /run for root, the user's runtime directory for others."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return "/run/boxship/runc" if os.geteuid() == 0 or not runtime else runtime + "/boxship/runc"


def _version() -> str:
    from .version import commit, version

    return f"boxship-runc version {version()}\ncommit: {commit()}\nspec: {SPEC_VERSION}\n"


def _handler(verb: str) -> "Callable[[Call], int]":
    """A verb's function; only its own module is imported."""
    module = __import__(f"boxship.runtime.commands.{verb}", fromlist=["run"])
    function: Callable[[Call], int] = module.run
    return function


def _help(verb: str) -> int:
    from .help import usage

    if verb and verb not in VERBS:
        raise _unknown(verb)
    print(usage(verb), end="")
    return 0


def _unknown(verb: str) -> InvalidArgument:
    error = InvalidArgument(f"No help topic for {verb!r}", remedy="there is no such command, see boxship-runc --help")
    error.cli_exit_code = 3  # type: ignore[attr-defined]  # as runc's command line library ends
    return error


def cgroup_manager(options: Parsed) -> str:
    """The kind of cgroup manager that the global flags ask for. Raises InvalidArgument."""
    rootless = options.text("rootless", "auto")
    if rootless not in ("auto", "true", "false", "1", "0", "t", "f"):
        raise InvalidArgument(f"--rootless {rootless!r}: must be true, false or auto")
    manager = options.text("cgroup-manager")
    if manager not in ("", "cgroupfs", "systemd", "disabled"):
        raise InvalidArgument(f"--cgroup-manager {manager!r}: must be cgroupfs, systemd or disabled")
    if options.flag("systemd-cgroup"):
        manager = manager or "systemd"
    if not manager:
        # Without root there is no cgroup to make, unless somebody says that one was delegated.
        ours = rootless in ("false", "0", "f") or (rootless == "auto" and os.geteuid() == 0)
        manager = "cgroupfs" if ours else "disabled"
    return "none" if manager == "disabled" else manager


def main(argv: "list[str]") -> int:
    """Run one command line; the exit code."""
    log = Log("", "text", False)
    try:
        options = parse(GLOBAL, argv, "boxship-runc")
        log = Log(options.text("log"), options.text("log-format", "text"), options.flag("debug"))
        if log.format not in ("text", "json"):
            raise InvalidArgument(f"--log-format {log.format!r}: must be text or json")
        if log.path and not os.path.isdir(os.path.dirname(log.path) or "."):
            path, log.path = log.path, ""
            raise InvalidArgument(f"--log {path}: no such directory", remedy="make it, or name another file")
        if options.flag("version"):
            print(_version(), end="")
            return 0
        verb, rest = (options.operands or ["help"])[0], options.operands[1:]
        if options.flag("help") or verb == "help":
            return _help(rest[0] if verb == "help" and rest else "")
        if verb not in VERBS:
            raise _unknown(verb)
        flags = parse({**VERBS[verb][1], "help": GLOBAL["help"]}, rest, f"boxship-runc {verb}", verb)
        if flags.flag("help"):
            return _help(verb)
        check_operands(verb, flags.operands)
        call = Call(
            os.path.abspath(options.text("root") or default_root()),
            log,
            flags,
            cgroup_manager(options),
            options.text("criu"),
        )
        call.root_given = bool(options.text("root"))
        call.as_crun = bool(options.text("cgroup-manager"))
        if "BOXSHIP_RECLAIM" in os.environ:
            from .reclaim import reclaim

            reclaim(verb, flags, call.root)
        return _handler(verb)(call)
    except BoxshipError as error:
        log.error(str(error))
        return getattr(error, "cli_exit_code", 1)
    except BrokenPipeError:
        return 1
    except OSError as error:
        log.error(f"{error.filename or 'system call'}: {error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            os._exit(1)  # nobody reads what we print; the interpreter would only complain about it again
