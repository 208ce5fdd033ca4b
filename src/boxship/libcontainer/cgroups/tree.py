"""Directories and files of cgroup file systems: read, write, list and remove, with errors that name the setting."""

import errno
import os
from time import monotonic, sleep

from boxship.errors import FailedPrecondition, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .writes import Write


def write(directory: str, file: str, text: str) -> None:
    """Raises OSError."""
    fd = os.open(directory + "/" + file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def read(path: str) -> str:
    """The text, or "" for a counter that this kernel or controller does not have; raises OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = []
            while part := os.read(fd, 65536):
                parts.append(part)
            return b"".join(parts).decode()
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return ""
        raise


def below(directory: str) -> "list[str]":
    """The directory and all below it, children first."""
    found: list[str] = []
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        return found
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found += below(entry.path)
    found.append(directory)
    return found


def processes(directory: str) -> "list[int]":
    """The pids in the group and below; the threads of a threaded v2 group, whose cgroup.procs cannot be read."""
    found: list[int] = []
    for sub in below(directory):
        text = read(sub + "/cgroup.procs")
        if not text and read(sub + "/cgroup.type").strip() == "threaded":
            text = read(sub + "/cgroup.threads")
        found += (int(line) for line in text.split())
    return found


def _not_removed(directory: str, error: OSError) -> FailedPrecondition:
    return FailedPrecondition(
        f"remove cgroup {directory}",
        cause=errno.errorcode.get(error.errno or 0, str(error)),
        remedy="end the processes listed in its cgroup.procs first" if error.errno == errno.EBUSY else "",
    )


def remove(directory: str, deadline: float) -> None:
    """Remove a cgroup and its children; a group whose last process is still being reaped is busy for a moment."""
    try:
        os.rmdir(directory)  # most have no children, and looking costs five system calls
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise _not_removed(directory, error) from error
    for sub in below(directory):
        while True:
            try:
                os.rmdir(sub)
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno == errno.ENOTEMPTY:
                    # A child appeared in between: start over below this one.
                    remove(sub, deadline)
                    break
                if error.errno != errno.EBUSY or monotonic() > deadline:
                    raise _not_removed(sub, error) from error
                sleep(0.001)
            else:
                break


# Which limit of config.json a file stands for; where several go into one, the controller's.
PLACES = {
    "memory.limit_in_bytes": "memory.limit",
    "memory.max": "memory.limit",
    "memory.soft_limit_in_bytes": "memory.reservation",
    "memory.low": "memory.reservation",
    "memory.memsw.limit_in_bytes": "memory.swap",
    "memory.swap.max": "memory.swap",
    "memory.swappiness": "memory.swappiness",
    "cpu.shares": "cpu.shares",
    "cpu.weight": "cpu.shares",
    "cpu.cfs_quota_us": "cpu.quota",
    "cpu.cfs_period_us": "cpu.period",
    "cpu.cfs_burst_us": "cpu.burst",
    "cpu.max.burst": "cpu.burst",
    "cpu.idle": "cpu.idle",
    "cpu.rt_runtime_us": "cpu.realtimeRuntime",
    "cpu.rt_period_us": "cpu.realtimePeriod",
    "cpuset.cpus": "cpu.cpus",
    "cpuset.mems": "cpu.mems",
    "pids.max": "pids.limit",
}
BY_CONTROLLER = {
    "memory": "memory", "cpu": "cpu", "cpuset": "cpu", "pids": "pids", "blkio": "blockIO", "io": "blockIO",
    "hugetlb": "hugepageLimits", "net_cls": "network", "net_prio": "network", "rdma": "rdma", "devices": "devices",
}  # fmt: skip


def refused(controller: str, path: str, text: str, error: OSError) -> "FailedPrecondition | InvalidArgument":
    """What a failed write means to whoever asked for that limit."""
    name = errno.errorcode.get(error.errno or 0, str(error))
    file = path.rpartition("/")[2]
    place = PLACES.get(file) or BY_CONTROLLER.get(controller, "")
    message = (f"linux.resources.{place}: " if place else "") + f"write {text!r} to {path}"
    if error.errno == errno.ENOENT:
        return FailedPrecondition(
            message, cause=name, remedy=f"this kernel's {controller} controller has no such setting"
        )
    if error.errno in (errno.EINVAL, errno.ERANGE):
        return InvalidArgument(message, cause=name, remedy="the kernel refuses that value")
    if error.errno == errno.EBUSY:
        return FailedPrecondition(message, cause=name, remedy="the limit is below what is in use already")
    if error.errno == errno.ENODEV:
        return InvalidArgument(message, cause=name, remedy="there is no such device here")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return FailedPrecondition(message, cause=name, remedy="this user may not change that cgroup")
    return FailedPrecondition(message, cause=name)


def carry_out(writes: "list[Write]", directory_of: "Callable[[str], str]") -> None:
    """Make the writes in order. Raises FailedPrecondition, InvalidArgument for the first that fails.

    Rules for one file follow each other (devices.allow): it is opened once for all of them.
    A write that might have been refused, but was not, is not repeated.
    """
    opened, fd = "", -1
    done: list[tuple[str, str]] = []
    try:
        for controller, file, text, *tolerated in writes:
            directory = directory_of(controller)
            if not directory:
                place = PLACES.get(file) or BY_CONTROLLER.get(controller, "")
                where = f"linux.resources.{place}: " if place else ""
                raise FailedPrecondition(
                    f"{where}set {file} to {text}: this host has no {controller} cgroup controller",
                    remedy="mount it, or leave that limit out",
                )
            path = directory + "/" + file
            if done and (file, text) in done:
                continue
            try:
                if path != opened:
                    if fd >= 0:
                        os.close(fd)
                        fd = -1
                    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                    opened = path
                os.write(fd, text.encode())
                if tolerated:
                    done.append((file, text))
            except OSError as error:
                if tolerated and error.errno in tolerated[0]:
                    continue
                raise refused(controller, path, text, error) from error
    finally:
        if fd >= 0:
            os.close(fd)
