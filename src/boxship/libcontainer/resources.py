"""What the spec says about cgroups, completed as every runtime completes it."""

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
