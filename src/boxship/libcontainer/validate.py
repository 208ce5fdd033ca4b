"""config.json checked before anything is made: each fault is one line that names the JSON path.

Two steps. ``SHAPE`` says which type each property has, as data, and one small walker compares; only what the file
holds is looked at, so the usual configuration costs some tens of microseconds. Then ``RULES``: what types cannot
say, one function a rule.
Properties that runtime-spec does not know are ignored, as it demands; null is the same as leaving a property out.
What depends on this host (a device that is not there, a limit that may not be raised) is found out by whoever needs
it, and not looked at here; seccomp profiles are checked where they are compiled, once.
"""

from boxship.errors import InvalidArgument
from boxship.linux.abi.process import IO_PRIORITY_CLASSES, NAMESPACES, PERSONALITIES, RLIMITS, SCHED_FLAGS, SCHEDULERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# ── Shapes: a type; (lowest, highest) of a whole number; [shape of each element]; {property: shape}; {"*": shape} for
# any property; a frozenset of words; or a tuple of a shape and the properties that must be there. ──

INT32, INT64 = (-(1 << 31), (1 << 31) - 1), (-(1 << 63), (1 << 63) - 1)
UINT16, UINT32, UINT64 = (0, (1 << 16) - 1), (0, (1 << 32) - 1), (0, (1 << 64) - 1)
TEXTS: "list[Any]" = [str]


def _object(required: str, **properties: "Any") -> "tuple[dict[str, Any], list[str]]":
    return properties, required.split()


_MAPPING = _object("size", containerID=UINT32, hostID=UINT32, size=UINT32)
_HOOKS = [_object("path", path=str, args=TEXTS, env=TEXTS, timeout=INT64)]
_RATES = [_object("major minor rate", major=INT64, minor=INT64, rate=UINT64)]
_TIME = {"secs": INT64, "nanosecs": (0, 999_999_999)}

RESOURCES: "dict[str, Any]" = {
    "devices": [_object("", allow=bool, type=str, major=INT64, minor=INT64, access=str)],
    "memory": {
        "limit": INT64, "reservation": INT64, "swap": INT64, "kernel": INT64, "kernelTCP": INT64,
        "swappiness": (0, 100), "disableOOMKiller": bool, "useHierarchy": bool, "checkBeforeUpdate": bool,
    },
    "cpu": {
        "shares": UINT64, "quota": INT64, "burst": UINT64, "period": UINT64, "realtimeRuntime": INT64,
        "realtimePeriod": UINT64, "cpus": str, "mems": str, "idle": INT64,
    },
    "pids": {"limit": INT64},
    "blockIO": {
        "weight": UINT16, "leafWeight": UINT16,
        "weightDevice": [_object("major minor", major=INT64, minor=INT64, weight=UINT16, leafWeight=UINT16)],
        "throttleReadBpsDevice": _RATES, "throttleWriteBpsDevice": _RATES,
        "throttleReadIOPSDevice": _RATES, "throttleWriteIOPSDevice": _RATES,
    },
    "hugepageLimits": [_object("pageSize limit", pageSize=str, limit=UINT64)],
    "network": {"classID": UINT32, "priorities": [_object("name priority", name=str, priority=UINT32)]},
    "rdma": {"*": {"hcaHandles": UINT32, "hcaObjects": UINT32}},
    "unified": {"*": str},
}  # fmt: skip

PROCESS: "dict[str, Any]" = {
    "terminal": bool,
    "consoleSize": {"height": UINT64, "width": UINT64},
    "user": {"uid": UINT32, "gid": UINT32, "umask": (0, 0o777), "additionalGids": [UINT32], "username": str},
    "args": TEXTS,
    "env": TEXTS,
    "cwd": str,
    "capabilities": dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), TEXTS),
    "rlimits": [_object("type", type=frozenset(RLIMITS), soft=UINT64, hard=UINT64)],
    "noNewPrivileges": bool,
    "apparmorProfile": str,
    "selinuxLabel": str,
    "oomScoreAdj": (-1000, 1000),
    "scheduler": _object(
        "policy", policy=frozenset(SCHEDULERS), nice=INT32, priority=INT32, flags=[frozenset(SCHED_FLAGS)],
        runtime=UINT64, deadline=UINT64, period=UINT64,
    ),
    "ioPriority": _object("class", **{"class": frozenset(IO_PRIORITY_CLASSES)}, priority=(0, 7)),
    "execCPUAffinity": {"initial": str, "final": str},
}  # fmt: skip

