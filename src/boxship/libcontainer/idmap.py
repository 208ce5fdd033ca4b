"""User and group id maps of a new user namespace, user_namespaces(7)."""

import os
from errno import errorcode

from boxship.errors import FailedPrecondition, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .host import Host


def _lines(spec: "dict[str, Any]", key: str) -> str:
    from .compile.idmaps import lines

    return lines(spec["linux"][key], f"linux.{key}")


def check_joined(pid: int, spec: "dict[str, Any]") -> None:
    """Mappings beside the path of a user namespace must be those that it has; ``pid`` is a process that joined it.

    containerd and CRI-O write both. Raises InvalidArgument when they differ, as runc does.
    """
    linux = spec.get("linux") or {}
    joined = [n["path"] for n in linux.get("namespaces") or () if n["type"] == "user" and n.get("path")]
    given = {key: linux.get(key) or [] for key in ("uidMappings", "gidMappings")}
    if not joined or not any(given.values()):
        return
    for file, key in (("uid_map", "uidMappings"), ("gid_map", "gidMappings")):
        with open(f"/proc/{pid}/{file}") as f:
            found = sorted(tuple(map(int, line.split())) for line in f)
        if found != sorted((m.get("containerID", 0), m.get("hostID", 0), m["size"]) for m in given[key]):
            has = ", ".join(" ".join(map(str, each)) for each in found) or "nothing"
            raise InvalidArgument(
                f"linux.{key} differs from the user namespace {joined[0]}, which maps {has}",
                remedy="leave uidMappings and gidMappings out: a namespace that is joined has its own",
            )


def host_id(spec: "dict[str, Any]", uid: int) -> int:
    """The host's id of a user of the container."""
    linux = spec.get("linux") or {}
    if not any(n.get("type") == "user" for n in linux.get("namespaces") or ()):
        return uid
    for m in linux.get("uidMappings") or ():
        if m["containerID"] <= uid < m["containerID"] + m["size"]:
            return int(m["hostID"] + uid - m["containerID"])
    return uid


def write_maps(pid: int, spec: "dict[str, Any]", host: "Host") -> None:
    """Write both maps of the process's new namespace; without root by newuidmap and newgidmap where needed.

    Raises FailedPrecondition with the kernel's reason.
    """
    for file, key, program in (("uid_map", "uidMappings", "newuidmap"), ("gid_map", "gidMappings", "newgidmap")):
        lines = _lines(spec, key)
        if host.user != 0 and (lines.count("\n") > 1 or not lines.endswith(" 1\n")):
            _by_helper(program, pid, lines)
            continue
        if host.user != 0 and file == "gid_map":
            _write(pid, "setgroups", "deny")  # user_namespaces(7): else the kernel refuses the map
        _write(pid, file, lines)


def _write(pid: int, file: str, text: str) -> None:
    path = f"/proc/{pid}/{file}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise FailedPrecondition(
            f"write {text.strip()!r} to {path}",
            cause=errorcode.get(error.errno or 0, str(error)),
            remedy="ids outside the caller's own may only be mapped by root",
        ) from error


def _by_helper(program: str, pid: int, lines: str) -> None:
    try:
        child = os.posix_spawnp(program, [program, str(pid), *lines.split()], dict(os.environ))
    except FileNotFoundError as error:
        raise FailedPrecondition(
            f"map {lines.strip()!r} without root", remedy=f"install {program} (package uidmap)"
        ) from error
    if os.waitpid(child, 0)[1] != 0:
        raise FailedPrecondition(f"{program} refused {lines.strip()!r}", remedy="see /etc/subuid and /etc/subgid")
