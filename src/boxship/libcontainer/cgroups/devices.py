"""The v1 devices controller: runtime-spec ``linux.resources.devices`` as deny and allow lines.

Order is the spec's order; a rule without a type, or of type ``a``, replaces all before it, which is why the
usual list opens with "deny all" (admin-guide/cgroup-v1/devices.rst).
v2 has no such controller: there the list becomes an eBPF program.
"""

from boxship.errors import InvalidArgument

from .writes import Write


def _part(rule: "dict[str, object]", key: str, index: int) -> str:
    value = rule.get(key)
    if value is None or value == -1:
        return "*"
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"linux.resources.devices[{index}].{key} must be a whole number, not {value!r}")
    return str(value)


def v1(resources: "dict[str, object]") -> "list[Write]":
    rules = resources.get("devices")
    if rules is None:
        return []
    if not isinstance(rules, list):
        raise InvalidArgument("linux.resources.devices must be an array")
    writes: list[Write] = []
    for index, rule in enumerate(rules):
        if not isinstance(rule, dict):
            raise InvalidArgument(f"linux.resources.devices[{index}] must be an object")
        kind = rule.get("type") or "a"
        if kind not in ("a", "b", "c"):
            raise InvalidArgument(f"linux.resources.devices[{index}].type must be a, b or c, not {kind!r}")
        access = rule.get("access") or "rwm"
        if not isinstance(access, str) or set(access) - set("rwm"):
            raise InvalidArgument(
                f"linux.resources.devices[{index}].access must be made of r, w and m, not {access!r}"
            )
        line = "a" if kind == "a" else f"{kind} {_part(rule, 'major', index)}:{_part(rule, 'minor', index)} {access}"
        writes.append(("devices", "devices.allow" if rule.get("allow") else "devices.deny", line))
    return writes
