"""bpf(2), as far as device filters of cgroups need it.

Loading and attaching are on the way to every container of a cgroup v2 host, so they use ``_ctypes`` as ``libc`` does;
the rest, and finding out why a call failed, may cost an import of ctypes.
"""

import _ctypes
import os
from array import array
from errno import ENOSPC
from struct import pack

# arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h for all newer architectures
_NUMBER = 321 if os.uname().machine == "x86_64" else 280

# linux/bpf.h: enum bpf_cmd
PROG_LOAD, PROG_ATTACH, PROG_DETACH, PROG_GET_FD_BY_ID, PROG_QUERY = 5, 8, 9, 13, 16
PROG_TYPE_CGROUP_DEVICE = 15
CGROUP_DEVICE = 6  # enum bpf_attach_type
ALLOW_MULTI, REPLACE = 2, 4  # BPF_F_*; REPLACE since Linux 5.6
MOST_ATTACHED = 64  # kernel/bpf/cgroup.c: BPF_CGROUP_MAX_PROGS

_syscall: int = _ctypes.dlsym(_ctypes.dlopen(None, 0), "syscall")  # type: ignore[arg-type]  # NULL is the program


def _bpf(command: int, attributes: bytes) -> int:
    """One call; raises OSError."""
    result: int = _ctypes.call_function(_syscall, (_NUMBER, command, attributes, len(attributes)))
    if result >= 0:
        return result
    return _explained(command, attributes)


def _explained(command: int, attributes: "bytes | bytearray") -> int:
    """The same call, so that its errno is known."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    buffer = (ctypes.c_char * len(attributes)).from_buffer_copy(attributes)
    result: int = library.syscall(_NUMBER, command, buffer, len(attributes))
    if isinstance(attributes, bytearray):
        attributes[:] = bytes(buffer)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def load_device_filter(program: bytes) -> int:
    """Load an array of struct bpf_insn, verified by the kernel; the descriptor of the program. Raises OSError."""
    instructions = array("B", program)
    license = array("B", b"Apache-2.0\0")
    return _bpf(
        PROG_LOAD,
        pack(
            "=IIQQIIQII16sII",
            PROG_TYPE_CGROUP_DEVICE, len(program) // 8, instructions.buffer_info()[0], license.buffer_info()[0],
            0, 0, 0, 0, 0, b"boxship_devices", 0, CGROUP_DEVICE,
        ),
    )  # fmt: skip


def attach_device_filter(group: int, program: int, *, replace: int = -1) -> None:
    """Attach a program to the cgroup directory ``group``, in place of the program ``replace``. Raises OSError."""
    if replace < 0:
        _bpf(PROG_ATTACH, pack("=IIIII", group, program, CGROUP_DEVICE, ALLOW_MULTI, 0))
    else:
        _bpf(PROG_ATTACH, pack("=IIIII", group, program, CGROUP_DEVICE, ALLOW_MULTI | REPLACE, replace))


def detach_device_filter(group: int, program: int) -> None:
    """Raises OSError (ENOENT when it is not attached)."""
    _explained(PROG_DETACH, pack("=IIII", group, program, CGROUP_DEVICE, 0))


def attached_device_filters(group: int) -> "list[int]":
    """Descriptors of the programs that are attached to this group itself; the caller closes them.

    Those that we may not open are left out: a security module can hide them, and they can only restrict more.
    Raises OSError.
    """
    ids = array("I", bytes(4 * MOST_ATTACHED))
    attributes = bytearray(pack("=IIIIQI4x", group, CGROUP_DEVICE, 0, 0, ids.buffer_info()[0], len(ids)))
    try:
        _explained(PROG_QUERY, attributes)
    except OSError as error:
        if error.errno != ENOSPC:  # more than there can be
            raise
    count = int.from_bytes(attributes[24:28], "little")
    found = []
    for id in ids[:count]:
        try:
            found.append(_explained(PROG_GET_FD_BY_ID, pack("=III", id, 0, 0)))
        except PermissionError:
            continue
    return found
