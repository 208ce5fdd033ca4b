"""A host that is the same on every machine, and specs to compile for it."""

import copy
from typing import Any

from hypothesis import strategies as st

from boxship.libcontainer.cgroups import Layout
from boxship.libcontainer.compile import Plan, Request, compile_exec, compile_spec
from boxship.libcontainer.defaults import default
from boxship.libcontainer.host import Host
from boxship.linux.abi.process import CAPABILITIES

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


IDS = {"containerID": 0, "hostID": 100000, "size": 65536}
mounts = st.sampled_from(
    [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1m"]},
        {"destination": "/data/a/../b", "type": "bind", "source": "/data", "options": ["rbind", "ro", "rslave"]},
        {"destination": "/etc/resolv.conf", "type": "bind", "source": "/etc/resolv.conf", "options": ["bind"]},
        {"destination": "/deep/er/still", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/inner", "type": "bind", "source": "/bundle/rootfs/deep", "options": ["rbind"]},
        {
            "destination": "/mapped",
            "type": "bind",
            "source": "/bundle/rootfs/deep",
            "options": ["rbind", "ridmap"],
            "uidMappings": [IDS],
            "gidMappings": [IDS],
        },
    ]
)
choices = st.fixed_dictionaries(
    {
        "uid": st.integers(0, 70000),
        "capabilities": st.one_of(st.none(), st.lists(st.sampled_from(sorted(CAPABILITIES)), max_size=6)),
        "no_new_privileges": st.booleans(),
        "seccomp": st.booleans(),
        "terminal": st.booleans(),
        "user": st.booleans(),
        "mounts": st.lists(mounts, max_size=4),
        "mode": st.sampled_from(["v1", "v2"]),
        "drop": st.sets(st.sampled_from(["network", "ipc", "cgroup", "pid"])),
        "hooks": st.booleans(),
        "preserve": st.integers(0, 3),
        "overlay": st.booleans(),
    }
)


def chosen(choice: "dict[str, Any]") -> "tuple[dict[str, Any], dict[str, object]]":
    """A configuration of ``choices``, and what of the request goes with it."""
    spec = default()
    spec["mounts"] = [*spec["mounts"], *copy.deepcopy(choice["mounts"])]
    process, linux = spec["process"], spec["linux"]
    process["user"] = {"uid": choice["uid"], "gid": choice["uid"], "additionalGids": [5]}
    process["noNewPrivileges"] = choice["no_new_privileges"]
    names = choice["capabilities"]
    process["capabilities"] = None if names is None else dict.fromkeys(("bounding", "permitted", "effective"), names)
    linux["namespaces"] = [n for n in linux["namespaces"] if n["type"] not in choice["drop"]]
    if choice["user"]:
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = linux["gidMappings"] = [IDS]
    if choice["seccomp"]:
        linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
            {"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]}  # fmt: skip
    if choice["hooks"]:
        hook = [{"path": "/bin/true"}]
        spec["hooks"] = {"prestart": hook, "createContainer": hook, "startContainer": hook}
    overlay = [("overlay", "overlay", ["lowerdir=/a:/b", "upperdir=/u", "workdir=/w"])]
    request = {
        "terminal": choice["terminal"],
        "preserve_fds": choice["preserve"],
        "rootfs_mounts": overlay if choice["overlay"] else (),
    }
    return spec, request