LINUX: "dict[str, Any]" = {
    "namespaces": [_object("type", type=frozenset(NAMESPACES), path=str)],
    "uidMappings": [_MAPPING],
    "gidMappings": [_MAPPING],
    "timeOffsets": {"monotonic": _TIME, "boottime": _TIME},
    "devices": [
        _object("path type", path=str, type=frozenset("cbup"), major=INT64, minor=INT64, fileMode=UINT32, uid=UINT32,
                gid=UINT32)
    ],
    "netDevices": {"*": {"name": str}},
    "cgroupsPath": str,
    "resources": RESOURCES,
    "rootfsPropagation": str,
    "seccomp": dict,
    "sysctl": {"*": str},
    "maskedPaths": TEXTS,
    "readonlyPaths": TEXTS,
    "mountLabel": str,
    "personality": _object("domain", domain=frozenset(PERSONALITIES), flags=TEXTS),
    "memoryPolicy": {"mode": str, "nodes": str, "flags": TEXTS},
    "intelRdt": {
        "closID": str, "schemata": TEXTS, "l3CacheSchema": str, "memBwSchema": str, "enableMonitoring": bool,
    },
}  # fmt: skip

SHAPE: "dict[str, Any]" = {
    "ociVersion": str,
    "process": PROCESS,
    "root": _object("path", path=str, readonly=bool),
    "hostname": str,
    "domainname": str,
    "mounts": [
        _object(
            "destination", destination=str, type=str, source=str, options=TEXTS, uidMappings=[_MAPPING],
            gidMappings=[_MAPPING],
        )
    ],
    "hooks": dict.fromkeys(
        ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"), _HOOKS
    ),
    "annotations": {"*": str},
    "linux": LINUX,
}  # fmt: skip

_NAMES = {str: "a text", bool: "true or false", dict: "an object", list: "a list", int: "a number",
          float: "a number with a fraction", type(None): "null"}  # fmt: skip


def _wrong(path: str, wanted: str, value: "Any") -> InvalidArgument:
    found = repr(value) if type(value) in (str, int, float) and len(repr(value)) < 60 else _NAMES[type(value)]
    return InvalidArgument(f"{path} must be {wanted}, not {found}")


def walk(value: "Any", shape: "Any", path: str) -> None:
    """Raise InvalidArgument naming the path of what does not have its shape."""
    kind = type(shape)
    if kind is dict:
        if type(value) is not dict:
            raise _wrong(path, "an object", value)
        every = shape.get("*")
        for key, item in value.items():
            expected = shape.get(key, every)
            if expected is not None and item is not None and type(item) is not expected:
                walk(item, expected, f"{path}.{key}" if path else key)
    elif kind is list:
        if type(value) is not list:
            raise _wrong(path, "a list", value)
        expected = shape[0]
        for index, item in enumerate(value):
            if type(item) is not expected:
                walk(item, expected, f"{path}[{index}]")
    elif kind is tuple:
        lowest, highest = shape
        if type(lowest) is dict:
            walk(value, lowest, path)
            for key in highest:
                if value.get(key) is None:
                    raise InvalidArgument(f"{path}.{key} is missing")
        elif type(value) is not int:
            raise _wrong(path, "a whole number", value)
        elif not lowest <= value <= highest:
            raise InvalidArgument(f"{path} must be from {lowest} to {highest}, not {value}")
    elif kind is frozenset:
        if value not in shape if type(value) is str else True:
            raise _wrong(path, "one of " + ", ".join(sorted(shape)), value)
    else:
        raise _wrong(path, _NAMES[shape], value)


# ── Rules ──

MOST_MAPPINGS = 340  # user_namespaces(7), since Linux 4.15


def _version(spec: "dict[str, Any]") -> None:
    version = spec.get("ociVersion")
    if version is not None and not version.startswith("1."):
        raise InvalidArgument(f"ociVersion {version!r} is not supported", remedy="versions 1.x are")


