"""The help texts, in the sections that runc's have, made from the table of flags; read only when asked for."""

from .options import BOOL, GLOBAL, LIST, NUMBER, VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .options import Flags

_VALUES = {NUMBER: " N", LIST: " VALUE [...]"}


def usage(verb: str = "", program: str = "boxship-runc") -> str:
    """The help of one verb, or of the program, which is called by the name ``program``."""
    if verb:
        operands, table, text = VERBS[verb]
        return (
            f"NAME:\n   {program} {verb} - {text}\n\n"
            f"USAGE:\n   {f'{program} [global options] {verb} [options] {operands}'.rstrip()}\n\n"
            f"OPTIONS:\n{_flags({**table, 'help': GLOBAL['help']})}"
        )
    verbs = "".join(f"   {name:<12}{text}\n" for name, (_, _, text) in sorted(VERBS.items()))
    return (
        f"NAME:\n   {program} - Open Container Initiative runtime, in Python, compatible with runc\n\n"
        f"USAGE:\n   {program} [global options] COMMAND [options] [operands]\n\n"
        f"COMMANDS:\n{verbs}\nGLOBAL OPTIONS:\n{_flags(GLOBAL)}"
    )


def _flags(table: "Flags") -> str:
    lines = []
    for name, (short, kind, text) in table.items():
        value = "" if kind == BOOL else _VALUES.get(kind, " TEXT")
        spelled = f"--{name}{value}" + (f", -{short}{value}" if short else "")
        lines.append(f"   {spelled:<40} {text}\n")
    return "".join(lines)
