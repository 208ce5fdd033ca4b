"""The flags of every verb, declared once, and the parser for them.

As runc's: ``-name`` and ``--name`` are the same, a value follows as ``=value`` or as the next argument.
Flags may also follow the operands, except where what follows belongs to somebody else: exec's command, ps's options,
kill's signal.
"""

from boxship.errors import InvalidArgument

BOOL, TEXT, NUMBER, LIST = "bool", "text", "number", "list"

TYPE_CHECKING = False
if TYPE_CHECKING:
    # name: (short name, kind, help)
    Flags = dict[str, tuple[str, str, str]]

GLOBAL: "Flags" = {
    "debug": ("", BOOL, "log more"),
    "log": ("", TEXT, "write errors to this file too"),
    "log-format": ("", TEXT, "text (default) or json"),
    "root": ("", TEXT, "directory for the state of containers"),
    "criu": ("", TEXT, "path of the criu program (default: the first in PATH)"),
    "systemd-cgroup": ("", BOOL, "make cgroups by systemd; cgroupsPath is slice:prefix:name"),
    "cgroup-manager": ("", TEXT, "cgroupfs, systemd or disabled"),
    "rootless": ("", TEXT, "ignore missing permissions for cgroups: true, false or auto (default)"),
    "help": ("h", BOOL, "show this help"),
    "version": ("v", BOOL, "show the version"),
}
_CREATE: "Flags" = {
    "bundle": ("b", TEXT, "directory with config.json (default: the working directory)"),
    "config": ("f", TEXT, "another file instead of config.json"),
    "console-socket": ("", TEXT, "unix socket that the terminal's master is sent to"),
    "pidfd-socket": ("", TEXT, "unix socket that a pidfd of init is sent to"),
    "pid-file": ("", TEXT, "write init's pid to this file"),
    "no-pivot": ("", BOOL, "use MS_MOVE and chroot instead of pivot_root"),
    "no-new-keyring": ("", BOOL, "keep the session keyring"),
    "preserve-fds": ("", NUMBER, "hand descriptors 3 to 2+N on to the container"),
}
_RUN: "Flags" = {
    "detach": ("d", BOOL, "do not wait for the container"),
    "keep": ("", BOOL, "do not delete the container after it ended"),
    "no-subreaper": ("", BOOL, "accepted: orphans of a container are never adopted by us"),
}
# What checkpoint and restore have in common; both hand them on to CRIU.
_CRIU: "Flags" = {
    "image-path": ("", TEXT, "directory for the images (default: ./checkpoint)"),
    "work-path": ("", TEXT, "directory for CRIU's logs and work files (default: the state directory)"),
    "tcp-established": ("", BOOL, "allow open TCP connections"),
    "ext-unix-sk": ("", BOOL, "allow connections to unix sockets of the outside"),
    "shell-job": ("", BOOL, "allow a terminal that the outside holds"),
    "lazy-pages": ("", BOOL, "move memory only when it is used, by userfaultfd(2)"),
    "file-locks": ("", BOOL, "keep file locks"),
    "manage-cgroups-mode": ("", TEXT, "soft (default), full, strict or ignore"),
    "empty-ns": ("", LIST, "namespace whose properties are not kept (network)"),
    "auto-dedup": ("", BOOL, "drop pages of parent images that newer ones replace"),
}
VERBS: "dict[str, tuple[str, Flags, str]]" = {
    "checkpoint": (
        "ID",
        {
            **_CRIU,
            "parent-path": ("", TEXT, "images of an earlier --pre-dump"),
            "leave-running": ("", BOOL, "let the container go on afterwards"),
            "tcp-skip-in-flight": ("", BOOL, "leave out TCP connections that are being made"),
            "link-remap": ("", BOOL, "link files again that were removed while open"),
            "status-fd": ("", NUMBER, "descriptor that gets a NUL byte once lazy pages can be asked for"),
            "page-server": ("", TEXT, "ADDRESS:PORT of the page server"),
            "pre-dump": ("", BOOL, "write the memory only, and let the container go on"),
        },
        "save a running container to files",
    ),
    "create": ("ID", _CREATE, "create a container"),
    "run": ("ID", {**_CREATE, **_RUN}, "create, start, wait for and delete a container"),
    "restore": (
        "ID",
        {
            **_CRIU,
            **{name: _CREATE[name] for name in ("bundle", "config", "console-socket", "pid-file", "no-pivot")},
            "detach": _RUN["detach"],
            "no-subreaper": _RUN["no-subreaper"],
            "lsm-profile": ("", TEXT, "TYPE:NAME of the security profile to restore with"),
            "lsm-mount-context": ("", TEXT, "SELinux context for the mounts"),
        },
        "start a container from the files of a checkpoint",
    ),
    "start": ("ID", {}, "start a created container"),
    "state": ("ID", {}, "print a container's state as JSON"),
    "kill": (
        "ID [SIGNAL]",
        {
            "all": ("a", BOOL, "signal every process of the container"),
            "regex": ("r", BOOL, "ID is a regular expression: all containers that it matches"),
        },
        "send a signal (TERM)",
    ),
    "delete": (
        "ID",
        {
            "force": ("f", BOOL, "kill it first; no error when it does not exist"),
            "regex": ("r", BOOL, "ID is a regular expression: all containers that it matches"),
        },
        "delete a container",
    ),
    "exec": (
        "ID COMMAND [ARGUMENTS]",
        {
            "console-socket": _CREATE["console-socket"],
            "pidfd-socket": _CREATE["pidfd-socket"],
            "pid-file": ("", TEXT, "write the process's pid to this file"),
            "cwd": ("", TEXT, "working directory"),
            "env": ("e", LIST, "environment variable NAME=VALUE"),
            "tty": ("t", BOOL, "give it a terminal"),
            "user": ("u", TEXT, "UID[:GID]"),
            "additional-gids": ("g", LIST, "additional group ids"),
            "process": ("p", TEXT, "file with runtime-spec's process as JSON"),
            "detach": ("d", BOOL, "do not wait for it"),
            "process-label": ("", TEXT, "SELinux label"),
            "apparmor": ("", TEXT, "AppArmor profile"),
            "no-new-privs": ("", BOOL, "set no_new_privs"),
            "cap": ("c", LIST, "add a capability"),
            "preserve-fds": _CREATE["preserve-fds"],
            "cgroup": ("", LIST, "[CONTROLLER:]PATH of a cgroup below the container's to run in"),
            "ignore-paused": ("", BOOL, "do not refuse a paused container: it runs once that is resumed"),
        },
        "run a process in a container",
    ),
    "list": (
        "",
        {"format": ("f", TEXT, "table or json"), "quiet": ("q", BOOL, "only ids")},
        "list containers",
    ),
    "ps": ("ID [PS OPTIONS]", {"format": ("f", TEXT, "table or json")}, "list a container's processes"),
    "pause": ("ID", {}, "freeze a container"),
    "resume": ("ID", {}, "let a paused container go on"),
    "update": (
        "ID",
        {
            "resources": ("r", TEXT, "file with linux.resources as JSON, - for standard input"),
            "blkio-weight": ("", NUMBER, "relative block I/O weight"),
            "cpu-period": ("", NUMBER, "CFS period in microseconds"),
            "cpu-quota": ("", NUMBER, "CFS quota in microseconds"),
            "cpu-burst": ("", NUMBER, "CFS burst in microseconds"),
            "cpu-share": ("", NUMBER, "relative CPU weight"),
            "cpu-rt-period": ("", NUMBER, "realtime period in microseconds"),
            "cpu-rt-runtime": ("", NUMBER, "realtime runtime in microseconds"),
            "cpu-idle": ("", NUMBER, "1 for SCHED_IDLE"),
            "cpuset-cpus": ("", TEXT, "CPUs to run on"),
            "cpuset-mems": ("", TEXT, "memory nodes to use"),
            "memory": ("", TEXT, "memory limit in bytes"),
            "memory-reservation": ("", TEXT, "soft limit in bytes"),
            "memory-swap": ("", TEXT, "memory and swap limit in bytes"),
            "kernel-memory": ("", TEXT, "ignored with a warning: the kernel has no such limit any more"),
            "kernel-memory-tcp": ("", TEXT, "ignored with a warning: the kernel has no such limit any more"),
            "pids-limit": ("", NUMBER, "highest number of processes, -1 for no limit"),
            "l3-cache-schema": ("", TEXT, "Intel RDT: the L3 cache schema"),
            "mem-bw-schema": ("", TEXT, "Intel RDT: the memory bandwidth schema"),
        },
        "change a container's limits",
    ),
    "events": (
        "ID",
        {"interval": ("", TEXT, "time between readings (5s)"), "stats": ("", BOOL, "print one reading and end")},
        "print a container's counters as JSON",
    ),
    "serve": (
        "",
        {
            "socket": ("", TEXT, "listen here (and set BOXSHIP_PLAN_SERVER to it where commands are given)"),
            "detach": ("d", BOOL, "return when it can be asked"),
        },
        "keep workers warm, so that this user's commands need no interpreter start",
    ),
    "spec": (
        "",
        {"bundle": ("b", TEXT, "where to write config.json"), "rootless": ("", BOOL, "for a user who is not root")},
        "write a default config.json",
    ),
    "doctor": ("", {"json": ("", BOOL, "print JSON")}, "tell what this host and user can do, and what to change"),
    "features": ("", {}, "print what this runtime can do as JSON"),
    "explain": ("[BUNDLE]", {"bundle": ("b", TEXT, "the same as the operand")}, "print the plan as system calls"),
}


