"""From a container's record to the OCI runtime configuration that its task is created with.

``build`` is the order of a container's making on one screen; each pass fills one part of the document.
What dockerd does by default (default mounts, masked paths, capabilities, device rules, seccomp) is in the tables.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from boxship.errors import FailedPrecondition, InvalidArgument
from boxship.libcontainer.seccomp.docker import docker_default

from . import parse
from .models import MASKED_PATHS, READONLY_PATHS, MountPoint, Record

Spec = dict[str, Any]

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
    "CAP_AUDIT_WRITE",
)  # fmt: skip

# capabilities(7), by number
ALL_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip

DEFAULT_MOUNTS: tuple[tuple[str, str, str, list[str]], ...] = (
    # destination, type, source, options
    ("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ["ro", "nosuid", "noexec", "nodev"]),
    ("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
)

# (type, major, minor, access): null, zero, full, random, urandom, tty, console, ptmx, pts, tun by mknod only
DEVICE_RULES: tuple[tuple[str, int | None, int | None, str], ...] = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 5, 1, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 136, None, "rwm"),
)

DEFAULT_SHM = 64 * 1024 * 1024


@dataclass(frozen=True)
class HostFacts:
    """What the configuration depends on beside the record."""

    machine: str
    kernel: tuple[int, int]
    cgroup_v2: bool
    cpus: int
    memory: int
    capabilities: frozenset[str]  # that this engine has itself, and so can give

    @classmethod
    def read(cls) -> HostFacts:
        uname = os.uname()
        major, minor = uname.release.split(".")[:2]
        status = open("/proc/self/status").read()  # noqa: SIM115 - procfs, read whole at once
        held = int(status.split("CapBnd:")[1].split()[0], 16)
        return cls(
            machine=uname.machine,
            kernel=(int(major), int("".join(c for c in minor if c.isdigit()) or 0)),
            cgroup_v2=os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
            cpus=os.cpu_count() or 1,
            memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            capabilities=frozenset(name for number, name in enumerate(ALL_CAPABILITIES) if held >> number & 1),
        )


@dataclass(frozen=True)
class Identity:
    """Who the process is, looked up in the image's own /etc/passwd and /etc/group."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


@dataclass
class Surroundings:
    """What the engine prepared for this start."""

    identity: Identity = field(default_factory=Identity)
    mounts: Sequence[MountPoint] = ()
    files: dict[str, str] = field(default_factory=dict)  # destination -> host path: hosts, resolv.conf, hostname
    namespaces: dict[str, str] = field(default_factory=dict)  # runtime-spec type -> path of one to join
    init_path: str = ""  # on the host, for --init


def build(record: Record, host: HostFacts, around: Surroundings) -> Spec:
    """The whole configuration; raises InvalidArgument or FailedPrecondition that name the option."""
    spec: Spec = {"ociVersion": "1.2.0", "annotations": {}}
    if "uts" not in around.namespaces:  # a namespace of somebody else keeps its name
        spec["hostname"] = record.Config.Hostname
        if record.Config.Domainname:
            spec["domainname"] = record.Config.Domainname
    spec["root"] = {"path": "rootfs", "readonly": record.HostConfig.ReadonlyRootfs}
    spec["process"] = process(record, around)
    spec["process"]["capabilities"] = capabilities(record, host)
    spec["mounts"] = mounts(record, host, around)
    linux: Spec = {}
    spec["linux"] = linux
    linux["namespaces"] = namespaces(record, host, around)
    linux["cgroupsPath"] = f"{record.HostConfig.CgroupParent or '/boxship'}/{record.Id}"
    linux["resources"] = resources(record, host)
    linux["devices"] = devices(record, linux["resources"])
    linux["sysctl"] = sysctls(record)
    paths(record, linux)
    security(record, host, spec)
    if record.HostConfig.Annotations:
        spec["annotations"].update(record.HostConfig.Annotations)
    return spec


def environment(record: Record, home: str) -> list[str]:
    """PATH, HOSTNAME, TERM and HOME in front, each overridden by what the configuration sets."""
    base = [DEFAULT_PATH, f"HOSTNAME={record.Config.Hostname}"]
    if record.Config.Tty:
        base.append("TERM=xterm")
    given = [entry for entry in record.Config.Env or [] if "=" in entry]
    removed = {entry for entry in record.Config.Env or [] if "=" not in entry}
    names = {entry.partition("=")[0] for entry in given}
    merged = [e for e in base if e.partition("=")[0] not in names and e.partition("=")[0] not in removed] + given
    if "HOME" not in names and "HOME" not in removed:
        merged.append(f"HOME={home}")
    return merged


