"""Compiled filters, kept by the profile's hash: in the process, and in a directory for other processes.

What starts containers with a profile that was compiled before needs this module only.
"""

import os

from boxship.errors import FailedPrecondition


class Filter:
    """A compiled profile: ``program`` is an array of struct sock_filter, ``flags`` SECCOMP_FILTER_FLAG_* bits."""

    __slots__ = ("flags", "program")

    def __init__(self, program: bytes, flags: int) -> None:
        self.program = program
        self.flags = flags


def native_architecture() -> str:
    """The host's architecture as SCMP_ARCH_*; raises FailedPrecondition for one that has no table here."""
    machine = os.uname().machine
    name = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64", "i686": "SCMP_ARCH_X86"}.get(machine, "")
    if not name:
        raise FailedPrecondition(
            f"seccomp: no system call table for {machine}", remedy="run without a seccomp profile"
        )
    return name


_compiled: "dict[bytes, Filter]" = {}


def compile(profile: "dict[str, object]", cache_directory: str = "") -> Filter:
    """The program of a profile, compiled once per process and, with ``cache_directory``, once per host.

    The directory must belong to this user and be writable by nobody else, or it is not trusted and not used.
    Raises what :func:`compiler.assemble` raises.
    """
    from _blake2 import blake2b
    from marshal import dumps

    key = blake2b(dumps(profile, 2) + native_architecture().encode(), digest_size=16).digest()
    found = _compiled.get(key)
    if found is not None:
        return found
    path = ""
    if cache_directory and _trusted(cache_directory):
        path = f"{cache_directory}/{key.hex()}-{CACHE_VINTAGE}.bpf"
        found = _load(path)
    if found is None:
        from .compiler import assemble

        found = assemble(profile)
        if path:
            _store(path, found)
    _compiled[key] = found
    return found


CACHE_VINTAGE = 6  # of the compiler: raise it when its answers change


def _trusted(directory: str) -> bool:
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass  # made by an earlier run; whose, the next lines tell
    except OSError:
        return False  # no cache is no failure: the profile is compiled
    status = os.lstat(directory)
    return status.st_uid == os.geteuid() and status.st_mode & 0o170022 == 0o040000


def _load(path: str) -> "Filter | None":
    try:
        with open(path, "rb", buffering=0) as f:
            data = f.read()
    except OSError:
        return None
    if len(data) < 12 or (len(data) - 4) % 8:
        return None
    return Filter(data[4:], int.from_bytes(data[:4], "little"))


def _store(path: str, compiled: Filter) -> None:
    temporary = f"{path}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, compiled.flags.to_bytes(4, "little") + compiled.program)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError:
        return  # a full disk or a race with another run: the next one compiles again
