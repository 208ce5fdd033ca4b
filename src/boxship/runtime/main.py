"""Parse, dispatch, report: the whole of a ``boxship-runc`` run, seen from above."""

import os
import sys

from boxship.errors import BoxshipError, InvalidArgument

from .options import GLOBAL, VERBS, Parsed, parse, usage
from .report import Log

SPEC_VERSION = "1.2.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Call:
    """One invocation: the global settings and the verb's own flags."""

    __slots__ = ("cgroup_manager", "log", "options", "root")

    def __init__(self, root: str, log: Log, options: Parsed, cgroup_manager: str) -> None:
        self.root = root
        self.log = log
        self.options = options
        self.cgroup_manager = cgroup_manager

    def id(self) -> str:
        """The container's id: the first operand."""
        if not self.options.operands:
            raise InvalidArgument("the container's id is missing")
        return self.options.operands[0]


def default_root() -> str:
    """Where state is kept: /run for root, the user's runtime directory for others."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return "/run/boxship/runc" if os.geteuid() == 0 or not runtime else runtime + "/boxship/runc"


def _version() -> str:
    from .version import version

    return f"boxship-runc version {version()}\nspec: {SPEC_VERSION}\n"


def _handler(verb: str) -> "Callable[[Call], int]":
    """A verb's function; only its own module is imported."""
    module = __import__(f"boxship.runtime.commands.{verb}", fromlist=["run"])
    function: Callable[[Call], int] = module.run
    return function


def main(argv: "list[str]") -> int:
    """Run one command line; the exit code."""
    log = Log("", "text", False)
    try:
        options = parse(GLOBAL, argv, "boxship-runc")
        log = Log(options.text("log"), options.text("log-format", "text"), options.flag("debug"))
        if log.format not in ("text", "json"):
            raise InvalidArgument(f"--log-format {log.format!r}: must be text or json")
        if options.flag("version"):
            print(_version(), end="")
            return 0
        if options.flag("help") or not options.operands or options.operands[0] == "help":
            print(usage(), end="")
            return 0
        verb, rest = options.operands[0], options.operands[1:]
        if verb not in VERBS:
            raise InvalidArgument(f"unknown verb {verb!r}", remedy="see boxship-runc --help")
        flags = parse({**VERBS[verb][1], "help": GLOBAL["help"]}, rest, f"boxship-runc {verb}")
        if flags.flag("help"):
            print(usage(verb), end="")
            return 0
        # Without root there is no cgroup to make, unless somebody says that one was delegated.
        manager = options.text("cgroup-manager") or ("cgroupfs" if os.geteuid() == 0 else "disabled")
        manager = "none" if manager == "disabled" else "cgroupfs"
        call = Call(os.path.abspath(options.text("root") or default_root()), log, flags, manager)
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