def process(record: Record, around: Surroundings) -> Spec:
    config, identity = record.Config, around.identity
    args = [record.Path, *record.Args]
    if around.init_path:
        args = ["/sbin/docker-init", "--", *args]
    groups = list(identity.groups)
    found: Spec = {
        "args": args,
        "cwd": config.WorkingDir or "/",
        "env": environment(record, identity.home),
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": groups},
        "oomScoreAdj": record.HostConfig.OomScoreAdj,
    }
    if config.Tty:
        found["terminal"] = True
        height, width = (*record.HostConfig.ConsoleSize, 0, 0)[:2]
        if height and width:
            found["consoleSize"] = {"height": height, "width": width}
    found["rlimits"] = [
        {"type": "RLIMIT_" + limit.Name.upper(), "soft": limit.Soft, "hard": limit.Hard}
        for limit in record.HostConfig.Ulimits or []
    ]
    return found


def normal_capability(name: str) -> str:
    """``net_admin`` and ``CAP_NET_ADMIN`` as ``CAP_NET_ADMIN``; ALL stays; raises InvalidArgument."""
    upper = name.upper()
    if upper in ("ALL", "CAP_ALL"):
        return "ALL"
    full = upper if upper.startswith("CAP_") else "CAP_" + upper
    if full not in ALL_CAPABILITIES:
        raise InvalidArgument(f"invalid capability: {name!r}")
    return full


def capability_list(record: Record, host: HostFacts) -> list[str]:
    host_config = record.HostConfig
    add = [normal_capability(name) for name in host_config.CapAdd or []]
    drop = [normal_capability(name) for name in host_config.CapDrop or []]
    if host_config.Privileged or "ALL" in add:
        base = [name for name in ALL_CAPABILITIES if name in host.capabilities]
        if host_config.Privileged:
            return base
    elif "ALL" in drop:
        base = []
    else:
        base = list(DEFAULT_CAPABILITIES)
    return [name for name in base if name not in drop] + [
        name for name in add if name not in base and name != "ALL" and name not in drop
    ]


def capabilities(record: Record, host: HostFacts) -> Spec:
    names = capability_list(record, host)
    missing = [name for name in names if name not in host.capabilities]
    if missing:
        asked = [normal_capability(name) for name in record.HostConfig.CapAdd or []]
        for name in missing:
            if name in asked:
                raise FailedPrecondition(
                    f"--cap-add {name}: the engine does not have this capability itself",
                    remedy="run the engine with it, or leave it out",
                )
        names = [name for name in names if name in host.capabilities]
    sets: Spec = {"bounding": names, "effective": names, "permitted": names}
    if not record.Config.User or record.Config.User.split(":")[0] in ("0", "root"):
        return sets
    # Another user than root starts with none in effect; what it may still gain (setuid programs) is the bound.
    return {"bounding": names, "effective": [], "permitted": []}


def mounts(record: Record, host: HostFacts, around: Surroundings) -> list[Spec]:
    """Default mounts, then the container's own sorted by depth, so that no parent hides its child."""
    host_config = record.HostConfig
    taken = {point.Destination.rstrip("/") for point in around.mounts} | {
        target.rstrip("/") for target in host_config.Tmpfs or {}
    }
    found: list[Spec] = []
    for destination, kind, source, options in DEFAULT_MOUNTS:
        if destination in taken:
            continue
        if host_config.Privileged and destination in ("/sys", "/sys/fs/cgroup"):
            options = [option for option in options if option != "ro"]
        found.append({"destination": destination, "type": kind, "source": source, "options": list(options)})
    found += shm(record, taken)
    read_only = ["ro"] if host_config.ReadonlyRootfs else []
    custom: list[Spec] = [
        {"destination": destination, "type": "bind", "source": source, "options": ["rbind", *read_only, "rprivate"]}
        for destination, source in around.files.items()
        if destination not in taken
    ]
    if around.init_path:
        custom.append(
            {
                "destination": "/sbin/docker-init",
                "type": "bind",
                "source": around.init_path,
                "options": ["bind", "ro"],
            }
        )
    for point in around.mounts:
        if point.Type == "tmpfs":
            options = ["nosuid", "nodev", *[option for option in point.Mode.split(",") if option]]
            if not point.RW:
                options.append("ro")
            custom.append({"destination": point.Destination, "type": "tmpfs", "source": "tmpfs", "options": options})
            continue
        options = ["rbind", *([] if point.RW else ["ro"]), point.Propagation or "rprivate"]
        custom.append({"destination": point.Destination, "type": "bind", "source": point.Source, "options": options})
    for target, options_text in (host_config.Tmpfs or {}).items():
        options = [o for o in options_text.split(",") if o]
        base = [] if "exec" in options else ["noexec"]
        custom.append(
            {
                "destination": target,
                "type": "tmpfs",
                "source": "tmpfs",
                "options": [*base, "nosuid", "nodev", *[o for o in options if o != "exec"]],
            }
        )
    custom.sort(key=lambda mount: mount["destination"].count("/"))
    return found + custom


