"""Trials of the kernel, for ``doctor``: a program of its own, run as ``python -I -S doctor_probe.py EXECUTOR``.

It prints ``NAME ok`` or ``NAME ERRNO`` for each trial.
Every trial is made in a forked child, so that none changes what the next one sees, and nothing outlives it.
"""

import ctypes
import os
import sys
from errno import EBADF, EFAULT, EINVAL, ENOENT, errorcode

libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"

NAMESPACES = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "time": 0x00000080,
}
NEWUSER = 0x10000000
# Calls since Linux 5.1 have one number everywhere; a kernel that has them complains about their arguments.
CALLS = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "pidfd_open": 434,
    "clone3": 435,
    "openat2": 437,
    "mount_setattr": 442,
}
SECCOMP = 317 if X86 else 277
GET_ACTION_AVAIL, GET_NOTIF_SIZES = 2, 3
FSOPEN, FSCONFIG, CMD_CREATE = 430, 431, 6


def call(number: int, *arguments: object) -> int:
    """The result of a system call, or minus its errno."""
    result: int = libc.syscall(number, *arguments)
    return result if result >= 0 else -ctypes.get_errno()


def become_root_of_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(NEWUSER) < 0:
        raise OSError(ctypes.get_errno(), "")
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{file}", "w") as f:
            f.write(text)


def checked(result: int) -> None:
    if result < 0:
        raise OSError(-result, "")


def try_namespace(flag: int) -> None:
    if os.geteuid():
        become_root_of_user_namespace()
    if libc.unshare(flag) < 0:
        raise OSError(ctypes.get_errno(), "")


def try_call(number: int) -> None:
    result = call(number, -1, 0, 0, 0, 0)
    if -result not in (EBADF, EFAULT, EINVAL, ENOENT) and result < 0:
        checked(result)


def try_overlay() -> None:
    """The file system is known, and may be made by us: without layers it says EINVAL only then."""
    if os.geteuid():
        become_root_of_user_namespace()
    if libc.unshare(NAMESPACES["mount"]) < 0:
        raise OSError(ctypes.get_errno(), "")
    fd = call(FSOPEN, b"overlay", 1)
    checked(fd)
    result = call(FSCONFIG, fd, CMD_CREATE, None, None, 0)
    if result != -EINVAL:
        checked(result)


def try_memfd(executor: str) -> None:
    """Execute the executor from a sealed memfd, as containers are started; without its socket it ends at once."""
    for flags in (0x13, 0x3):  # MFD_CLOEXEC, MFD_ALLOW_SEALING, and MFD_EXEC since Linux 6.3
        try:
            fd = os.memfd_create("boxship-doctor", flags)
            break
        except OSError as error:
            if flags == 0x3 or error.errno != EINVAL:
                raise
    with open(executor, "rb") as f:
        os.write(fd, f.read())
    import fcntl

    fcntl.fcntl(fd, 1033, 0xF)
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.waitpid(os.posix_spawn(f"/proc/self/fd/{high}", ["boxship-executor"], {}), 0)


def try_seccomp(operation: int) -> None:
    buffer = ctypes.create_string_buffer((0x00050000).to_bytes(4, sys.byteorder), 64)  # SECCOMP_RET_ERRNO
    checked(call(SECCOMP, operation, 0, buffer))


def try_device_filter() -> None:
    program = b"\xb7\0\0\0\1\0\0\0" + b"\x95\0\0\0\0\0\0\0"  # r0 = 1; exit
    instructions = ctypes.create_string_buffer(program, len(program))
    license = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = ctypes.create_string_buffer(
        (15).to_bytes(4, "little") + (2).to_bytes(4, "little") + ctypes.addressof(instructions).to_bytes(8, "little")
        + ctypes.addressof(license).to_bytes(8, "little") + bytes(40) + (6).to_bytes(4, "little"), 72
    )  # fmt: skip
    checked(call(321 if X86 else 280, 5, attributes, 72))


def trial(name: str, function: "object", *arguments: object) -> None:
    """Run it in a child and print its answer."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        answer = 0
        try:
            function(*arguments)  # type: ignore[operator]  # object keeps typing out of a program without site
        except OSError as error:
            answer = error.errno or 255
        os._exit(answer)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(name, "ok" if code == 0 else errorcode.get(code, f"ended with {code}"))


def main(executor: str) -> None:
    for name, flag in NAMESPACES.items():
        trial(f"ns-{name}", try_namespace, flag)
    trial("ns-user", become_root_of_user_namespace)
    for name, number in CALLS.items():
        trial(name, try_call, number)
    trial("overlay", try_overlay)
    trial("memfd-exec", try_memfd, executor)
    trial("seccomp", try_seccomp, GET_ACTION_AVAIL)
    trial("seccomp-notify", try_seccomp, GET_NOTIF_SIZES)
    trial("device-filter", try_device_filter)


if __name__ == "__main__":
    main(sys.argv[1])