def _process(spec: "dict[str, Any]") -> None:
    process = spec.get("process")
    if not process:
        return
    cwd = process.get("cwd") or ""
    if not cwd.startswith("/"):
        raise InvalidArgument(f"process.cwd must be an absolute path, not {cwd!r}", remedy="most programs want /")
    _without_nul("process.cwd", cwd)
    _program(process.get("args"))
    seen = set()
    for index, limit in enumerate(process.get("rlimits") or ()):
        name = limit["type"]
        if name in seen:
            raise InvalidArgument(f"process.rlimits[{index}].type: {name} is there twice", remedy="leave one out")
        seen.add(name)
        soft, hard = limit.get("soft") or 0, limit.get("hard") or 0
        if soft > hard:
            raise InvalidArgument(f"process.rlimits[{index}].soft: {soft} is above the hard limit {hard}")
    for key, cpus in (process.get("execCPUAffinity") or {}).items():
        if cpus and key in PROCESS["execCPUAffinity"]:
            from .compile.affinity import mask

            mask(cpus, f"process.execCPUAffinity.{key}")


def _program(args: "list[str] | None") -> None:
    if not args or not args[0]:
        raise InvalidArgument("process.args is empty: there is no command to run", remedy='name one, like ["sh"]')
    for index, text in enumerate(args):
        _without_nul(f"process.args[{index}]", text)


def _without_nul(path: str, text: str) -> None:
    if "\0" in text:
        raise InvalidArgument(f"{path} contains a NUL byte: no path or argument of Linux can")


def _namespaces(spec: "dict[str, Any]") -> None:
    linux = spec.get("linux") or {}
    kinds: dict[str, str] = {}
    for index, namespace in enumerate(linux.get("namespaces") or ()):
        kind, path = namespace["type"], namespace.get("path") or ""
        if kind in kinds:
            raise InvalidArgument(f"linux.namespaces[{index}].type: {kind} is there twice", remedy="leave one out")
        if path and not path.startswith("/"):
            raise InvalidArgument(f"linux.namespaces[{index}].path must be absolute, not {path!r}")
        kinds[kind] = path
    mapped = [key for key in ("uidMappings", "gidMappings") if linux.get(key)]
    if "user" not in kinds and mapped:
        raise InvalidArgument(
            f"linux.{mapped[0]} is set, but the container has no user namespace of its own",
            remedy='add {"type": "user"} to linux.namespaces',
        )
    if kinds.get("user") == "":
        for key in ("uidMappings", "gidMappings"):
            maps = linux.get(key)
            if not maps:
                raise InvalidArgument(
                    f"linux.{key} is empty, but the container has a user namespace of its own",
                    remedy='map at least its root, like [{"containerID": 0, "hostID": 100000, "size": 65536}]',
                )
            if all(mapping.get("containerID") for mapping in maps):
                raise InvalidArgument(
                    f"linux.{key} maps nothing to the container's id 0",
                    remedy="the container is set up by its root: map containerID 0",
                )
    for key in mapped:
        _mappings(linux[key], f"linux.{key}")
    offsets = linux.get("timeOffsets")
    if offsets and kinds.get("time") != "":
        what = "joins the time namespace of another" if "time" in kinds else "has no time namespace of its own"
        raise InvalidArgument(f"linux.timeOffsets is set, but the container {what}")
    for key in ("maskedPaths", "readonlyPaths"):
        if linux.get(key) and "mount" not in kinds:
            raise InvalidArgument(
                f"linux.{key} is set, but the container has no mount namespace of its own",
                remedy='add {"type": "mount"} to linux.namespaces',
            )
        for index, path in enumerate(linux.get(key) or ()):
            if not path.startswith("/"):
                raise InvalidArgument(f"linux.{key}[{index}] must be an absolute path, not {path!r}")


def _mappings(mappings: "list[dict[str, Any]]", path: str) -> None:
    for index, mapping in enumerate(mappings):
        if not mapping["size"]:
            raise InvalidArgument(f"{path}[{index}].size must be above 0")
        for key in ("containerID", "hostID"):
            if mapping.get(key, 0) + mapping["size"] > 1 << 32:
                raise InvalidArgument(f"{path}[{index}]: {key} and size go beyond the last id")
    if len(mappings) > MOST_MAPPINGS:
        raise InvalidArgument(f"{path} has {len(mappings)} entries: Linux takes {MOST_MAPPINGS} at most")
    for key in ("containerID", "hostID"):
        ordered = sorted((mapping.get(key, 0), mapping["size"], index) for index, mapping in enumerate(mappings))
        for (first, size, index), (second, _, other) in zip(ordered, ordered[1:], strict=False):  # noqa: RUF007 - itertools is half a millisecond of a cold start
            if first + size > second:
                index, other = sorted((index, other))
                raise InvalidArgument(
                    f"{path}[{other}] overlaps {path}[{index}]: {key} {second} is in both",
                    remedy="an id can be mapped only once",
                )