class Parsed:
    """Flags by name (only those given) and the operands."""

    __slots__ = ("flags", "operands")

    def __init__(self) -> None:
        self.flags: dict[str, object] = {}
        self.operands: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        value = self.flags.get(name, default)
        return value if isinstance(value, str) else default

    def flag(self, name: str) -> bool:
        return bool(self.flags.get(name))

    def number(self, name: str, default: int = 0) -> int:
        value = self.flags.get(name, default)
        return value if isinstance(value, int) else default

    def texts(self, name: str) -> "list[str]":
        value = self.flags.get(name)
        return value if isinstance(value, list) else []


def parse(table: "Flags", argv: "list[str]", where: str, verb: str = "") -> Parsed:
    """Flags and operands of a verb, or without one the global flags up to the verb.

    Raises InvalidArgument naming the flag.
    """
    parsed = Parsed()
    shorts = {short: name for name, (short, _, _) in table.items() if short}
    to_the_first = not verb or " " in VERBS[verb][0]  # what follows the id is somebody else's
    at = 0
    while at < len(argv):
        word = argv[at]
        if word == "--":
            at += 1
            break
        if not word.startswith("-") or word == "-":
            if to_the_first:
                break
            parsed.operands.append(word)
            at += 1
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = shorts.get(name, name)
        at += 1
        if name not in table:
            raise InvalidArgument(
                f"{where}: flag provided but not defined: {word.partition('=')[0]}", remedy=f"see {where} --help"
            )
        kind = table[name][1]
        if kind == BOOL:
            if equals and value.lower() not in _TRUTH:
                raise InvalidArgument(f"{where}: invalid value {value!r} for flag --{name}: must be true or false")
            parsed.flags[name] = _TRUTH[value.lower()] if equals else True
            continue
        if not equals:
            if at >= len(argv):
                raise InvalidArgument(f"{where}: flag needs an argument: {word}")
            value = argv[at]
            at += 1
        if kind == LIST:
            parsed.flags[name] = [*parsed.texts(name), value]
        elif kind == NUMBER:
            try:
                parsed.flags[name] = int(value, 0)
            except ValueError as error:
                raise InvalidArgument(f"{where}: invalid value {value!r} for flag --{name}: not a number") from error
        else:
            parsed.flags[name] = value
    parsed.operands += argv[at:]
    return parsed


_TRUTH = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def check_operands(verb: str, operands: "list[str]") -> None:
    """Raises InvalidArgument for too few or too many, by the operands that the table shows."""
    shown = VERBS[verb][0].split()
    least = sum(not word.startswith("[") for word in shown[:1])
    most = len(operands) if len(shown) > 1 else len(shown)
    if least <= len(operands) <= most:
        return
    count = "a minimum of" if len(shown) > 1 else "exactly" if least == most else "at most"
    raise InvalidArgument(
        f'"{verb}" requires {count} {least if len(shown) > 1 else most} argument(s), not {len(operands)}',
        remedy=_expected(verb),
    )


def _expected(verb: str) -> str:
    return f"boxship-runc {verb} [flags] {VERBS[verb][0]}".rstrip()
