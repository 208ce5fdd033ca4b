"""What this host and this user can do with containers, what not, and what to change.

``diagnose()`` runs a table of checks and changes nothing.
What only the kernel can tell (may I make a user namespace, may a memfd be executed) is tried, in a process of its own
that ``probe`` is the program of: the caller's interpreter is neither forked nor put into a namespace.

A finding is ``ok``; ``limited``, when containers run but something that they may ask for is not to be had; or
``broken``, when no container runs at all.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from . import host
from .cgroups import Layout
from .handles import state_root
from .host import Host
from .spawning import executor_path

Status = Literal["ok", "limited", "broken"]

OLDEST = (5, 8)  # setns(2) with a pidfd, which exec needs
CAPABILITIES = {
    "CAP_SYS_ADMIN": (21, "mounts and namespaces"),
    "CAP_SYS_RESOURCE": (24, "hard limits above ours, and a lower oom_score_adj: they are clamped"),
    "CAP_MKNOD": (27, "device nodes: those of the host are bound instead"),
    "CAP_NET_ADMIN": (12, "network devices (linux.netDevices)"),
    "CAP_SYS_PTRACE": (19, "checkpoint"),
    "CAP_BPF": (39, "device rules on cgroup v2"),
}  # fmt: skip
CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb", "rdma")
V1_NAMES = {"io": "blkio"}
LSM = "/sys/kernel/security/lsm"


@dataclass(frozen=True)
class Finding:
    """What one check has found: ``detail`` is the fact, ``remedy`` what to change, "" when nothing can be."""

    group: str
    name: str
    status: Status
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Report:
    """All findings, and whose they are."""

    uid: int
    kernel: str
    machine: str
    findings: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        """Whether a container runs at all."""
        return all(finding.status != "broken" for finding in self.findings)

    def to_json(self) -> str:
        """One object: uid, kernel, machine, usable, findings."""
        return json.dumps({**asdict(self), "usable": self.usable}, indent=2)

    def __str__(self) -> str:
        lines = [f"uid {self.uid}, Linux {self.kernel} on {self.machine}, Python {platform.python_version()}"]
        group = ""
        for finding in self.findings:
            if finding.group != group:
                group = finding.group
                lines += ["", group]
            lines.append(f"  {finding.status:<8} {finding.name:<22} {finding.detail}".rstrip())
            if finding.remedy and finding.status != "ok":
                lines.append(f"{'':11}-> {finding.remedy}")
        counts = {kind: sum(f.status == kind for f in self.findings) for kind in ("broken", "limited")}
        lines.append("")
        if counts["broken"]:
            lines.append(f"No container runs here: {counts['broken']} thing(s) to change first.")
        elif counts["limited"]:
            lines.append(f"Containers run here; {counts['limited']} thing(s) cannot be had.")
        else:
            lines.append("Containers run here, and everything can be had.")
        return "\n".join(lines)


@dataclass(frozen=True)
class Facts:
    """What the checks look at: the host, the answers of ``probe``, and where files are (a test has its own root)."""

    host: Host
    probed: dict[str, str]
    root: str = ""

    def read(self, path: str) -> str:
        """A file's text, "" when it cannot be read."""
        try:
            return Path(self.root + path).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def exists(self, path: str) -> bool:
        return os.path.exists(self.root + path)

    def refused(self, *names: str) -> list[str]:
        """Those of the probe's trials that the kernel refused, as ``name (ERRNO)``."""
        return [f"{name} ({self.probed.get(name, 'not tried')})" for name in names if self.probed.get(name) != "ok"]


Check = Callable[[Facts], "Finding | Iterator[Finding]"]


def _finding(
    group: str, name: str, bad: bool, detail: str, remedy: str = "", *, status: Status = "limited"
) -> Finding:
    return Finding(group, name, status if bad else "ok", detail, remedy if bad else "")


# ── The kernel ──


def version(f: Facts) -> Finding:
    major, minor = f.host.kernel
    need = f"{OLDEST[0]}.{OLDEST[1]} or newer is needed"
    return _finding("kernel", "version", f.host.kernel < OLDEST, f"{major}.{minor}; {need}", "update the kernel",
                    status="broken")  # fmt: skip


def system_calls(f: Facts) -> Finding:
    missing = f.refused("clone3", "openat2", "pidfd_open", "fsopen", "open_tree", "move_mount", "mount_setattr")
    absent = [name for name in missing if "ENOSYS" in name]
    detail = f"missing: {', '.join(absent)}" if absent else "clone3, openat2, pidfds, the mount calls"
    return _finding("kernel", "system calls", bool(absent), detail,
                    "an outer container's seccomp filter may hide them: let it answer ENOSYS only for unknown calls, "
                    "or update the kernel", status="broken")  # fmt: skip


def executor(f: Facts) -> Finding:
    path = executor_path()
    if not os.path.exists(path):
        return Finding("kernel", "executor", "broken", f"{path} is not there", "install boxship again")
    answer = f.probed.get("memfd-exec", "not tried")
    sysctl = f.read("/proc/sys/vm/memfd_noexec")
    remedy = "sysctl vm.memfd_noexec=1 or 0" if sysctl == "2" else "a security module may forbid it: see its log"
    detail = "runs from a sealed memfd" if answer == "ok" else f"a memfd cannot be executed: {answer}"
    return _finding("kernel", "executor", answer != "ok", detail, remedy, status="broken")