def _mounts(spec: "dict[str, Any]") -> None:
    for index, mount in enumerate(spec.get("mounts") or ()):
        if not mount["destination"]:
            raise InvalidArgument(f"mounts[{index}].destination is empty")
        for key in ("destination", "source", "type"):
            if "\0" in (mount.get(key) or ""):
                _without_nul(f"mounts[{index}].{key}", mount[key])
        for key in ("uidMappings", "gidMappings"):
            if mount.get(key):
                _mappings(mount[key], f"mounts[{index}].{key}")


def _hooks(spec: "dict[str, Any]") -> None:
    for kind, hooks in (spec.get("hooks") or {}).items():
        if kind not in SHAPE["hooks"]:
            continue
        for index, hook in enumerate(hooks or ()):
            if not hook["path"].startswith("/"):
                raise InvalidArgument(f"hooks.{kind}[{index}].path must be absolute, not {hook['path']!r}")
            timeout = hook.get("timeout")
            if timeout is not None and timeout <= 0:
                raise InvalidArgument(
                    f"hooks.{kind}[{index}].timeout must be above 0, not {timeout}",
                    remedy="leave it out for no limit",
                )


def _devices(spec: "dict[str, Any]") -> None:
    linux = spec.get("linux") or {}
    for index, device in enumerate(linux.get("devices") or ()):
        if not device["path"].startswith("/"):
            raise InvalidArgument(f"linux.devices[{index}].path must be absolute, not {device['path']!r}")
    for index, rule in enumerate((linux.get("resources") or {}).get("devices") or ()):
        device_rule(rule, f"linux.resources.devices[{index}]")


def device_rule(rule: "dict[str, Any]", path: str) -> None:
    """Raise InvalidArgument for a rule of linux.resources.devices that means nothing."""
    if (rule.get("type") or "a") not in ("a", "b", "c"):
        raise InvalidArgument(f"{path}.type must be one of a, b, c, not {rule['type']!r}")
    access = rule.get("access") or ""
    if not set(access) & set("rwm") or set(access) - set("rwma"):  # an "a" means nothing, to runc too
        raise InvalidArgument(f"{path}.access must be letters of rwm, not {access!r}")
    for key in ("major", "minor"):
        if (rule.get(key) or 0) < -1:
            raise InvalidArgument(f"{path}.{key} must be a device number, or -1 for all, not {rule[key]}")


def _names(spec: "dict[str, Any]") -> None:
    linux = spec.get("linux") or {}
    kinds = [namespace["type"] for namespace in linux.get("namespaces") or ()]
    for key in ("hostname", "domainname"):
        if spec.get(key) and "uts" not in kinds:
            raise InvalidArgument(
                f"{key} is set, but the container has no uts namespace of its own: it would rename the host",
                remedy='add {"type": "uts"} to linux.namespaces',
            )
        if len(spec.get(key) or "") > 64:
            raise InvalidArgument(f"{key} is longer than 64 characters")


RULES = (_version, _process, _namespaces, _mounts, _hooks, _devices, _names)


def check(spec: "dict[str, Any]") -> None:
    """Raise InvalidArgument for the first fault of a configuration."""
    linux = spec.get("linux")
    _respell(linux.get("resources") if isinstance(linux, dict) else None)
    walk(spec, SHAPE, "")
    for rule in RULES:
        rule(spec)


def _respell(resources: "Any") -> None:
    """``pagesize`` as runtime-spec spells it: Go reads either, and configurations in the wild have both."""
    if isinstance(resources, dict) and isinstance(resources.get("hugepageLimits"), list):
        for limit in resources["hugepageLimits"]:
            if isinstance(limit, dict) and "pagesize" in limit and "pageSize" not in limit:
                limit["pageSize"] = limit.pop("pagesize")


def check_process(process: "dict[str, Any]") -> None:
    """The same for a process alone, as exec gets it."""
    walk(process, PROCESS, "process")
    _process({"process": process})


def check_program(process: "dict[str, Any]") -> None:
    """The same for what of a process ``check`` has not seen: the rest of its configuration was checked before."""
    walk({key: process[key] for key in ("args", "env") if key in process}, PROCESS, "process")
    _program(process.get("args"))


def check_resources(resources: "dict[str, Any]") -> None:
    """The same for ``linux.resources`` alone, as update gets it."""
    _respell(resources)
    walk(resources, RESOURCES, "linux.resources")
    for index, rule in enumerate(resources.get("devices") or ()):
        device_rule(rule, f"linux.resources.devices[{index}]")
