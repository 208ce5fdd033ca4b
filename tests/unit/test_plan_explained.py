"""Golden plans, as text to read: a changed plan shows in the diff of tests/golden/plans.

``BOXSHIP_WRITE_GOLDEN=1`` writes them again.
"""

import os
from pathlib import Path

import pytest

from boxship.libcontainer.defaults import default
from boxship.libcontainer.plan.explain import explain

from .plan_fixture import exec_plan_of, fixed_host, plan_of

GOLDEN = Path(__file__).parents[1] / "golden" / "plans"


def _default_v1() -> str:
    return explain(plan_of())


def _default_v2_with_terminal() -> str:
    return explain(plan_of(host=fixed_host("v2"), terminal=True))


def _user_namespace_and_overlay() -> str:
    spec = default()
    spec["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    spec["linux"]["uidMappings"] = spec["linux"]["gidMappings"] = maps
    layers = ["lowerdir=/layers/2:/layers/1", "upperdir=/c1/fs", "workdir=/c1/work"]
    return explain(plan_of(spec, rootfs_mounts=[("overlay", "overlay", layers)]))


def _bind_mounts_and_joined_network() -> str:
    spec = default()
    for namespace in spec["linux"]["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = "/run/netns/c1"
    spec["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0"}
    spec["mounts"] += [
        {"destination": "/etc/resolv.conf", "type": "bind", "source": "/etc/resolv.conf", "options": ["rbind", "ro"]},
        {"destination": "/srv/data", "type": "bind", "source": "/data", "options": ["rbind", "rprivate"]},
    ]
    spec["process"]["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [10, 20]}
    spec["process"]["noNewPrivileges"] = False
    return explain(plan_of(spec))


def _exec_with_terminal() -> str:
    process = {"args": ["sh", "-c", "id"], "cwd": "/srv", "env": ["PATH=/bin:/usr/bin"], "user": {"uid": 1, "gid": 2}}
    return explain(exec_plan_of(process, terminal=True, columns=80, rows=24))


PLANS = {
    "default-cgroup-v1": _default_v1,
    "terminal-cgroup-v2": _default_v2_with_terminal,
    "user-namespace-and-overlay": _user_namespace_and_overlay,
    "bind-mounts-and-joined-network": _bind_mounts_and_joined_network,
    "exec-with-terminal": _exec_with_terminal,
}


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_reads_as_before(name: str) -> None:
    path = GOLDEN / f"{name}.txt"
    text = PLANS[name]()
    if os.environ.get("BOXSHIP_WRITE_GOLDEN"):
        GOLDEN.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
