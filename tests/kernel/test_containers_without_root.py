"""A container of a user who is not root: a user namespace with one id, and no cgroup."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boxship.libcontainer.defaults import default

from .bundle_fixture import Bundle, needs_root, new_bundle

pytestmark = [pytest.mark.root, needs_root]
NOBODY = 65534

# Imports happen as root, because this interpreter may be where nobody else can read it.
USER = """
import json, os, sys
from boxship.libcontainer import cgroups, hooks, idmap, spawning, step_errors
from boxship.libcontainer.container import Container
from boxship.libcontainer.host import detect
from boxship.libcontainer.plan import explain
from boxship.libcontainer.process import INHERIT
spawning.executor_image()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
bundle, spec = sys.argv[1], json.loads(sys.argv[2])
container = Container.create("mine", bundle, root=bundle + "/state", spec=spec, stdio=INHERIT, cgroup_manager="none",
                             host=detect())
container.start()
code = container.wait()
container.delete()
sys.exit(code)
"""


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        for path in [made.path, *made.path.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        yield made


def test_a_user_is_root_inside_and_himself_outside(bundle: Bundle) -> None:
    if Path("/proc/sys/user/max_user_namespaces").read_text().strip() == "0":
        pytest.skip("users may not make user namespaces here")
    spec = default(rootless=True)
    for kind in ("uidMappings", "gidMappings"):
        spec["linux"][kind] = [{"containerID": 0, "hostID": NOBODY, "size": 1}]
    spec["root"]["readonly"] = False
    spec["process"].update(terminal=False, args=["sh", "-c", "id -u; touch /made; head -c 1 /dev/zero | od -An -tx1"])
    command = [sys.executable, "-c", USER, str(bundle.path), json.dumps(spec)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["0", "00"]), done.stderr
    assert (bundle.path / "rootfs/made").stat().st_uid == NOBODY
    assert os.listdir(bundle.path / "state") == []


def run(bundle: Bundle, spec: "dict[str, object]", **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", USER, str(bundle.path), json.dumps(spec)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env={**os.environ, **environment}
    )


@pytest.fixture
def spec() -> "dict[str, Any]":
    if Path("/proc/sys/user/max_user_namespaces").read_text().strip() == "0":
        pytest.skip("users may not make user namespaces here")
    made = default(rootless=True)
    made["root"]["readonly"] = False
    made["process"]["terminal"] = False
    return made


def test_a_user_must_say_which_ids_he_maps(bundle: Bundle, spec: "dict[str, Any]") -> None:
    for kind in ("uidMappings", "gidMappings"):
        spec["linux"].pop(kind, None)
    spec["process"]["args"] = ["true"]
    done = run(bundle, spec)
    assert "linux.uidMappings is empty, but the container has a user namespace of its own" in done.stderr
    assert not os.path.exists(bundle.path / "state") or os.listdir(bundle.path / "state") == []


def test_a_user_may_map_his_own_id(bundle: Bundle, spec: "dict[str, Any]") -> None:
    for kind in ("uidMappings", "gidMappings"):
        spec["linux"][kind] = [{"containerID": 0, "hostID": NOBODY, "size": 1}]
    spec["process"]["args"] = ["cat", "/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups"]
    done = run(bundle, spec)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "65534", "1", "0", "65534", "1", "deny"]


def test_with_the_hosts_network_sysfs_is_the_hosts_and_read_only(bundle: Bundle, spec: "dict[str, Any]") -> None:
    for kind in ("uidMappings", "gidMappings"):
        spec["linux"][kind] = [{"containerID": 0, "hostID": NOBODY, "size": 1}]
    spec["linux"]["namespaces"] = [each for each in spec["linux"]["namespaces"] if each["type"] != "network"]
    for mount in spec["mounts"]:
        if mount["destination"] == "/sys":
            mount.update(type="sysfs", source="sysfs", options=["nosuid", "noexec", "nodev", "ro"])
    spec["mounts"] = [each for each in spec["mounts"] if each["type"] not in ("cgroup", "cgroup2")]
    script = "ls /sys/class/net; touch /sys/fs/cgroup/x /sys/x; grep -c ' /sys[^ ]* rw' /proc/self/mountinfo"
    spec["process"]["args"] = ["sh", "-c", script]
    done = run(bundle, spec)
    assert set(os.listdir("/sys/class/net")) <= set(done.stdout.split())
    assert done.stdout.split()[-1] == "0"  # nothing below /sys can be written to (CVE-2023-25809)
    assert done.stderr.count("Read-only file system") == 2


def test_more_ids_need_the_helpers(bundle: Bundle, spec: "dict[str, Any]") -> None:
    for kind in ("uidMappings", "gidMappings"):
        spec["linux"][kind] = [
            {"containerID": 0, "hostID": NOBODY, "size": 1},
            {"containerID": 1, "hostID": 100000, "size": 65536},
        ]
    spec["process"]["args"] = ["true"]
    empty = bundle.path / "empty"
    empty.mkdir()
    done = run(bundle, spec, PATH=str(empty))
    assert "install newuidmap (package uidmap)" in done.stderr
    helpers = bundle.path / "helpers"
    helpers.mkdir()
    (helpers / "newuidmap").write_text('#!/bin/sh\necho "$@" | cut -d" " -f2- >&2; exit 1\n')
    (helpers / "newuidmap").chmod(0o755)
    bundle.path.chmod(0o755)
    done = run(bundle, spec, PATH=f"{helpers}:/usr/bin:/bin")
    assert "0 65534 1 1 100000 65536" in done.stderr
    assert "newuidmap refused" in done.stderr
    assert "see /etc/subuid and /etc/subgid" in done.stderr
    assert os.listdir(bundle.path / "state") == []
