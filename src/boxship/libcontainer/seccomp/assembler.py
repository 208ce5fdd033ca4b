"""The handful of classic BPF instructions that seccomp filters are made of (linux/bpf_common.h, linux/filter.h)."""

from _struct import Struct

LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS: accumulator = word at offset k of struct seccomp_data
AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
JA = 0x05  # BPF_JMP | BPF_JA: skip k instructions
JEQ = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JGT = 0x25
JGE = 0x35
JSET = 0x45
RET = 0x06  # BPF_RET | BPF_K


class Instruction:
    """One struct sock_filter.

    ``true`` and ``false`` are labels that a block resolves into ``skip_true`` and ``skip_false``, the number of
    instructions (0 to 255) that a conditional jump skips either way.
    """

    __slots__ = ("code", "false", "k", "skip_false", "skip_true", "true")

    def __init__(
        self, code: int, k: int, true: str = "", false: str = "", *, skip_true: int = 0, skip_false: int = 0
    ) -> None:
        self.code = code
        self.k = k
        self.true = true
        self.false = false
        self.skip_true = skip_true
        self.skip_false = skip_false


_packed = Struct("<HBBI").pack


def pack(code: "list[Instruction]") -> bytes:
    """The bytes that seccomp(2) takes."""
    return b"".join([_packed(each.code, each.skip_true, each.skip_false, each.k) for each in code])


def disassemble(program: bytes) -> "list[tuple[int, int, int, int]]":
    """``(code, skip when true, skip when false, k)`` of each instruction."""
    return list(Struct("<HBBI").iter_unpack(program))


def run(program: bytes, nr: int, arch: int, args: "tuple[int, ...]" = ()) -> int:
    """What the kernel would answer: for `explain` and for tests."""
    data = Struct("<IIQ6Q").pack(nr, arch, 0, *(tuple(args) + (0,) * 6)[:6])
    code = disassemble(program)
    at, accumulator = 0, 0
    while True:
        operation, skip_true, skip_false, k = code[at]
        at += 1
        if operation == LOAD:
            accumulator = int.from_bytes(data[k : k + 4], "little")
        elif operation == AND:
            accumulator &= k
        elif operation == JA:
            at += k
        elif operation == RET:
            return k
        else:
            holds = {
                JEQ: accumulator == k,
                JGT: accumulator > k,
                JGE: accumulator >= k,
                JSET: bool(accumulator & k),
            }[operation]
            at += skip_true if holds else skip_false