def namespaces(f: Facts) -> Finding:
    kinds = ("mount", "pid", "network", "ipc", "uts", "cgroup", "time")
    refused = f.refused(*(f"ns-{kind}" for kind in kinds))
    detail = (
        f"cannot be made: {', '.join(name.removeprefix('ns-') for name in refused)}" if refused else ", ".join(kinds)
    )
    essential = any(name.startswith(("ns-mount", "ns-pid")) for name in refused)
    return _finding("kernel", "namespaces", bool(refused), detail,
                    "root needs CAP_SYS_ADMIN; a user needs user namespaces (see below)",
                    status="broken" if essential else "limited")  # fmt: skip


def user_namespaces(f: Facts) -> Finding:
    answer = f.probed.get("ns-user", "not tried")
    needed: Status = "broken" if f.host.user else "limited"
    if f.read("/proc/sys/user/max_user_namespaces") == "0":
        remedy = "sysctl user.max_user_namespaces=15000"
    elif f.read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        remedy = "sysctl kernel.unprivileged_userns_clone=1"
    elif f.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        remedy = "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that allows userns"
    else:
        remedy = "inside a chroot or a container they can be forbidden: ask whoever runs it"
    detail = "can be made" if answer == "ok" else f"cannot be made: {answer}"
    return _finding("kernel", "user namespaces", answer != "ok", detail, remedy, status=needed)


def overlay(f: Facts) -> Finding:
    answer = f.probed.get("overlay", "not tried")
    detail = "can be mounted" if answer == "ok" else f"cannot be mounted: {answer}"
    remedy = "modprobe overlay" if answer == "ENODEV" else "a user needs Linux 5.11; images can be copied instead"
    return _finding("kernel", "overlayfs", answer != "ok", detail, remedy)


def idmapped_mounts(f: Facts) -> Finding:
    kernel = f.host.kernel
    if f.host.user:
        return Finding("kernel", "id-mapped mounts", "limited", "need root in the first user namespace")
    detail = "yes" if kernel >= (5, 19) else "but not on overlay" if kernel >= (5, 12) else "no"
    return _finding(
        "kernel", "id-mapped mounts", kernel < (5, 19), detail, "Linux 5.12 has them, 5.19 on overlay too"
    )


def seccomp(f: Facts) -> Iterator[Finding]:
    answer = f.probed.get("seccomp", "not tried")
    detail = "filters can be loaded" if answer == "ok" else f"no filters: {answer}"
    yield _finding("kernel", "seccomp", answer != "ok", detail, "CONFIG_SECCOMP_FILTER")
    answer = f.probed.get("seccomp-notify", "not tried")
    detail = "a supervisor can be asked" if answer == "ok" else f"no: {answer}"
    yield _finding("kernel", "seccomp listener", answer != "ok", detail, "Linux 5.0; an outer filter may forbid it")


def modules(f: Facts) -> Iterator[Finding]:
    for name, on in (("AppArmor", f.host.apparmor), ("SELinux", f.host.selinux)):
        yield Finding("kernel", name, "ok", "on" if on else "off: profiles and labels are refused")


def rdt(f: Facts) -> Finding:
    mounted = f.exists("/sys/fs/resctrl/schemata")
    return _finding("kernel", "Intel RDT", not mounted, "resctrl is mounted" if mounted else "resctrl is not mounted",
                    "mount -t resctrl resctrl /sys/fs/resctrl, on a processor that has it")  # fmt: skip


# ── Cgroups ──


def _own(layout: Layout) -> str:
    """The directory below which this user's containers would get their groups."""
    if layout.mode == "v2":
        return "/".join(p for p in (layout.unified, layout.own.get("", "") if os.geteuid() else "") if p)
    return layout.v1.get("memory") or next(iter(layout.v1.values()), "")


def cgroup_version(f: Facts) -> Finding:
    layout = f.host.cgroups
    detail = {
        "v1": "v1", "v2": "v2", "hybrid": "v1 hierarchies, with v2 beside them", "none": "no hierarchy is mounted",
    }[layout.mode]  # fmt: skip
    return _finding("cgroups", "version", layout.mode == "none", detail,
                    "mount -t cgroup2 cgroup2 /sys/fs/cgroup; without, no limits are set")  # fmt: skip


