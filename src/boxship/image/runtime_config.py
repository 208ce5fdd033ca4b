"""An image config becomes a runtime's config.json (image-spec, conversion.md).

`convert` starts from `template`, a container with its own namespaces, no privileges to gain and few capabilities, and
puts in what the image says. Whoever runs it may change the file; `tools` write it and forget it.
"""

import os
from typing import Any

from boxship.errors import InvalidArgument, NotFound
from boxship.image import users
from boxship.image.idmap import IDENTITY, IdMap
from boxship.oci import image as oci

RUNTIME_SPEC = "1.2.0"
_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_NAMESPACES = ("cgroup", "pid", "network", "ipc", "uts", "mount")
_MOUNTS = (
    ("/proc", "proc", "proc", ()),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", "ro")),
)
_MASKED = (
    *("/proc/kcore", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug"),
    *("/sys/firmware", "/proc/scsi"),
)
_READONLY = ("/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_VOLUME_OPTIONS = ["rw", "nosuid", "nodev", "noexec", "relatime"]
_RESOLV_CONF = "/etc/resolv.conf"

# conversion.md, "Annotation Fields" and "Parsed Fields": annotation <- field of the image config
_ANNOTATIONS = {
    "org.opencontainers.image.os": "os",
    "org.opencontainers.image.architecture": "architecture",
    "org.opencontainers.image.variant": "variant",
    "org.opencontainers.image.author": "author",
    "org.opencontainers.image.created": "created",
}
_ANNOTATION_STOP_SIGNAL = "org.opencontainers.image.stopSignal"
_ANNOTATION_PORTS = "org.opencontainers.image.exposedPorts"
# What the kernel does not let a user namespace take away from a mount (mount_namespaces(7)).
_LOCKED = (
    (os.ST_RDONLY, "ro"),
    (os.ST_NODEV, "nodev"),
    (os.ST_NOEXEC, "noexec"),
    (os.ST_NOSUID, "nosuid"),
    (os.ST_NOATIME, "noatime"),
    (os.ST_RELATIME, "relatime"),
    (os.ST_NODIRATIME, "nodiratime"),
)


def template() -> "dict[str, Any]":
    """A config.json without an image."""
    return {
        "ociVersion": RUNTIME_SPEC,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "hostname": "umoci-default",
        "mounts": [
            {"destination": place, "type": kind, "source": source} | ({"options": list(options)} if options else {})
            for place, kind, source, options in _MOUNTS
        ],
        "annotations": {},
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in _NAMESPACES],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READONLY),
        },
    }


def convert(image: oci.ImageConfig, rootfs: "str | None" = None, idmap: IdMap = IDENTITY) -> "dict[str, Any]":
    """The config.json for ``image``, whose files are in ``rootfs`` (for its users; None: names become root).

    Raises InvalidArgument (not for Linux, a damaged variable), NotFound (a user who is not in the image).
    """
    if image.os != "linux":
        raise InvalidArgument(
            f"the image is for {image.os or 'no named system'}", cause="only linux can be converted"
        )
    spec = template()
    settings = image.config or {}
    process = spec["process"]
    process["cwd"] = settings.get("WorkingDir") or "/"
    for variable in settings.get("Env") or ():
        _set_variable(process["env"], variable)
    args = [*(settings.get("Entrypoint") or ()), *(settings.get("Cmd") or ())]
    if args:
        process["args"] = args
    _set_user(process, settings.get("User") or "", rootfs)
    spec["annotations"] = _annotations(image, settings)
    for volume in sorted(settings.get("Volumes") or ()):
        spec["mounts"].append(
            {"destination": volume, "type": "tmpfs", "source": "none", "options": list(_VOLUME_OPTIONS)}
        )
    if rootfs:
        spec["root"]["path"] = os.path.basename(os.path.normpath(rootfs))
    _map_ids(spec, idmap)
    return spec


def _set_variable(env: "list[str]", variable: str, *, replace: bool = True) -> None:
    name, equals, _ = variable.partition("=")
    if not name or not equals:
        raise InvalidArgument(f"the image has the environment variable {variable!r}", cause="expected NAME=value")
    for at, known in enumerate(env):
        if known.startswith(name + "="):
            if replace:
                env[at] = variable
            return
    env.append(variable)


def _set_user(process: "dict[str, Any]", text: str, rootfs: "str | None") -> None:
    try:
        user = users.lookup(text, rootfs)
    except NotFound:
        if rootfs is not None:
            raise
        user = users.User()  # without the image's files a name says nothing
    process["user"] = {"uid": user.uid, "gid": user.gid}
    if user.groups:
        process["user"]["additionalGids"] = list(user.groups)
    if user.home:
        _set_variable(process["env"], f"HOME={user.home}", replace=False)


def _annotations(image: oci.ImageConfig, settings: "dict[str, Any]") -> "dict[str, str]":
    found = {name: str(getattr(image, field) or "") for name, field in _ANNOTATIONS.items()}
    found[_ANNOTATION_STOP_SIGNAL] = settings.get("StopSignal") or ""
    found[_ANNOTATION_PORTS] = ",".join(sorted(settings.get("ExposedPorts") or ()))
    # Labels go before what is derived (conversion.md).
    return {name: value for name, value in found.items() if value} | (settings.get("Labels") or {})


def _map_ids(spec: "dict[str, Any]", idmap: IdMap) -> None:
    linux = spec["linux"]
    if idmap.uids or idmap.gids:
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = [one.to_json() for one in idmap.uids]
        linux["gidMappings"] = [one.to_json() for one in idmap.gids]
    if idmap.rootless:
        _without_privileges(spec)


def _without_privileges(spec: "dict[str, Any]") -> None:
    """What a user without privileges can start: the host's network and /sys, no groups, no cgroup."""
    spec["process"]["user"].pop("additionalGids", None)
    linux = spec["linux"]
    kept = [one for one in linux["namespaces"] if one["type"] not in ("network", "user")]
    linux["namespaces"] = [*kept, {"type": "user"}]
    del linux["resources"]
    mounts = []
    for mount in spec["mounts"]:
        if mount["destination"].startswith("/sys"):
            continue
        if "options" in mount:
            mount["options"] = [one for one in mount["options"] if not one.startswith(("gid=", "uid="))]
        mounts.append(mount)
    mounts.append(_bind("/sys", ["rbind", "nosuid", "noexec", "nodev", "ro"]))
    if os.path.exists(_RESOLV_CONF):
        flags = os.statvfs(_RESOLV_CONF).f_flag
        mounts.append(_bind(_RESOLV_CONF, [*(name for flag, name in _LOCKED if flags & flag), "rbind", "ro"]))
    spec["mounts"] = mounts


def _bind(path: str, options: "list[str]") -> "dict[str, Any]":
    return {"destination": path, "type": "bind", "source": path, "options": options}