def shm(record: Record, taken: set[str]) -> list[Spec]:
    if "/dev/shm" in taken:
        return []
    if record.HostConfig.IpcMode == "host":
        return [{"destination": "/dev/shm", "type": "bind", "source": "/dev/shm", "options": ["rbind", "rprivate"]}]
    size = record.HostConfig.ShmSize or DEFAULT_SHM
    return [
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", f"size={size}"],
        }
    ]


def namespaces(record: Record, host: HostFacts, around: Surroundings) -> list[Spec]:
    """A new namespace of each kind, but those that are joined by path or shared with the host ("host")."""
    host_config = record.HostConfig
    kinds = ["mount", "network", "uts", "pid", "ipc"]
    if (host_config.CgroupnsMode or default_cgroupns(host, host_config.Privileged)) == "private":
        kinds.append("cgroup")
    found: list[Spec] = []
    for kind in kinds:
        path = around.namespaces.get(kind, "")
        if path == "host":
            continue
        found.append({"type": kind, "path": path} if path else {"type": kind})
    return found


def default_cgroupns(host: HostFacts, privileged: bool) -> str:
    """dockerd's default: private where cgroup v2 makes it whole, the host's on v1 and for privileged ones."""
    return "private" if host.cgroup_v2 and not privileged else "host"


def resources(record: Record, host: HostFacts) -> Spec:
    asked = record.HostConfig
    memory: Spec = {}
    if asked.Memory:
        memory["limit"] = asked.Memory
        # As dockerd: without a word about swap the container may use as much again.
        memory["swap"] = asked.MemorySwap or 2 * asked.Memory
    elif asked.MemorySwap:
        memory["swap"] = asked.MemorySwap
    if asked.MemoryReservation:
        memory["reservation"] = asked.MemoryReservation
    if asked.MemorySwappiness is not None and asked.MemorySwappiness >= 0:
        memory["swappiness"] = asked.MemorySwappiness
    if asked.OomKillDisable:
        memory["disableOOMKiller"] = True
    cpu: Spec = {}
    if asked.NanoCpus:
        cpu["period"] = 100_000
        cpu["quota"] = asked.NanoCpus // 10_000
    for key, value in (
        ("shares", asked.CpuShares),
        ("period", asked.CpuPeriod),
        ("quota", asked.CpuQuota),
        ("realtimePeriod", asked.CpuRealtimePeriod),
        ("realtimeRuntime", asked.CpuRealtimeRuntime),
        ("cpus", asked.CpusetCpus),
        ("mems", asked.CpusetMems),
    ):
        if value:
            cpu[key] = value
    found: Spec = {"devices": device_rules(record)}
    if memory:
        found["memory"] = memory
    if cpu:
        found["cpu"] = cpu
    if asked.PidsLimit is not None and asked.PidsLimit != 0:
        found["pids"] = {"limit": asked.PidsLimit}
    return found


def device_rules(record: Record) -> list[Spec]:
    if record.HostConfig.Privileged:
        return [{"allow": True, "access": "rwm"}]
    found: list[Spec] = [{"allow": False, "access": "rwm"}]
    for kind, major, minor, access in DEVICE_RULES:
        rule: Spec = {"allow": True, "type": kind, "access": access}
        if major is not None:
            rule["major"] = major
        if minor is not None:
            rule["minor"] = minor
        found.append(rule)
    return found + [_device_rule(text) for text in record.HostConfig.DeviceCgroupRules or []]


def _device_rule(text: str) -> Spec:
    words = text.split()
    if len(words) == 3 and words[0] in ("a", "b", "c") and not set(words[2]) - set("rwm"):
        major, colon, minor = words[1].partition(":")
        if colon and all(part == "*" or part.isdigit() for part in (major, minor)):
            rule: Spec = {"allow": True, "type": words[0], "access": words[2]}
            if major != "*":
                rule["major"] = int(major)
            if minor != "*":
                rule["minor"] = int(minor)
            return rule
    raise InvalidArgument(f"invalid device cgroup rule {text!r}", remedy="like 'c 1:3 rwm'")


