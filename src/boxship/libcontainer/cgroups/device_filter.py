"""Device rules on cgroup v2: an eBPF program of the type BPF_PROG_TYPE_CGROUP_DEVICE, attached to the group.

The kernel runs it for each open and mknod of a device (Linux 4.15) with a ``struct bpf_cgroup_dev_ctx``:
``access_type`` (the type in the low 16 bits, the access wanted in the high), ``major``, ``minor``.
It answers 1 to permit.  Programs of a group and of its parents must all permit.

The program is assembled here from ``devices.Rules``: four loads, then one block for each exception, which gives the
opposite of the default when everything that it names fits, then the default.
"""

import os
from errno import EINVAL, EPERM, errorcode
from struct import pack

from boxship.errors import FailedPrecondition

from .devices import ANY, MAKE, READ, WRITE, Rules

# linux/bpf.h: BPF_DEVCG_DEV_*, BPF_DEVCG_ACC_*
TYPES = {"b": 1, "c": 2}
ACCESS = ((MAKE, 1), (READ, 2), (WRITE, 4))
EVERY_ACCESS = 7

# eBPF instructions (kernel: bpf/standardization/instruction-set.rst), 32-bit forms; compare-and-jump needs Linux 5.1.
LOAD_WORD, MOVE, MOVE_REGISTER, AND, SHIFT_RIGHT = 0x61, 0xB4, 0xBC, 0x54, 0x74
JUMP_UNLESS_EQUAL, JUMP_IF_EQUAL, EXIT = 0x56, 0x16, 0x95
RESULT, SCRATCH, TYPE, WANTED, MAJOR, MINOR = 0, 1, 2, 3, 4, 5  # registers; the context comes in SCRATCH


def _instruction(code: int, register: int, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return pack("<BBhI", code, register | source << 4, offset, value & 0xFFFFFFFF)


def _access(bits: int) -> int:
    return sum(theirs for ours, theirs in ACCESS if bits & ours)


def _answer(permitted: bool) -> "list[bytes]":
    return [_instruction(MOVE, RESULT, value=int(permitted)), _instruction(EXIT, 0)]


def assemble(rules: Rules) -> bytes:
    """The program: an array of struct bpf_insn."""
    program = [
        _instruction(LOAD_WORD, TYPE, SCRATCH, 0),
        _instruction(AND, TYPE, value=0xFFFF),
        _instruction(LOAD_WORD, WANTED, SCRATCH, 0),
        _instruction(SHIFT_RIGHT, WANTED, value=16),
        _instruction(LOAD_WORD, MAJOR, SCRATCH, 4),
        _instruction(LOAD_WORD, MINOR, SCRATCH, 8),
    ]
    for (type, major, minor), bits in rules.exceptions.items():
        access = _access(bits)
        # Each test is a pair (instructions before the jump, the jump over the rest of the block).
        tests: list[tuple[list[bytes], int, int, int]] = [([], JUMP_UNLESS_EQUAL, TYPE, TYPES[type])]
        if access != EVERY_ACCESS:
            copy = _instruction(MOVE_REGISTER, SCRATCH, WANTED)
            if rules.allow:  # denied is who wants any of it
                tests.append(([copy, _instruction(AND, SCRATCH, value=access)], JUMP_IF_EQUAL, SCRATCH, 0))
            else:  # permitted is who wants nothing but it
                tests.append(([copy, _instruction(AND, SCRATCH, value=~access)], JUMP_UNLESS_EQUAL, SCRATCH, 0))
        if major != ANY:
            tests.append(([], JUMP_UNLESS_EQUAL, MAJOR, major))
        if minor != ANY:
            tests.append(([], JUMP_UNLESS_EQUAL, MINOR, minor))
        block = _answer(not rules.allow)
        for before, jump, register, value in reversed(tests):
            block = [*before, _instruction(jump, register, offset=len(block), value=value), *block]
        program += block
    return b"".join(program + _answer(rules.allow))


def attach(directory: str, rules: Rules, *, new: bool = False) -> None:
    """Let the rules be those of the group; a program that was attached before is replaced in one step.

    ``new`` says that the group was just made, so that nothing can be attached to it.
    Raises FailedPrecondition when the kernel refuses; but without the rights for eBPF (a user who is not root, a
    user namespace) nothing is attached, as no device node can be made or used there that was not given on purpose.
    """
    from boxship.linux import bpf

    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        old: list[int] = []
        program = bpf.load_device_filter(assemble(rules))
        try:
            old = [] if new else bpf.attached_device_filters(group)
            bpf.attach_device_filter(group, program, replace=old[0] if len(old) == 1 else -1)
            if len(old) > 1:
                for other in old:  # systemd leaves such behind
                    bpf.detach_device_filter(group, other)
        finally:
            for fd in [program, *old]:
                os.close(fd)
    except OSError as error:
        if error.errno == EPERM and (os.geteuid() != 0 or in_user_namespace()):
            return
        remedy = ""
        if error.errno == EINVAL:
            remedy = "the kernel needs CONFIG_CGROUP_BPF"
        elif error.errno == EPERM:
            remedy = "it needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN"
        raise FailedPrecondition(
            f"attach the device filter to {directory}",
            cause=errorcode.get(error.errno or 0, str(error)),
            remedy=remedy,
        ) from error
    finally:
        os.close(group)


def in_user_namespace() -> bool:
    """Whether we are in another user namespace than the first, where uid 0 has few rights."""
    try:
        with open("/proc/self/uid_map") as f:
            return f.read().split() != ["0", "0", "4294967295"]
    except OSError:
        return False
