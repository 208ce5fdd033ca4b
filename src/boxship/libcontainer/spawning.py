"""Starts the native executor.

Why posix_spawn from a sealed memfd: it costs no copy of the interpreter's page tables whatever its size or threads,
and the host's file can never be reached through /proc/PID/exe and overwritten (CVE-2019-5736).
"""

import os
from errno import errorcode
from fcntl import F_DUPFD_CLOEXEC, fcntl

from boxship.errors import Unavailable

CONTROL = 3
LOWEST = CONTROL + 1  # descriptors that posix_spawn's dup2 of 0 to 3 must not hit
F_ADD_SEALS, ALL_SEALS = 1033, 0xF  # seal, shrink, grow, write
MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_EXEC = 1, 2, 0x10

_image: bytes = b""


def spawn(socket: int, stdio: "tuple[int, int, int]") -> int:
    """Start an executor with that control socket and those standard streams, -1 for /dev/null: its pid.

    The descriptors stay the caller's. Raises Unavailable (no executor in this installation), OSError.
    """
    opened: list[int] = []
    try:
        image = memfd()
        opened.append(image)
        actions: list[tuple[int, int, int]] = []
        null = -1
        for number, fd in enumerate((*stdio, socket)):
            if fd < 0:
                if null < 0:
                    null = _high(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
                    opened.append(null)
                fd = null
            if fd < LOWEST:
                # It might be overwritten by an earlier dup2, and a dup2 onto itself keeps close-on-exec.
                fd = fcntl(fd, F_DUPFD_CLOEXEC, LOWEST)
                opened.append(fd)
            actions.append((os.POSIX_SPAWN_DUP2, fd, number))
        return os.posix_spawn(f"/proc/self/fd/{image}", ["boxship-executor"], {}, file_actions=actions)
    finally:
        for fd in opened:
            os.close(fd)


def executor_path() -> str:
    """The executor's file in this installation."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_native", "executor")


def executor_image() -> bytes:
    global _image
    if not _image:
        path = os.environ.get("BOXSHIP_EXECUTOR") or executor_path()
        try:
            with open(path, "rb", buffering=0) as f:
                _image = f.read()
        except OSError as error:
            raise Unavailable(
                f"read the native executor {path}",
                cause=errorcode.get(error.errno or 0, ""),
                remedy="install boxship again: the build compiles it",
            ) from error
    return _image


def memfd() -> int:
    """A sealed, executable copy of the executor; its number is LOWEST or above."""
    try:
        fd = os.memfd_create("boxship", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC)
    except OSError:
        fd = os.memfd_create("boxship", MFD_CLOEXEC | MFD_ALLOW_SEALING)  # MFD_EXEC: Linux 6.3
    try:
        os.write(fd, executor_image())
        fcntl(fd, F_ADD_SEALS, ALL_SEALS)
        return _high(fd)
    except BaseException:
        os.close(fd)
        raise


def _high(fd: int) -> int:
    if fd >= LOWEST:
        return fd
    high = fcntl(fd, F_DUPFD_CLOEXEC, LOWEST)
    os.close(fd)
    return high


def spread(pid: int) -> None:
    """Put a process that was just spawned on another CPU than ours, if it may run on one.

    After vfork both are on the same CPU, and a kernel in a virtual machine does not take a long idle CPU for idle
    (vcpu_is_preempted), so it would start only when we stop, 1.5 ms later, while half of the machine sleeps.
    Its affinity is as before when this returns; that must be before it gets anything to do that it hands on.
    """
    cpus = os.sched_getaffinity(0)
    if len(cpus) < 2:
        return
    fd = os.open("/proc/thread-self/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 1024)
    finally:
        os.close(fd)
    here = int(text[text.rindex(b")") + 2 :].split()[36])  # proc_pid_stat(5): field 39, processor
    try:
        os.sched_setaffinity(pid, cpus - {here})
        os.sched_setaffinity(pid, cpus)
    except OSError:
        return  # its cpuset changed meanwhile: then the kernel has placed it itself
