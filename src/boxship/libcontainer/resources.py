"""What the spec says about cgroups, completed as every runtime completes it."""

from .idmap import host_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Devices that a container always may use: the default nodes, ptys, and making nodes at all (runc, crun and
# runtime-spec's Default Devices agree).
_ALWAYS: "tuple[tuple[str, int | None, int | None, str], ...]" = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 136, None, "rwm"),
    ("c", 5, 2, "rwm"),
)


def for_cgroups(linux: "dict[str, Any]") -> "dict[str, Any]":
    """``linux.resources`` with the device rules that a default container needs; all else is denied."""
    resources = dict(linux.get("resources") or {})
    rules = list(resources.get("devices") or [{"allow": False, "access": "rwm"}])
    for type, major, minor, access in _ALWAYS:
        rules.append({"allow": True, "type": type, "major": major, "minor": minor, "access": access})
    resources["devices"] = rules
    return resources


def for_update(resources: "dict[str, Any]") -> "dict[str, Any]":
    """The same for a change: only what it names, and device rules only if there are some."""
    return for_cgroups({"resources": resources}) if resources.get("devices") else resources


def before_entering(spec: "dict[str, Any]") -> "dict[str, Any]":
    """The limits that must be set before the first process is in the group: realtime budgets, which start at none."""
    cpu = ((spec.get("linux") or {}).get("resources") or {}).get("cpu") or {}
    if not isinstance(cpu, dict):
        return {}  # applying the limits says what is wrong with it
    wanted = {key: cpu[key] for key in ("realtimePeriod", "realtimeRuntime") if cpu.get(key)}
    return {"cpu": wanted} if wanted else {}


def cgroup_owner(spec: "dict[str, Any]") -> int:
    """The host's uid that shall own the container's cgroup on v2, 0 for nobody else than root.

    runtime-spec, config-linux.md, Cgroup ownership: only with an own cgroup namespace and cgroups mounted writable.
    """
    linux = spec.get("linux") or {}
    if not any(n.get("type") == "cgroup" and not n.get("path") for n in linux.get("namespaces") or ()):
        return 0
    for mount in spec.get("mounts") or ():
        is_cgroup = mount.get("type") == "cgroup" or mount.get("source") == "cgroup"
        read_only = "ro" in (mount.get("options") or ())
        if is_cgroup and not read_only and mount.get("destination", "").rstrip("/") == "/sys/fs/cgroup":
            return host_id(spec, int(((spec.get("process") or {}).get("user") or {}).get("uid") or 0))
    return 0


def cgroup_path(path: str) -> str:
    """systemd's ``slice:prefix:name`` as the path that systemd would give it; any other path as it is."""
    if path.count(":") != 2:
        return path
    slice, prefix, name = path.split(":")
    parents, so_far = [], ""
    for part in (slice or "system.slice").removesuffix(".slice").split("-"):
        so_far = f"{so_far}-{part}" if so_far else part
        parents.append(so_far + ".slice")
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    return "/" + "/".join([*parents, unit])
