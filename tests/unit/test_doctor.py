"""The doctor's findings on hosts that are described here, and that this host gets a report at all."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from boxship.libcontainer import doctor
from boxship.libcontainer.cgroups import Layout
from boxship.libcontainer.doctor import Facts, Finding, diagnose
from boxship.libcontainer.host import Host

TRIALS = (
    "ns-mount ns-pid ns-network ns-ipc ns-uts ns-cgroup ns-time ns-user clone3 openat2 pidfd_open fsopen open_tree "
    "move_mount mount_setattr overlay memfd-exec seccomp seccomp-notify device-filter"
).split()
V1 = {name: "/cg/" + name for name in ("cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "rdma", "devices")}


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}" if name != "criu" else None)
    monkeypatch.setattr(doctor, "state_root", lambda: str(tmp_path))


def facts(
    root: Path, *, files: "dict[str, str] | None" = None, layout: "Layout | None" = None, **changes: Any
) -> Facts:
    """A host on which all is well, but for the changes: probe answers by name, and kernel, user, capabilities."""
    probed = dict.fromkeys(TRIALS, "ok")
    probed.update({name.replace("_", "-"): changes.pop(name) for name in list(changes) if name.startswith("ns_")})
    probed.update(changes.pop("answers", {}))
    for path, text in {"/sys/fs/resctrl/schemata": "", **(files or {})}.items():
        (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (root / path.lstrip("/")).write_text(text)
    (root / "cg/memory").mkdir(parents=True, exist_ok=True)
    host = Host(
        kernel=changes.pop("kernel", (6, 12)),
        last_capability=40,
        capabilities=changes.pop("capabilities", (1 << 41) - 1),
        user=changes.pop("user", 0),
        cgroups=layout or Layout("v1", V1, "", {}),
        modules=(False, False),
    )
    assert not changes
    return Facts(host, probed, str(root))


def findings(given: Facts, *names: str) -> list[Finding]:
    return [finding for finding in diagnose(given).findings if finding.name in names]


def test_a_host_on_which_all_is_well(tmp_path: Path) -> None:
    report = diagnose(facts(tmp_path))
    assert report.usable
    assert [f.name for f in report.findings if f.status != "ok"] == ["criu"]
    assert str(report).endswith("Containers run here; 1 thing(s) cannot be had.")


@pytest.mark.parametrize(
    ("changes", "name", "status", "words"),
    [
        ({"kernel": (5, 4)}, "version", "broken", "update the kernel"),
        ({"answers": {"openat2": "ENOSYS"}}, "system calls", "broken", "missing: openat2 (ENOSYS)"),
        ({"answers": {"memfd-exec": "EACCES"}}, "executor", "broken", "a memfd cannot be executed: EACCES"),
        (
            {"answers": {"memfd-exec": "EACCES"}, "files": {"/proc/sys/vm/memfd_noexec": "2"}},
            "executor", "broken", "sysctl vm.memfd_noexec=1 or 0",
        ),
        ({"ns_time": "EINVAL"}, "namespaces", "limited", "cannot be made: time (EINVAL)"),
        ({"ns_mount": "EPERM"}, "namespaces", "broken", "mount (EPERM)"),
        ({"ns_user": "EPERM"}, "user namespaces", "limited", "cannot be made: EPERM"),
        ({"ns_user": "EPERM", "user": 7}, "user namespaces", "broken", "cannot be made: EPERM"),
        (
            {"ns_user": "ENOSPC", "files": {"/proc/sys/user/max_user_namespaces": "0"}},
            "user namespaces", "limited", "sysctl user.max_user_namespaces=15000",
        ),
        (
            {"ns_user": "EPERM", "files": {"/proc/sys/kernel/unprivileged_userns_clone": "0"}},
            "user namespaces", "limited", "kernel.unprivileged_userns_clone=1",
        ),
        (
            {"ns_user": "EPERM", "files": {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}},
            "user namespaces", "limited", "apparmor_restrict_unprivileged_userns=0",
        ),
        ({"answers": {"overlay": "ENODEV"}}, "overlayfs", "limited", "modprobe overlay"),
        ({"kernel": (5, 15)}, "id-mapped mounts", "limited", "but not on overlay"),
        ({"answers": {"seccomp": "EINVAL"}}, "seccomp", "limited", "no filters: EINVAL"),
        ({"layout": Layout("none", {}, "", {})}, "version", "limited", "no hierarchy is mounted"),
        ({"layout": Layout("v1", {"memory": "/cg/memory"}, "", {})}, "controllers", "limited", "missing: cpu,"),
        ({"layout": Layout("v1", {"memory": "/cg/nowhere"}, "", {})}, "delegation", "limited", "no limits are set"),
        ({"capabilities": ~(1 << 24) & (1 << 41) - 1}, "capabilities", "limited", "missing: CAP_SYS_RESOURCE"),
        ({"capabilities": 0}, "capabilities", "broken", "CAP_SYS_ADMIN is for mounts and namespaces"),
        ({"user": 7}, "root", "limited", "ids are mapped"),
        ({"user": 7}, "mapped ids", "limited", "usermod --add-subuids"),
    ],
)  # fmt: skip
def test_what_is_not_well_is_told_with_a_remedy(
    tmp_path: Path, changes: Any, name: str, status: str, words: str
) -> None:
    found = [f for f in findings(facts(tmp_path, **changes), name) if f.status != "ok"]
    assert [f.status for f in found] == [status]
    assert words in f"{found[0].detail} {found[0].remedy}"
    report = diagnose(facts(tmp_path, **changes))
    assert report.usable == (status != "broken")


def test_a_v2_host_is_asked_for_its_device_filter(tmp_path: Path) -> None:
    layout = Layout("v2", {}, "/cg/memory", {"": ""})
    files = {"/cg/memory/cgroup.controllers": "cpu cpuset memory pids io hugetlb rdma\n"}
    given = facts(tmp_path, files=files, layout=layout, answers={"device-filter": "EPERM"})
    assert {f.name: f.status for f in findings(given, "controllers", "device rules")} == {
        "controllers": "ok",
        "device rules": "limited",
    }


def test_a_range_of_ids_is_enough_for_a_user(tmp_path: Path) -> None:
    files = {"/etc/subuid": "7:100000:65536\n", "/etc/subgid": "7:100000:65536\n"}
    (found,) = findings(facts(tmp_path, user=7, files=files), "mapped ids")
    assert found.status == "ok"


def test_an_old_criu_is_known_by_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    criu = tmp_path / "criu"
    criu.write_text("#!/bin/sh\necho Version: 3.17.1\n")
    criu.chmod(0o755)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: str(criu))
    (found,) = findings(facts(tmp_path, kernel=(6, 18)), "criu")
    assert (found.status, found.remedy.startswith("version 4 or newer")) == ("limited", True)
    (found,) = findings(facts(tmp_path, kernel=(6, 1)), "criu")
    assert found.status == "ok"


def test_the_report_as_json(tmp_path: Path) -> None:
    value = json.loads(diagnose(facts(tmp_path, kernel=(5, 4))).to_json())
    assert (value["usable"], value["uid"]) == (False, 0)
    first = value["findings"][0]
    assert first["group"] == "kernel"
    assert {*first} == {"group", "name", "status", "detail", "remedy"}


def test_this_host_gets_a_report_and_keeps_its_namespaces() -> None:
    before = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    answers = doctor.probe()
    assert sorted(answers) == sorted(TRIALS)
    assert {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")} == before
    program = Path(sys.executable).with_name("boxship-runc")
    run = subprocess.run([str(program), "doctor", "--json"], capture_output=True, text=True, check=False)
    value = json.loads(run.stdout)
    assert run.returncode == (0 if value["usable"] else 1)
    text = subprocess.run([str(program), "doctor"], capture_output=True, text=True, check=False).stdout
    assert f"uid {os.geteuid()}, Linux" in text
