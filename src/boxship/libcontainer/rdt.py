"""linux.intelRdt: shares of caches and memory bandwidth, by the kernel's resctrl file system.

A class of service is a directory of it, with the schemata (who gets which part) and the tasks in it; a monitoring
group is a directory below that (Documentation/arch/x86/resctrl.rst; runtime-spec, config-linux.md, IntelRdt).
What was made is written into the container's record, so that whoever deletes it can remove that.
"""

import os
from errno import errorcode

from boxship.errors import FailedPrecondition, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _lines(rdt: "dict[str, Any]") -> "list[str]":
    """The lines for schemata, in the order in which they are written."""
    lines = [rdt.get("l3CacheSchema") or "", rdt.get("memBwSchema") or "", *(rdt.get("schemata") or ())]
    for line in lines:
        if "\n" in line:
            raise InvalidArgument(f"linux.intelRdt: {line!r} is more than one line")
    if lines[1] and not lines[1].startswith("MB:"):
        raise InvalidArgument(f"linux.intelRdt.memBwSchema must start with MB:, not {lines[1]!r}")
    return [line for line in lines if line]


def _parts(text: str) -> "dict[tuple[str, str], str]":
    """Schemata as {(resource, domain): value}, so that spaces, order and leading zeros do not matter."""
    found = {}
    for line in text.splitlines():
        resource, _, domains = line.strip().partition(":")
        for domain in domains.split(";"):
            id, _, value = domain.strip().partition("=")
            if id:
                found[resource.strip(), id.lstrip("0") or "0"] = value.strip().lower().lstrip("0")
    return found


def prepare(rdt: "dict[str, Any]", id: str, mounted: "list[str]") -> "dict[str, str]":
    """Make or check the class, and the monitoring group; what ``enter`` and ``remove`` need.

    ``mounted`` are the places where resctrl is mounted. Raises FailedPrecondition, InvalidArgument; nothing is left
    of what was made then.
    """
    if not mounted:
        raise FailedPrecondition(
            "linux.intelRdt is set, but no resctrl file system is mounted",
            remedy="mount -t resctrl resctrl /sys/fs/resctrl, on a processor that has it",
        )
    lines = _lines(rdt)
    closid = rdt.get("closID") or ""
    if closid != "/" and ("/" in closid or closid in (".", "..") or "\n" in closid):
        raise InvalidArgument(f"linux.intelRdt.closID: {closid!r} is not a name")
    name = closid or id
    path = mounted[0] if closid == "/" else f"{mounted[0]}/{name}"
    made = {"path": path, "remove": "", "monitor": ""}
    exists = os.path.isdir(path)
    if closid and not lines and not exists:
        raise FailedPrecondition(f"linux.intelRdt.closID: there is no class {closid!r}", remedy="give it schemata")
    try:
        if not exists:
            os.mkdir(path)
            made["remove"] = "" if closid else path
        elif closid and lines:
            _compare(path, lines)
        if lines and not (closid and exists):
            for line in lines:
                _write(f"{path}/schemata", line)
        if rdt.get("enableMonitoring"):
            made["monitor"] = f"{path}/mon_groups/{id}"
            os.mkdir(made["monitor"])
    except OSError as error:
        remove(made)
        where = f"{error.filename or path}"
        raise FailedPrecondition(f"linux.intelRdt: {where}", cause=errorcode.get(error.errno or 0, "")) from error
    except BaseException:
        remove(made)
        raise
    return made


def _compare(path: str, lines: "list[str]") -> None:
    with open(f"{path}/schemata") as f:
        there = _parts(f.read())
    for (resource, domain), value in _parts("\n".join(lines)).items():
        if there.get((resource, domain)) != value:
            raise FailedPrecondition(
                f"linux.intelRdt: the class {path} has other schemata: "
                f"{resource}:{domain}={there.get((resource, domain), 'nothing')}, not {value}",
                remedy="choose another closID, or leave the schemata away",
            )


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode() + b"\n")
    finally:
        os.close(fd)


def change(made: "dict[str, str]", settings: "dict[str, Any]") -> None:
    """Write other schemata into the class of a container. Raises FailedPrecondition, InvalidArgument."""
    for line in _lines(settings):
        try:
            _write(f"{made['path']}/schemata", line)
        except OSError as error:
            cause = errorcode.get(error.errno or 0, "")
            raise FailedPrecondition(f"write {line!r} to {made['path']}/schemata", cause=cause) from error


def enter(made: "dict[str, str]", pid: int) -> None:
    """Put a process into the class, and the monitoring group. Raises FailedPrecondition."""
    for directory in (made["path"], made["monitor"]):
        if directory:
            try:
                _write(f"{directory}/tasks", str(pid))
            except OSError as error:
                cause = errorcode.get(error.errno or 0, "")
                raise FailedPrecondition(f"put process {pid} into {directory}", cause=cause) from error


def remove(made: "dict[str, str]") -> None:
    """Remove what was made for one container; what is gone is fine."""
    for directory in (made["monitor"], made["remove"]):
        if directory:
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue  # removed before
