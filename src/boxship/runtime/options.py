"""The flags of every verb, declared once, and the parser for them.

As runc's: ``-name`` and ``--name`` are the same, a value follows as ``=value`` or as the next argument, flags end
at the first operand (so a command's own flags are not ours).
"""

from boxship.errors import InvalidArgument

BOOL, TEXT, NUMBER, LIST = "bool", "text", "number", "list"

# name: (short name, kind, help)
GLOBAL = {
    "debug": ("", BOOL, "log more"),
    "log": ("", TEXT, "write errors to this file too"),
    "log-format": ("", TEXT, "text or json"),
    "root": ("", TEXT, "directory for the state of containers"),
    "criu": ("", TEXT, "accepted for compatibility"),
    "systemd-cgroup": ("", BOOL, "cgroupsPath is slice:prefix:name"),
    "cgroup-manager": ("", TEXT, "cgroupfs, systemd or disabled"),
    "rootless": ("", TEXT, "true, false or auto"),
    "help": ("h", BOOL, "show this help"),
    "version": ("v", BOOL, "show the version"),
}
_CREATE = {
    "bundle": ("b", TEXT, "directory with config.json (default: the working directory)"),
    "config": ("f", TEXT, "another file than the bundle's config.json (as crun has it)"),
    "console-socket": ("", TEXT, "unix socket that the terminal's master is sent to"),
    "pidfd-socket": ("", TEXT, "unix socket that a pidfd of init is sent to"),
    "pid-file": ("", TEXT, "write init's pid to this file"),
    "no-pivot": ("", BOOL, "use MS_MOVE and chroot instead of pivot_root"),
    "no-new-keyring": ("", BOOL, "keep the session keyring"),
    "preserve-fds": ("", NUMBER, "hand descriptors 3 to 2+N on to the container"),
}
VERBS: "dict[str, tuple[str, dict[str, tuple[str, str, str]], str]]" = {
    "create": ("ID", _CREATE, "create a container"),
    "run": (
        "ID",
        {
            **_CREATE,
            "detach": ("d", BOOL, "do not wait for the container"),
            "keep": ("", BOOL, "do not delete the container after it ended"),
            "no-subreaper": ("", BOOL, "accepted for compatibility"),
        },
        "create, start, wait for and delete a container",
    ),
    "start": ("ID", {}, "start a created container"),
    "state": ("ID", {}, "print a container's state as JSON"),
    "kill": ("ID [SIGNAL]", {"all": ("a", BOOL, "signal every process of the container")}, "send a signal (TERM)"),
    "delete": ("ID", {"force": ("f", BOOL, "kill it first; no error when it does not exist")}, "delete a container"),
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
            "cgroup": ("", LIST, "accepted for compatibility"),
            "ignore-paused": ("", BOOL, "do not refuse a paused container"),
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
            "kernel-memory": ("", TEXT, "accepted for compatibility"),
            "kernel-memory-tcp": ("", TEXT, "accepted for compatibility"),
            "pids-limit": ("", NUMBER, "highest number of processes"),
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
    "features": ("", {}, "print what this runtime can do as JSON"),
    "explain": ("BUNDLE", {"bundle": ("b", TEXT, "the same as the operand")}, "print the plan as system calls"),
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


def parse(table: "dict[str, tuple[str, str, str]]", argv: "list[str]", where: str) -> Parsed:
    """Flags up to the first operand; the rest are operands. Raises InvalidArgument naming the flag."""
    parsed = Parsed()
    shorts = {short: name for name, (short, _, _) in table.items() if short}
    at = 0
    while at < len(argv):
        word = argv[at]
        if word == "--":
            at += 1
            break
        if not word.startswith("-") or word == "-":
            break
        name, equals, value = word.lstrip("-").partition("=")
        name = shorts.get(name, name)
        at += 1
        if name not in table:
            raise InvalidArgument(f"{where}: flag provided but not defined: {word.partition('=')[0]}")
        kind = table[name][1]
        if kind == BOOL:
            parsed.flags[name] = value.lower() not in ("false", "0", "f") if equals else True
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
                raise InvalidArgument(f"{where}: invalid value {value!r} for flag {word}: not a number") from error
        else:
            parsed.flags[name] = value
    parsed.operands = argv[at:]
    return parsed


def usage(verb: str = "") -> str:
    """The help text of one verb, or of the program."""
    if verb:
        operands, table, text = VERBS[verb]
        head = f"boxship-runc {verb} [flags] {operands}\n\n{text}\n\nflags:\n"
        return head + _flags(table)
    verbs = "".join(f"  {name:<10} {text}\n" for name, (_, _, text) in VERBS.items())
    return (
        "boxship-runc [global flags] VERB [flags] [operands]\n\nan OCI runtime, compatible with runc\n\nverbs:\n"
        f"{verbs}\nglobal flags:\n{_flags(GLOBAL)}"
    )


def _flags(table: "dict[str, tuple[str, str, str]]") -> str:
    lines = []
    for name, (short, kind, text) in table.items():
        spelled = f"--{name}" + (f", -{short}" if short else "") + ("" if kind == BOOL else " " + kind.upper())
        lines.append(f"  {spelled:<32} {text}\n")
    return "".join(lines)
