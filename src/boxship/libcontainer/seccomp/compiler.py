"""From a seccomp profile to a BPF program.

The kernel runs the program for every call (and once for every call number at load time, to learn which need
no run), so what counts is how many instructions a call takes.
Calls are numbers, neighbours mostly share an answer: the numbers are cut into ranges of equal answer, and a
binary search over the ranges (search.py) finds a call's in about eight comparisons.
Calls with rules on arguments get a range of their own, ending in the tests of those rules.

The answers equal libseccomp's for the same rules, which a test checks by running both programs over every call
number and the edges of every argument rule.
What runc adds is here too: rules that test one argument twice are alternatives, and calls that are newer than
every call the profile knows get ENOSYS (so that a C library falls back) unless the default lets them through.

seccomp(2), linux/seccomp.h, linux/bpf_common.h; runtime-spec config-linux.md, Seccomp.
"""

from boxship.errors import InvalidArgument
from boxship.linux.abi.syscalls import ARCHITECTURES, ARM_PRIVATE, X32_BIT, numbers

from .assembler import AND, JA, JEQ, JGE, JGT, JSET, LOAD, RET, Instruction, pack
from .cache import Filter, native_architecture
from .search import GO_ON, REACH, Code, TooFar, search

ENOSYS = 38

# runtime-spec, config-linux.md, Seccomp. Those that no process of this machine can be of need no code.
KNOWN_ARCHITECTURES = (
    "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X "
    "PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB"
).split()

