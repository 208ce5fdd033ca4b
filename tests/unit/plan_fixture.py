"""A host that is the same on every machine, and specs to compile for it."""

from boxship.libcontainer.cgroups import Layout
from boxship.libcontainer.compile import Plan, Request, compile_exec, compile_spec
from boxship.libcontainer.defaults import default
from boxship.libcontainer.host import Host

V1 = {name: f"/sys/fs/cgroup/{name}" for name in ("cpu", "memory", "devices", "freezer", "pids")}


class FixedHost(Host):
    """A root user on Linux 6.8 whose /proc and /sys have just these entries."""

    directories = ("/proc/acpi", "/sys/firmware", "/data")
    files = ("/proc/kcore", "/proc/keys", "/etc/resolv.conf")

    def link_target(self, path: str) -> str:
        return ""

    def path_kind(self, path: str, *, follow: bool = True) -> str:
        return "directory" if path in self.directories else "file" if path in self.files else ""


def fixed_host(mode: str = "v1", **changes: object) -> FixedHost:
    layout = Layout("v2", {}, "/sys/fs/cgroup", {}) if mode == "v2" else Layout("v1", V1, "", {})
    facts: dict[str, object] = {
        "kernel": (6, 8),
        "last_capability": 40,
        "capabilities": (1 << 41) - 1,
        "user": 0,
        "cgroups": layout,
        "limits": {},
        "modules": (False, False),
    }
    return FixedHost(**{**facts, **changes})  # type: ignore[arg-type]


def plan_of(spec: "dict[str, object] | None" = None, *, host: "Host | None" = None, **request: object) -> Plan:
    host = host or fixed_host()
    settings: dict[str, object] = {"id": "c1", "bundle": "/bundle", "rootfs": "/bundle/rootfs", "home": "/root"}
    if host.cgroups.mode == "v1":
        settings["tasks"] = len(V1)
    else:
        settings["cgroup"] = "/sys/fs/cgroup/boxship/c1"
    made = Request(spec or default(), **{**settings, **request})  # type: ignore[arg-type]
    return compile_spec(made, host)


def exec_plan_of(process: "dict[str, object]", **request: object) -> Plan:
    made = Request({"process": process, "linux": default()["linux"]}, id="c1", tasks=len(V1), home="/root", **request)  # type: ignore[arg-type]
    return compile_exec(made, fixed_host(), namespaces_flags=0x6C020000)
