"""``spec``: a config.json to start from."""

import os

from boxship.errors import AlreadyExists, NotFound
from boxship.oci import cold_json

from ..main import SPEC_VERSION, Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
MASKED = ("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
          "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi")  # fmt: skip
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
MOUNTS = (
    ("/proc", "proc", "proc", ""),
    ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
    ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid noexec nodev relatime ro"),
)


def default(*, rootless: bool = False, cgroup_namespace: bool = True) -> "dict[str, Any]":
    """The default spec: a shell on a terminal in a read-only root."""
    namespaces = ["pid", "network", "ipc", "uts", "mount", *(["cgroup"] if cgroup_namespace else [])]
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in namespaces],
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READ_ONLY),
    }
    mounts: list[dict[str, Any]] = []
    for destination, type, source, words in MOUNTS:
        mount: dict[str, Any] = {"destination": destination, "type": type, "source": source}
        if words:
            mount["options"] = words.split()
        mounts.append(mount)
    if rootless:
        # A user's own namespace: no network of its own (nobody could connect it), /sys bound from the host.
        linux["namespaces"] = [{"type": kind} for kind in [*namespaces, "user"] if kind != "network"]
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
        for mount in mounts:
            if mount["type"] == "sysfs":
                mount.update(type="none", source="/sys", options=["rbind", "nosuid", "noexec", "nodev", "ro"])
            elif "options" in mount:
                mount["options"] = [word for word in mount["options"] if not word.startswith("gid=")]
    else:
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "boxship",
        "mounts": mounts,
        "linux": linux,
    }


def run(call: Call) -> int:
    bundle = call.options.text("bundle", ".")
    if not os.path.isdir(bundle):
        raise NotFound(f"--bundle {bundle}: no such directory")
    path = os.path.join(bundle, "config.json")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError as error:
        raise AlreadyExists(f"file {path} exists", remedy="remove it first") from error
    # A cgroup namespace only where the whole host is on v2, as runc has it: on v1 programs expect the host's paths.
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    spec = default(rootless=call.options.flag("rootless"), cgroup_namespace=unified)
    with open(fd, "w") as f:
        f.write(cold_json.dumps_indented(spec) + "\n")
    return 0
