"""What systemd is asked for: units, properties and what becomes of its answers; the bus is a real dbus-daemon."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boxship.errors import AlreadyExists, FailedPrecondition, InvalidArgument, Unavailable
from boxship.libcontainer import cgroups
from boxship.libcontainer.cgroups import systemd
from boxship.libcontainer.cgroups.dbus import CallFailed
from boxship.libcontainer.cgroups.devices import rules
from tests.fake_systemd import FakeSystemd, fake_systemd

pytestmark = pytest.mark.peer("dbus-daemon")
MAX = 2**64 - 1
MOUNTS = "30 29 0:26 / {root} rw - cgroup2 cgroup2 rw\n"


class Host:
    def __init__(self, root: Path, service: FakeSystemd) -> None:
        self.root = root
        self.service = service
        self.layout = cgroups.parse(MOUNTS.format(root=root), "0::/\n")

    def manager(self, spec: "dict[str, Any] | None" = None, path: str = "machine-test.slice:box:web") -> Any:
        """A manager whose scope exists, with the files that limits are written to."""
        found = systemd.manager(self.layout, "web", path, spec or {})
        found.create_target(1)
        directory = Path(found.directory())
        for file in (
            "memory.max memory.low memory.swap.max cpu.max cpu.weight cpu.idle cpuset.cpus pids.max memory.high"
        ).split():
            (directory / file).write_text("")
        (directory / "cgroup.controllers").write_text("cpu cpuset memory pids io")
        return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    tree = tmp_path / "tree"
    tree.mkdir()
    with fake_systemd(tmp_path, [str(tree)]) as (service, address):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        monkeypatch.setattr(systemd.os, "geteuid", lambda: 0)
        yield Host(tree, service)


def test_a_scope_is_started_with_the_process_in_it(host: Host) -> None:
    manager = host.manager({"annotations": {"org.systemd.property.TimeoutStopSec": "uint64 7", "other": "x"}})
    assert manager.paths == {"": f"{host.root}/machine.slice/machine-test.slice/box-web.scope"}
    assert Path(manager.directory(), "cgroup.procs").read_text() == "1"
    name, arguments = host.service.calls[-1]
    assert (name, arguments[:2]) == ("StartTransientUnit", ("box-web.scope", "replace"))
    assert host.service.properties("StartTransientUnit") == {
        "Description": "boxship container box-web.scope",
        "Slice": "machine-test.slice",
        "Delegate": True,
        "PIDs": [1],
        "MemoryAccounting": True,
        "CPUAccounting": True,
        "IOAccounting": True,
        "TasksAccounting": True,
        "DefaultDependencies": False,
        "TimeoutStopUSec": 7_000_000,
        "DevicePolicy": "strict",
        "DeviceAllow": [
            ("char-*", "m"), ("block-*", "m"), ("/dev/char/1:3", "rwm"), ("/dev/char/1:8", "rwm"),
            ("/dev/char/1:7", "rwm"), ("/dev/char/5:0", "rwm"), ("/dev/char/1:5", "rwm"), ("/dev/char/1:9", "rwm"),
            ("char-136", "rwm"), ("/dev/char/5:2", "rwm"),
        ],
    }  # fmt: skip


def test_limits_are_told_to_systemd_and_written(host: Host) -> None:
    manager = host.manager()
    manager.apply(
        {
            "memory": {"limit": 1 << 20, "swap": 3 << 20, "reservation": 4096},
            "cpu": {"shares": 1024, "quota": 5001, "period": 10000, "cpus": "0,2-3"},
            "pids": {"limit": -1},
            "unified": {"memory.high": "9", "pids.max": "44"},
        }
    )
    assert host.service.calls[-1][1][:2] == ("box-web.scope", True)
    assert host.service.properties("SetUnitProperties") == {
        "MemoryMax": 1 << 20,
        "MemorySwapMax": 2 << 20,
        "MemoryLow": 4096,
        "MemoryHigh": 9,
        "CPUWeight": 100,
        "CPUQuotaPeriodUSec": 10000,
        "CPUQuotaPerSecUSec": 510_000,  # whole percents, rounded up
        "AllowedCPUs": b"\x0d",
        "TasksMax": 44,
    }
    files = {name: Path(manager.directory(), name).read_text() for name in ("memory.max", "cpu.max")}
    assert files == {"memory.max": str(1 << 20), "cpu.max": "5100 10000"}  # what systemd will write, too


@pytest.mark.parametrize(
    ("resources", "properties"),
    [
        ({"memory": {"limit": -1}}, {"MemoryMax": MAX, "MemorySwapMax": MAX}),
        ({"cpu": {"quota": -1}}, {"CPUQuotaPeriodUSec": 100_000, "CPUQuotaPerSecUSec": MAX}),
        ({"cpu": {"idle": 1}}, {"CPUWeight": 0}),
        ({"cpu": {"idle": 0}}, {}),
        ({"pids": {"limit": 0}}, {"TasksMax": 1}),
        ({}, {}),
    ],
)
def test_words_that_systemd_has_otherwise(host: Host, resources: Any, properties: Any) -> None:
    manager = host.manager()
    manager.apply(resources)
    found = host.service.properties("SetUnitProperties") if "SetUnitProperties" in host.service.methods() else {}
    assert found == properties


def test_an_old_systemd_is_not_told_what_it_does_not_know(host: Host) -> None:
    host.service.version = "v239-5.el8"
    manager = host.manager()
    manager.apply({"cpu": {"cpus": "0", "quota": 5000, "period": 10000, "idle": 1}})
    assert host.service.properties("SetUnitProperties") == {"CPUQuotaPerSecUSec": 500_000}
    assert Path(manager.directory(), "cpuset.cpus").read_text() == "0"


def test_a_unit_that_failed_before_is_reset_and_tried_again(host: Host) -> None:
    host.service.fail["StartTransientUnit"] = "org.freedesktop.systemd1.UnitExists"
    host.manager()
    methods = host.service.methods()
    assert methods[-3:] == ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]


def test_a_unit_that_lives_is_another_container_s(host: Host) -> None:
    first = host.manager()
    with pytest.raises(AlreadyExists, match="cgroup is not empty"):
        systemd.manager(host.layout, "web", "machine-test.slice:box:web", {}).claim()
    host.service.always_fail["StartTransientUnit"] = "org.freedesktop.systemd1.UnitExists"
    with pytest.raises(AlreadyExists, match=r"systemd unit box-web\.scope already exists"):
        first.create_target(1)


def test_a_job_that_fails_and_a_call_that_is_refused(host: Host) -> None:
    host.service.result = "failed"
    with pytest.raises(FailedPrecondition, match=r"create systemd unit box-web\.scope: got 'failed'"):
        host.manager()
    host.service.fail["StartTransientUnit"] = "org.freedesktop.DBus.Error.AccessDenied"
    with pytest.raises(CallFailed, match=r"StartTransientUnit: as the test wants it .*AccessDenied"):
        host.manager()


def test_delete_stops_the_unit_and_repeats(host: Host) -> None:
    manager = host.manager()
    for file in Path(manager.directory()).iterdir():
        file.unlink()
    manager.delete()
    assert not Path(manager.directory()).exists()
    assert host.service.methods()[-2:] == ["StopUnit", "ResetFailedUnit"]
    host.service.fail["StopUnit"] = "org.freedesktop.systemd1.NoSuchUnit"
    manager.delete()


def test_a_manager_is_found_again_from_the_state(host: Host) -> None:
    manager = host.manager()
    again = cgroups.from_paths(host.layout, manager.paths, manager.unit)
    assert isinstance(again, systemd.SystemdManager)
    assert (again.paths, again.unit) == (manager.paths, manager.unit)


def test_what_only_a_start_can_say(host: Host) -> None:
    host.service.version = "254"
    host.manager({"linux": {"resources": {"unified": {"memory.oom.group": "1"}}}})
    assert host.service.properties("StartTransientUnit")["OOMPolicy"] == "kill"


def test_devices_as_properties() -> None:
    allow = {"allow": True, "access": "rw"}
    value = rules(
        [
            {"allow": False},
            {**allow, "type": "c", "major": 1, "minor": 3},
            {**allow, "type": "b", "major": 8},
            {**allow, "type": "c"},
            {**allow, "type": "c", "minor": 3},
        ]
    )
    assert systemd.device_properties(value, 252) == [
        ("DeviceAllow", ("a(ss)", [])),
        ("DevicePolicy", ("s", "strict")),
        ("DeviceAllow", ("a(ss)", [("/dev/char/1:3", "rw"), ("block-8", "rw"), ("char-*", "rw")])),
    ]
    assert ("DevicePolicy", ("s", "auto")) in systemd.device_properties(rules([{"allow": True}]), 252)


@pytest.mark.parametrize(
    ("path", "slice", "unit"),
    [
        ("", "system.slice", "boxship-web.scope"),
        ("a-b.slice:docker:1234", "a-b.slice", "docker-1234.scope"),
        (":docker:1234", "system.slice", "docker-1234.scope"),
        ("a.slice::1234", "a.slice", "1234.scope"),
        ("a.slice:x:pod.slice", "a.slice", "pod.slice"),
    ],
)
def test_a_path_names_slice_and_unit(path: str, slice: str, unit: str) -> None:
    assert systemd.split_path("web", path, False) == (slice, unit)


@pytest.mark.parametrize(
    ("slice", "path"), [("-.slice", ""), ("a.slice", "a.slice"), ("a-b.slice", "a.slice/a-b.slice")]
)
def test_slices_have_a_path(slice: str, path: str) -> None:
    assert systemd.slice_path(slice) == path


@pytest.mark.parametrize("slice", ["a", ".slice", "a--b.slice", "-a.slice", "a/b.slice"])
def test_a_slice_that_cannot_be(slice: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid slice name"):
        systemd.slice_path(slice)


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"org.systemd.property.ab": "1"}, "name incorrect"),
        ({"org.systemd.property.Tasks3": "1"}, "name incorrect"),
        ({"org.systemd.property.TasksMax": "many"}, "value parse error"),
        ({"org.systemd.property.TimeoutSec": "'x'"}, "not a number"),
    ],
)
def test_annotations_that_cannot_be_properties(annotations: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        systemd.annotated(annotations)


def test_without_systemd_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    monkeypatch.setattr(systemd.os.path, "isdir", lambda path: False)
    with pytest.raises(Unavailable, match="systemd is not running on this host"):
        systemd.manager(cgroups.parse("", ""), "web", "", {})
    with pytest.raises(InvalidArgument, match="slice:prefix:name"):
        systemd.split_path("web", "/a/b", False)