# SECCOMP_RET_*: linux/seccomp.h.  The low half carries an errno or a tracer's message.
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
}
WITH_DATA = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
FLAGS = {  # SECCOMP_FILTER_FLAG_*
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
NEW_LISTENER = 8  # SECCOMP_FILTER_FLAG_NEW_LISTENER
OPERATORS = (
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ",
)  # fmt: skip

# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]
NR, ARCH, ARGS = 0, 4, 16
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Condition = tuple[int, str, int, int]  # argument index, operator, value, second value
    Rule = tuple[int, tuple[Condition, ...]]  # what to return when all conditions hold


def _action(name: object, errno: object, where: str) -> int:
    if not isinstance(name, str) or name not in ACTIONS:
        raise InvalidArgument(f"{where}: unknown action {name!r}", remedy="one of " + ", ".join(ACTIONS))
    value = ACTIONS[name]
    if name in WITH_DATA:
        if errno is None:
            errno = 1  # EPERM, the runtime-spec's default
        if isinstance(errno, bool) or not isinstance(errno, int) or not 0 <= errno <= 0xFFFF:
            raise InvalidArgument(f"{where}: errnoRet must be 0 to 65535, not {errno!r}")
        value |= errno
    elif errno:
        raise InvalidArgument(f"{where}: errnoRet goes with ERRNO and TRACE, not with {name}")
    return value


def _condition(raw: object, where: str) -> "Condition":
    if not isinstance(raw, dict):
        raise InvalidArgument(f"{where} must be an object")
    values = []
    for key in ("index", "value", "valueTwo"):
        value = raw.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
            raise InvalidArgument(f"{where}.{key} must be a whole number from 0 to 2^64-1, not {value!r}")
        values.append(value)
    if values[0] > 5:
        raise InvalidArgument(f"{where}.index must be 0 to 5, not {values[0]}")
    operator = raw.get("op")
    if operator not in OPERATORS:
        raise InvalidArgument(f"{where}.op: unknown operator {operator!r}", remedy="one of " + ", ".join(OPERATORS))
    return (values[0], operator, values[1], values[2])


def _rules(profile: "dict[str, object]", default: int) -> "dict[str, list[Rule]]":
    """Each call's rules in the order of the profile; a rule without conditions answers for the call alone."""
    found: dict[str, list[Rule]] = {}
    entries = profile.get("syscalls")
    if entries is None:
        entries = []
    if not isinstance(entries, list):
        raise InvalidArgument("linux.seccomp.syscalls must be an array")
    for index, entry in enumerate(entries):
        where = f"linux.seccomp.syscalls[{index}]"
        names = entry.get("names") if isinstance(entry, dict) else None
        if not isinstance(names, list) or not names:
            raise InvalidArgument(f"{where}.names must be a non-empty array of system call names")
        action = _action(entry.get("action"), entry.get("errnoRet"), where)
        if action == default:
            continue  # says nothing new
        conditions = [
            _condition(raw, f"{where}.args[{number}]") for number, raw in enumerate(entry.get("args") or [])
        ]
        indices = [condition[0] for condition in conditions]
        alternatives: list[tuple[Condition, ...]]
        if len(set(indices)) < len(indices):
            alternatives = [(condition,) for condition in conditions]
        else:
            alternatives = [tuple(conditions)]
        for name in names:
            rules = found.setdefault(name, [])
            if rules and not rules[0][1]:
                continue  # the call has its answer already
            for alternative in alternatives:
                if not alternative:
                    rules.clear()
                rules.append((action, alternative))
    return found


def _test(condition: "Condition") -> "list[Instruction]":
    """Instructions that fall through when the condition holds and jump to the label ``next`` when not.

    Arguments are 64 bits, the machine compares 32: high halves first (little-endian layout of struct
    seccomp_data; every architecture of ARCHITECTURES is little-endian).
    """
    index, operator, value, second = condition
    low_at, high_at = ARGS + 8 * index, ARGS + 8 * index + 4
    high, low = value >> 32, value & 0xFFFFFFFF
    load_high, load_low = Instruction(LOAD, high_at), Instruction(LOAD, low_at)
    if operator == "SCMP_CMP_EQ":
        return [load_high, Instruction(JEQ, high, "", "next"), load_low, Instruction(JEQ, low, "", "next")]
    if operator == "SCMP_CMP_NE":
        return [load_high, Instruction(JEQ, high, "", "holds"), load_low, Instruction(JEQ, low, "next", "holds")]
    if operator == "SCMP_CMP_MASKED_EQ":
        wanted_high, wanted_low = second >> 32, second & 0xFFFFFFFF
        return [
            load_high, Instruction(AND, high), Instruction(JEQ, wanted_high, "", "next"),
            load_low, Instruction(AND, low), Instruction(JEQ, wanted_low, "", "next"),
        ]  # fmt: skip
    # GT and GE hold at once when the high half is greater; LT and LE are their opposites.
    greater = JGT if operator in ("SCMP_CMP_GT", "SCMP_CMP_LE") else JGE
    holds, fails = ("holds", "next") if operator in ("SCMP_CMP_GT", "SCMP_CMP_GE") else ("next", "holds")
    return [
        load_high,
        Instruction(JGT, high, holds, ""),
        Instruction(JEQ, high, "", fails),
        load_low,
        Instruction(greater, low, holds, fails),
    ]


def _leaf(rules: "tuple[Rule, ...]", default: int) -> "list[Instruction]":
    """The end of a search: the answer of one range of calls."""
    code: list[Instruction] = []
    for action, conditions in rules:
        block: list[Instruction] = []
        tests = [_test(condition) for condition in conditions]
        size = sum(map(len, tests)) + 1  # and the return
        at = 0
        for test in tests:
            end = at + len(test)
            for offset, instruction in enumerate(test):
                here = at + offset + 1
                labels = {"": here, "holds": end, "next": size}
                block.append(
                    Instruction(
                        instruction.code,
                        instruction.k,
                        skip_true=labels[instruction.true] - here,
                        skip_false=labels[instruction.false] - here,
                    )
                    if instruction.code in (JEQ, JGT, JGE, JSET)
                    else instruction
                )
            at = end
        code += block
        code.append(Instruction(RET, action))
        if not conditions:
            return code
    code.append(Instruction(RET, default))
    return code


def _answers(rules: "dict[str, list[Rule]]", architecture: str, newest: bool) -> "list[tuple[int, tuple[Rule, ...]]]":
    """The calls of one architecture as ranges of equal answer: first number and rules, without X32_BIT."""
    known = numbers(architecture)
    answers: dict[int, tuple[Rule, ...]] = {
        known[name]: tuple(call_rules) for name, call_rules in rules.items() if name in known
    }
    cuts: list[tuple[int, tuple[Rule, ...]]] = []
    position = 0

    def cut(at: int, answer: "tuple[Rule, ...]") -> None:
        if not cuts or answer != cuts[-1][1]:
            cuts.append((at, answer))

    usual = sorted(number for number in answers if number < ARM_PRIVATE)
    for number in usual:
        if number > position:
            cut(position, ())
        cut(number, answers[number])
        position = number + 1
    if newest and answers:
        cut(position, ((ACTIONS["SCMP_ACT_ERRNO"] | ENOSYS, ()),))
    else:
        cut(position, ())
    if architecture == "SCMP_ARCH_ARM":
        cut(ARM_PRIVATE, ())
        for number in sorted(answers.keys() - set(usual)):
            if number > position:
                cut(max(position, ARM_PRIVATE), ())
            cut(number, answers[number])
            position = number + 1
        cut(max(position, ARM_PRIVATE), ())
    return cuts


class _Leaves:
    """The code of each answer, one object for equal ones."""

    def __init__(self, default: int) -> None:
        self._default = default
        self._known: dict[tuple[Rule, ...], Code] = {}

    def __call__(self, answer: "tuple[Rule, ...]") -> Code:
        if answer not in self._known:
            self._known[answer] = _leaf(answer, self._default)
        return self._known[answer]


def _section(ranges: "list[tuple[int, tuple[Rule, ...]]]", default: int) -> Code:
    leaves = _Leaves(default)
    return search([(first, leaves(answer)) for first, answer in ranges])


def _x86_64(
    plain: "list[tuple[int, tuple[Rule, ...]]]", x32: "list[tuple[int, tuple[Rule, ...]]] | None", default: int
) -> Code:
    """x32 shares the architecture's name and most of its numbers, with one bit set: only what differs is searched
    for, and what does not goes on to the other's search."""
    rest = _section(plain, default)
    if x32 is None:
        own: Code = [Instruction(RET, ACTIONS["SCMP_ACT_KILL"])]
    else:
        leaves = _Leaves(default)
        different: list[tuple[int, Code]] = []
        for first, one, other in _side_by_side(x32, plain):
            answer = GO_ON if one == other else leaves(one)
            if not different or different[-1][1] is not answer:
                different.append((first, answer))
        try:
            own = [Instruction(AND, X32_BIT - 1), *search(different)]
        except TooFar:
            own = [Instruction(AND, X32_BIT - 1), *_section(x32, default)]
    return [*_unless(JGE, X32_BIT, own), *rest]


def _side_by_side(
    one: "list[tuple[int, tuple[Rule, ...]]]", other: "list[tuple[int, tuple[Rule, ...]]]"
) -> "Iterator[tuple[int, tuple[Rule, ...], tuple[Rule, ...]]]":
    """Where either has a new answer: the number, and both answers from there on."""
    left, right = dict(one), dict(other)
    here: tuple[Rule, ...] = ()
    there: tuple[Rule, ...] = ()
    for first in sorted(left.keys() | right.keys()):
        here, there = left.get(first, here), right.get(first, there)
        yield first, here, there


def _unless(code: int, k: int, section: Code) -> Code:
    """``section`` where the comparison holds; otherwise what follows."""
    if len(section) <= REACH:
        return [Instruction(code, k, skip_false=len(section)), *section]
    return [Instruction(code, k, skip_true=1), Instruction(JA, len(section)), *section]


def check_names(profile: "dict[str, object]") -> None:
    """Raise InvalidArgument for the first name in a profile that no architecture here has."""
    known = set().union(*(numbers(architecture) for architecture in ARCHITECTURES))
    entries: list[dict[str, list[str]]] = profile.get("syscalls") or []  # type: ignore[assignment]  # see assemble
    for index, entry in enumerate(entries):
        for name in entry.get("names") or []:
            if name not in known:
                raise InvalidArgument(f"linux.seccomp.syscalls[{index}].names: {name!r} is no system call")


def assemble(profile: "dict[str, object]", native: str = "") -> Filter:
    """Compile ``linux.seccomp`` for the host's architecture and those that the profile lists.

    ``native`` is the host's SCMP_ARCH_* (found by uname(2) when ""), which is always included, as libseccomp does.
    Calls of any other architecture end the process.
    Raises InvalidArgument with the JSON path of what is wrong.
    """
    default = _action(profile.get("defaultAction"), profile.get("defaultErrnoRet"), "linux.seccomp.defaultAction")
    rules = _rules(profile, default)
    listed = profile.get("architectures") or []
    if not isinstance(listed, list):
        raise InvalidArgument("linux.seccomp.architectures must be an array")
    architectures = [native or native_architecture()]
    for name in listed:
        if not isinstance(name, str) or name.removeprefix("SCMP_ARCH_") not in KNOWN_ARCHITECTURES:
            remedy = "one of " + ", ".join(f"SCMP_ARCH_{known}" for known in KNOWN_ARCHITECTURES)
            raise InvalidArgument(f"linux.seccomp.architectures: unknown {name!r}", remedy=remedy)
        if name == "SCMP_ARCH_ARM" and architectures[0] != "SCMP_ARCH_AARCH64":
            continue
        if name in ARCHITECTURES and name not in architectures:
            architectures.append(name)
    # A profile that says nothing about flags gets none of the costly mitigations of its own (as runc has it).
    flags = FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"] if profile.get("flags") is None else 0
    for flag in profile.get("flags") or []:  # type: ignore[attr-defined]  # a non-array fails just below
        if flag not in FLAGS:
            raise InvalidArgument(f"linux.seccomp.flags: unknown flag {flag!r}", remedy="one of " + ", ".join(FLAGS))
        flags |= FLAGS[flag]
    # There are no threads to be synchronised with, and a listener excludes it.
    flags &= ~FLAGS["SECCOMP_FILTER_FLAG_TSYNC"]
    notify = ACTIONS["SCMP_ACT_NOTIFY"]
    if default == notify or any(action == notify for found in rules.values() for action, _ in found):
        for name in ("write",):
            if any(action == notify for action, _ in rules.get(name, [])):
                # Ours could, but such a profile would run nowhere else.
                raise InvalidArgument(f"linux.seccomp: SCMP_ACT_NOTIFY cannot be used for the {name} syscall")
        if not profile.get("listenerPath"):
            raise InvalidArgument("linux.seccomp: SCMP_ACT_NOTIFY needs linux.seccomp.listenerPath")
        flags |= NEW_LISTENER
    elif flags & FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]:
        flags &= ~FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]  # the kernel refuses it without a listener
    if profile.get("listenerMetadata") and not profile.get("listenerPath"):
        raise InvalidArgument("linux.seccomp.listenerMetadata is set, but linux.seccomp.listenerPath is not")
    newest = default & 0x7FFF0000 not in (ACTIONS["SCMP_ACT_ALLOW"], ACTIONS["SCMP_ACT_LOG"])
    code: Code = [Instruction(RET, ACTIONS["SCMP_ACT_KILL"])]
    sections: dict[int, list[str]] = {}
    for name in architectures:
        sections.setdefault(ARCHITECTURES[name][0], []).append(name)
    for audit, names in reversed(sections.items()):
        ranges = {name: _answers(rules, name, newest) for name in names}
        plain = ranges.get("SCMP_ARCH_X86_64")
        if audit != ARCHITECTURES["SCMP_ARCH_X86_64"][0]:
            section = _section(ranges[names[0]], default)
        elif plain is not None:
            section = _x86_64(plain, ranges.get("SCMP_ARCH_X32"), default)
        else:  # x32 alone
            refuse = [Instruction(JGE, X32_BIT, skip_true=1), Instruction(RET, ACTIONS["SCMP_ACT_KILL"])]
            section = [*refuse, Instruction(AND, X32_BIT - 1), *_section(ranges["SCMP_ARCH_X32"], default)]
        code = [*_unless(JEQ, audit, [Instruction(LOAD, NR), *section]), *code]
    code.insert(0, Instruction(LOAD, ARCH))
    if len(code) > MAX_INSTRUCTIONS:
        raise InvalidArgument(
            f"linux.seccomp: the profile needs {len(code)} BPF instructions, the kernel takes {MAX_INSTRUCTIONS}",
            remedy="use fewer rules on arguments",
        )
    return Filter(pack(code), flags)