def devices(record: Record, limits: Spec) -> list[Spec]:
    """Device nodes: those of --device, and every host device for a privileged container."""
    found: list[Spec] = []
    if record.HostConfig.Privileged:
        for directory, _, files in os.walk("/dev"):
            if directory.startswith(("/dev/pts", "/dev/shm", "/dev/mqueue")):
                continue
            for name in files:
                node = _node(os.path.join(directory, name), os.path.join(directory, name))
                if node is not None and node["path"] != "/dev/console":
                    found.append(node)
    for raw in record.HostConfig.Devices or []:
        mapping = parse.device(raw)
        paths_on_host = [(mapping.PathOnHost, mapping.PathInContainer)]
        if os.path.isdir(mapping.PathOnHost):
            paths_on_host = [
                (os.path.join(d, f), mapping.PathInContainer + os.path.join(d, f)[len(mapping.PathOnHost) :])
                for d, _, files in os.walk(mapping.PathOnHost)
                for f in files
            ]
        added = 0
        for source, target in paths_on_host:
            node = _node(source, target)
            if node is None:
                continue
            added += 1
            found.append(node)
            limits["devices"].append(
                {
                    "allow": True,
                    "type": node["type"],
                    "major": node["major"],
                    "minor": node["minor"],
                    "access": mapping.CgroupPermissions,
                }
            )
        if not added:
            raise InvalidArgument(
                f'error gathering device information while adding custom device "{mapping.PathOnHost}": '
                + ("not a device node" if os.path.exists(mapping.PathOnHost) else "no such file or directory")
            )
    return found


def _node(source: str, target: str) -> Spec | None:
    try:
        status = os.stat(source)
    except OSError:
        return None
    kind = {0o020000: "c", 0o060000: "b"}.get(status.st_mode & 0o170000)
    if kind is None:
        return None
    return {
        "path": target,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": status.st_mode & 0o7777,
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def sysctls(record: Record) -> dict[str, str]:
    """As dockerd: unprivileged ports and ping work without capabilities where the network namespace is ours."""
    found = dict(record.HostConfig.Sysctls or {})
    mode = record.HostConfig.NetworkMode
    if mode != "host" and not mode.startswith("container:"):
        found.setdefault("net.ipv4.ip_unprivileged_port_start", "0")
        if not record.HostConfig.UsernsMode:
            found.setdefault("net.ipv4.ping_group_range", "0 2147483647")
    return found


def paths(record: Record, linux: Spec) -> None:
    asked = record.HostConfig
    if asked.Privileged:
        return
    linux["maskedPaths"] = MASKED_PATHS if asked.MaskedPaths is None else asked.MaskedPaths
    linux["readonlyPaths"] = READONLY_PATHS if asked.ReadonlyPaths is None else asked.ReadonlyPaths


def security(record: Record, host: HostFacts, spec: Spec) -> None:
    """``--security-opt``: no-new-privileges, seccomp, and what this host must have for the others."""
    profile: object = None
    for option in record.HostConfig.SecurityOpt or []:
        # An older form has a colon; a profile's own text has many.
        key, separator, value = option.partition("=" if "=" in option else ":")
        if key == "no-new-privileges" and value in ("", "true", "false"):
            spec["process"]["noNewPrivileges"] = value != "false"
        elif key == "seccomp" and separator:
            profile = "unconfined" if value == "unconfined" else _custom_profile(value)
        elif key == "label" or (key == "apparmor" and value in ("unconfined", "")):
            continue  # nothing to do on a host without that LSM, and dockerd takes them too
        elif key == "systempaths" and value == "unconfined":
            spec["linux"].pop("maskedPaths", None)
            spec["linux"].pop("readonlyPaths", None)
        elif key == "apparmor":
            raise FailedPrecondition(f"--security-opt {option}: this host has no AppArmor")
        else:
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    spec["process"].setdefault("noNewPrivileges", False)
    if profile == "unconfined" or (record.HostConfig.Privileged and profile is None):
        return
    if profile is None:
        bounding = spec["process"]["capabilities"]["bounding"]
        profile = docker_default(bounding, host.machine, host.kernel)
    spec["linux"]["seccomp"] = profile


def _custom_profile(text: str) -> Spec:
    """A profile in docker's form (``syscalls`` with ``name`` or ``names``), whose text the CLI sends whole."""
    import msgspec

    try:
        raw = msgspec.json.decode(text.encode(), type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error
    profile: Spec = {key: raw[key] for key in ("defaultAction", "defaultErrnoRet", "flags") if raw.get(key)}
    profile["architectures"] = raw.get("architectures") or []
    for entry in raw.get("archMap") or []:
        if entry.get("architecture") == "SCMP_ARCH_" + os.uname().machine.upper():
            profile["architectures"] += [entry["architecture"], *(entry.get("subArchitectures") or [])]
    profile["syscalls"] = []
    for rule in raw.get("syscalls") or []:
        kept = {key: rule[key] for key in ("action", "errnoRet", "args") if rule.get(key)}
        kept["names"] = rule.get("names") or [rule.get("name")]
        profile["syscalls"].append(kept)
    return profile
