"""The v1 controllers net_cls and net_prio: runtime-spec ``linux.resources.network``.

They tag packets; v2 has neither (a classifier or eBPF program looks at the cgroup itself there).
"""

from boxship.errors import InvalidArgument

from .writes import Write, needed, number, objects, table, text


def v1(resources: "dict[str, object]") -> "list[Write]":
    network = table(resources, "network")
    writes: list[Write] = []
    class_id = number(network, "network", "classID")
    if class_id:
        writes.append(("net_cls", "net_cls.classid", str(class_id)))
    for path, rule in objects(network.get("priorities"), "network.priorities"):
        name = text(rule, path, "name")
        if not name or " " in name:
            raise InvalidArgument(f"linux.resources.{path}.name must be an interface's name, not {name!r}")
        writes.append(("net_prio", "net_prio.ifpriomap", f"{name} {needed(rule, path, 'priority')}"))
    return writes


def v2(resources: "dict[str, object]") -> "list[Write]":
    """Nothing can be written; raises InvalidArgument when something had to be."""
    for _, file, value, *_ in v1(resources):
        raise InvalidArgument(
            f"linux.resources.network: cannot set {file} to {value}: cgroup v2 has no such controller",
            remedy="leave it out",
        )
    return []
