"""A runtime-spec from a few words, for who starts containers from Python.

``build_spec`` begins with the default spec (defaults.py) and changes what its arguments name; the result is a plain
dict in the form of config.json, to be changed further by hand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from boxship.errors import InvalidArgument

from .defaults import default

PERIOD = 100_000  # microseconds; cpus are told to the kernel as a quota of it
UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
DOCKER_CAPABILITIES = (
    "CAP_AUDIT_WRITE CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD CAP_NET_BIND_SERVICE "
    "CAP_NET_RAW CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_CHROOT"
).split()


def size(value: int | str) -> int:
    """Bytes of a number or of a text like ``64m``; -1 is no limit. Raises InvalidArgument."""
    if isinstance(value, int):
        return value
    text = value.strip().lower().removesuffix("ib").removesuffix("b") or "x"
    unit = text[-1] if text[-1].isalpha() else ""
    try:
        return int(float(text.removesuffix(unit)) * UNITS[unit])
    except (ValueError, KeyError) as error:
        raise InvalidArgument(f"{value!r} is no size", remedy="like 64m or 1g") from error


def build_resources(
    *,
    memory: int | str | None = None,
    cpus: float | None = None,
    cpuset: str | None = None,
    pids: int | None = None,
) -> dict[str, Any]:
    """``linux.resources`` of the usual limits: bytes (or ``64m``), a number of CPUs, which ones, processes.

    Memory and swap together are held to ``memory``, so that a container cannot swap instead.
    """
    found: dict[str, Any] = {}
    if memory is not None:
        found["memory"] = {"limit": size(memory), "swap": size(memory)}
    if cpus is not None:
        if cpus <= 0:
            raise InvalidArgument(f"cpus must be above zero, not {cpus}")
        found["cpu"] = {"quota": int(cpus * PERIOD), "period": PERIOD}
    if cpuset is not None:
        found.setdefault("cpu", {})["cpus"] = cpuset
    if pids is not None:
        found["pids"] = {"limit": pids}
    return found


def build_spec(
    rootfs: str | os.PathLike[str],
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    user: int | tuple[int, int] = 0,
    hostname: str = "boxship",
    readonly: bool = False,
    mounts: Sequence[tuple[str, str] | tuple[str, str, str]] = (),
    network: str = "none",
    memory: int | str | None = None,
    cpus: float | None = None,
    cpuset: str | None = None,
    pids: int | None = None,
    capabilities: Sequence[str] = tuple(DOCKER_CAPABILITIES),
    seccomp: bool = True,
    terminal: bool = False,
    rootless: bool | None = None,
) -> dict[str, Any]:
    """The spec of a container that runs ``args`` in the directory ``rootfs``.

    ``env`` is added to PATH and TERM; ``user`` is a uid, or (uid, gid).
    ``mounts`` are (host path, path in the container[, options]), bound, like ``("/data", "/data", "ro")``.
    ``network`` is "none" (a namespace of its own with loopback), "host", or the path of a namespace.
    ``memory``, ``cpus``, ``cpuset``, ``pids`` are limits, see ``build_resources``.
    ``capabilities`` and ``seccomp`` are Docker's unless told otherwise.
    ``rootless`` is for a user who is not root: the default is to look at who we are. Then only that user is mapped,
    as root, and the network is the host's.
    Raises InvalidArgument.
    """
    if isinstance(args, str) or not args:
        raise InvalidArgument(f"args must be a list of words, not {args!r}", remedy='like ["sh", "-c", "echo hi"]')
    rootless = os.geteuid() != 0 if rootless is None else rootless
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    spec = default(rootless=rootless, cgroup_namespace=unified)
    spec["root"] = {"path": os.path.abspath(os.fspath(rootfs)), "readonly": readonly}
    spec["hostname"] = hostname
    process: dict[str, Any] = spec["process"]
    process.update(args=list(args), cwd=cwd, terminal=terminal)
    process["env"] += [f"{name}={value}" for name, value in (env or {}).items()]
    uid, gid = user if isinstance(user, tuple) else (user, user)
    process["user"] = {"uid": uid, "gid": gid}
    del process["rlimits"]
    process["capabilities"] = {kind: list(capabilities) for kind in ("bounding", "effective", "permitted")}
    linux: dict[str, Any] = spec["linux"]
    if network == "host":
        linux["namespaces"] = [n for n in linux["namespaces"] if n["type"] != "network"]
    elif network.startswith("/"):
        linux["namespaces"] = [n for n in linux["namespaces"] if n["type"] != "network"]
        linux["namespaces"].append({"type": "network", "path": network})
    elif network != "none":
        raise InvalidArgument(f"network must be none, host or a path, not {network!r}")
    for mount in mounts:
        source, destination, *options = mount
        words = ["rbind", "rprivate", *(options[0].split(",") if options else ())]
        source = os.path.abspath(source)
        spec["mounts"].append({"destination": destination, "type": "bind", "source": source, "options": words})
    limits = build_resources(memory=memory, cpus=cpus, cpuset=cpuset, pids=pids)
    if limits:
        linux["resources"] = {**linux.get("resources", {}), **limits}
    if seccomp:
        from .seccomp.docker import docker_default

        linux["seccomp"] = docker_default(list(capabilities), os.uname().machine)
    return spec
