"""The systemd manager with a real systemd: where that is process 1, as in `tests/vm/machine.py --systemd`."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxship.libcontainer.container import Container
from boxship.libcontainer.process import Stdio

from .bundle_fixture import Bundle, needs_root, new_bundle, pipe, read_all

pytestmark = [
    pytest.mark.root,
    needs_root,
    pytest.mark.skipif(not os.path.isdir("/run/systemd/system"), reason="needs systemd as process 1"),
]
M = 1 << 20


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        made.spec["linux"]["cgroupsPath"] = f"boxship-test.slice:box:{made.path.name}"
        yield made


def shown(container: Container, *names: str) -> list[str]:
    """Properties of the container's unit, as systemctl shows them."""
    unit = container.cgroups.unit["name"]
    command = ["systemctl", "show", unit, *(f"--property={name}" for name in names)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(line.split("=", 1) for line in text.splitlines())
    return [found[name] for name in names]


def test_a_scope_with_limits(bundle: Bundle) -> None:
    bundle.spec["annotations"] = {"org.systemd.property.CollectMode": "'inactive-or-failed'"}
    bundle.spec["linux"]["resources"] = {
        "memory": {"limit": 64 * M, "reservation": 32 * M},
        "cpu": {"shares": 1024, "quota": 20000, "period": 100000, "cpus": "0"},
        "pids": {"limit": 55},
    }
    container = bundle.create("sleep", "100", cgroup_manager="systemd")
    container.start()
    group = shown(container, "ControlGroup")[0]
    assert group == f"/boxship.slice/boxship-test.slice/box-{bundle.path.name}.scope"
    assert f"{group}\n" in Path(f"/proc/{container.pid}/cgroup").read_text()
    unified = [*container.cgroups.paths] == [""]
    limit, low = ("MemoryMax", "MemoryLow") if unified else ("MemoryLimit", "MemoryLow")
    if not unified:
        lines = Path(f"/proc/{container.pid}/cgroup").read_text().splitlines()
        assert [line for line in lines if not line.endswith(group)] == []  # also those that systemd does not know
    names = (limit, low, "TasksMax", "CPUQuotaPerSecUSec", "AllowedCPUs", "Delegate", "CollectMode")
    reservation = str(32 * M) if unified else "0"  # v1's soft limit is no property
    expected = [str(64 * M), reservation, "55", "200ms", "0", "yes", "inactive-or-failed"]
    assert shown(container, *names) == expected
    container.update({"memory": {"limit": 96 * M}, "pids": {"limit": -1}, "cpu": {"quota": -1}})
    assert shown(container, limit, "TasksMax", "CPUQuotaPerSecUSec") == [str(96 * M), "infinity", "infinity"]
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    stats = container.stats()
    assert (stats.memory.limit, stats.pids.limit) == (96 * M, 0)
    directory = container.cgroups.directory() or container.cgroups.paths["memory"]
    container.delete(force=True)
    assert not os.path.exists(directory)
    assert shown(container, "LoadState", "ActiveState") == ["not-found", "inactive"]


def test_devices_are_systemd_s_and_ours(bundle: Bundle) -> None:
    bundle.spec["linux"]["devices"] = [{"path": "/dev/mine", "type": "c", "major": 240, "minor": 7}]
    bundle.spec["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    container = bundle.create("sleep", "100", cgroup_manager="systemd")
    container.start()
    assert shown(container, "DevicePolicy") == ["strict"]

    def opening() -> str:
        with pipe() as (read, write):
            args = ["sh", "-c", "true < /dev/null && true < /dev/mine"]
            process = container.exec({"args": args, "cwd": "/", "env": ["PATH=/bin"]}, stdio=Stdio(-1, write, write))
            os.close(write)
            text = read_all(read)
        process.wait()
        return text.strip().rpartition(": ")[2]

    assert opening() == "Operation not permitted"
    allow = {"allow": True, "type": "c", "major": 240, "minor": 7, "access": "rw"}
    container.update({"devices": [{"allow": False, "access": "rwm"}, allow]})
    assert opening() == "No such device or address"
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert opening() == "No such device or address"
    container.update({"devices": [{"allow": False, "access": "rwm"}]})
    assert opening() == "Operation not permitted"


def test_a_scope_that_ended_by_itself_is_cleaned_up(bundle: Bundle) -> None:
    container = bundle.create("true", cgroup_manager="systemd")
    container.start()
    assert container.wait() == 0
    deadline = time.monotonic() + 10
    while shown(container, "ActiveState") == ["active"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert container.status() == "stopped"
    container.delete()
    again = bundle.create("true", cgroup_manager="systemd")
    again.delete(force=True)


def test_the_command_line_asks_systemd(bundle: Bundle) -> None:
    import json

    bundle.spec["process"]["args"] = ["sleep", "100"]
    (bundle.path / "config.json").write_text(json.dumps(bundle.spec))
    program = str(Path(sys.executable).with_name("boxship-runc"))
    id = f"cli-{bundle.path.name}"

    def runtime(*words: str) -> str:
        with open(bundle.path / "output", "w+") as output:
            command = [program, "--systemd-cgroup", "--root", bundle.root, *words]
            done = subprocess.run(command, stdout=output, stderr=output, check=False)
            output.seek(0)
            text = output.read()
        assert done.returncode == 0, text
        return text

    runtime("run", "-d", "--bundle", str(bundle.path), id)
    runtime("exec", id, "true")
    unit = f"box-{bundle.path.name}.scope"
    active = subprocess.run(["systemctl", "is-active", unit], capture_output=True, text=True, check=False).stdout
    assert active == "active\n"
    runtime("update", "--pids-limit", "44", id)
    show = ["systemctl", "show", unit, "--property=TasksMax"]
    assert subprocess.run(show, capture_output=True, text=True, check=True).stdout == "TasksMax=44\n"
    runtime("pause", id)
    runtime("resume", id)
    runtime("delete", "--force", id)
    active = subprocess.run(["systemctl", "is-active", unit], capture_output=True, text=True, check=False).stdout
    assert active == "inactive\n"


def test_another_container_of_the_same_unit_is_refused(bundle: Bundle) -> None:
    from boxship.errors import BoxshipError

    first = bundle.create("sleep", "100", cgroup_manager="systemd")
    with pytest.raises(BoxshipError, match=r"not empty|already exists|UnitExists"):
        bundle.create("sleep", "100", cgroup_manager="systemd")
    assert first.status() == "created"
    assert first.pids() == [first.pid]