def controllers(f: Facts) -> Iterator[Finding]:
    layout = f.host.cgroups
    if layout.mode == "none":
        return
    have = f.read(layout.unified + "/cgroup.controllers").split() if layout.mode == "v2" else list(layout.v1)
    missing = [
        name for name in CONTROLLERS if (name if layout.mode == "v2" else V1_NAMES.get(name, name)) not in have
    ]
    detail = f"missing: {', '.join(missing)}" if missing else ", ".join(CONTROLLERS)
    remedy = "boot with cgroup_enable=memory" if "memory" in missing else "the kernel was built without them"
    yield _finding("cgroups", "controllers", bool(missing), detail, remedy)
    directory = _own(layout)
    writable = os.access(f.root + directory, os.W_OK)
    remedy = "it is mounted read-only here: ask whoever runs this container"
    if f.host.user:
        remedy = "as a user, have systemd delegate a scope: systemd-run --user --scope -p Delegate=yes"
    detail = f"{directory} can be written" if writable else f"{directory} cannot be written: no limits are set"
    yield _finding("cgroups", "delegation", not writable, detail, remedy)
    if layout.mode == "v2":
        answer = f.probed.get("device-filter", "not tried")
        detail = "an eBPF program can be loaded" if answer == "ok" else f"no eBPF program: {answer}"
        remedy = "device rules are not enforced for users" if f.host.user else "CONFIG_CGROUP_BPF, CAP_BPF"
        yield _finding("cgroups", "device rules", answer != "ok", detail, remedy)


def systemd(f: Facts) -> Finding:
    running = f.exists("/run/systemd/system")
    detail = "is running: --systemd-cgroup works" if running else "is not running: cgroups are made by hand"
    return Finding("cgroups", "systemd", "ok", detail)


# ── Who we are ──


def capabilities(f: Facts) -> Finding:
    missing = {name: what for name, (bit, what) in CAPABILITIES.items() if not f.host.may(bit)}
    if f.host.user:
        return Finding("user", "root", "limited", "no: ids are mapped, the network is the host's", "")
    detail = f"missing: {', '.join(missing)}" if missing else "all that are needed"
    remedy = "; ".join(f"{name} is for {what}" for name, what in missing.items())
    status: Status = "broken" if "CAP_SYS_ADMIN" in missing else "limited"
    return _finding("user", "capabilities", bool(missing), detail, remedy, status=status)


def id_maps(f: Facts) -> Iterator[Finding]:
    if not f.host.user:
        return
    import pwd

    try:
        name = pwd.getpwuid(f.host.user).pw_name
    except KeyError:
        name = str(f.host.user)
    helpers = [program for program in ("newuidmap", "newgidmap") if not shutil.which(program)]
    ranges = [
        file for file in ("/etc/subuid", "/etc/subgid")
        if not any(line.split(":")[0] in (name, str(f.host.user)) for line in f.read(file).splitlines())
    ]  # fmt: skip
    detail = "one id, yours" if helpers or ranges else "the ranges of /etc/subuid and /etc/subgid"
    remedy = []
    if helpers:
        remedy.append(f"install {' and '.join(helpers)} (package uidmap)")
    if ranges:
        remedy.append(f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}")
    yield _finding("user", "mapped ids", bool(helpers or ranges), detail, "; ".join(remedy))


def state_directory(f: Facts) -> Finding:
    path = Path(state_root())
    while not path.exists():
        path = path.parent
    writable = os.access(path, os.W_OK)
    detail = f"{state_root()} can be {'used' if path == Path(state_root()) else 'made'}"
    return _finding("user", "state", not writable, detail if writable else f"{path} cannot be written",
                    "name another with --root (or root=)", status="broken")  # fmt: skip


# ── Programs ──


def criu(f: Facts) -> Finding:
    path = shutil.which("criu")
    if not path:
        return Finding("programs", "criu", "limited", "not installed: no checkpoint and restore", "install criu")
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    number = text.partition("Version:")[2].split()[0] if "Version:" in text else "?"
    old = number.split(".")[0].isdigit() and int(number.split(".")[0]) < 4 and f.host.kernel >= (6, 13)
    return _finding("programs", "criu", old, f"{number} ({path})",
                    f"version 4 or newer: {number} cannot handle the vdso of this kernel")  # fmt: skip


def ps(f: Facts) -> Finding:
    path = shutil.which("ps")
    return _finding("programs", "ps", not path, path or "not installed: boxship-runc ps prints pids only",
                    "install procps")  # fmt: skip


CHECKS: Sequence[Check] = (
    version, system_calls, executor, namespaces, user_namespaces, overlay, idmapped_mounts, seccomp, modules, rdt,
    cgroup_version, controllers, systemd, capabilities, id_maps, state_directory, criu, ps,
)  # fmt: skip


# ── Trying ──


def probe() -> dict[str, str]:
    """What the kernel says to each trial of ``doctor_probe``: "ok" or the name of an errno."""
    program = str(Path(__file__).with_name("doctor_probe.py"))
    run = subprocess.run(
        [sys.executable, "-I", "-S", program, executor_path()],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    found = {}
    for line in run.stdout.splitlines():
        name, _, answer = line.partition(" ")
        found[name] = answer
    return found


def diagnose(facts: Facts | None = None) -> Report:
    """Run all checks; nothing is changed. ``facts`` are those of this host unless given."""
    facts = facts or Facts(host.detect(), probe())
    findings: list[Finding] = []
    for check in CHECKS:
        found = check(facts)
        findings += [found] if isinstance(found, Finding) else found
    return Report(facts.host.user, os.uname().release, os.uname().machine, tuple(findings))
