"""The default spec: what ``boxship-runc spec`` writes and what the library starts from."""

import os

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
    from .container import OCI_VERSION

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
        "ociVersion": OCI_VERSION,
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
