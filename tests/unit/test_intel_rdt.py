"""linux.intelRdt against a directory that looks like resctrl."""

from pathlib import Path

import pytest

from boxship.errors import FailedPrecondition, InvalidArgument
from boxship.libcontainer import rdt


@pytest.fixture
def resctrl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In resctrl a new directory has its files at once; here mkdir makes them too, and rmdir takes them along."""
    make, remove = rdt.os.mkdir, rdt.os.rmdir

    def mkdir(path: str) -> None:
        make(path)
        for name in ("tasks", "schemata"):
            (Path(path) / name).touch()
        if "mon_groups" not in path:
            make(f"{path}/mon_groups")

    def rmdir(path: str) -> None:
        for name in ("tasks", "schemata"):
            (Path(path) / name).unlink()
        if "mon_groups" not in path:
            remove(f"{path}/mon_groups")
        remove(path)

    root = tmp_path / "resctrl"
    monkeypatch.setattr(rdt.os, "mkdir", mkdir)
    monkeypatch.setattr(rdt.os, "rmdir", rmdir)
    mkdir(str(root))
    return root


def test_without_a_class_the_container_gets_one_of_its_own_that_goes_with_it(resctrl: Path) -> None:
    settings = {"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=50", "schemata": ["L2:0=3"]}
    made = rdt.prepare(settings, "web", [str(resctrl)])
    # A write(2) each, as the kernel wants it; a plain file shows the last.
    assert (resctrl / "web/schemata").read_text().startswith("L2:0=3\n")
    rdt.enter(made, 17)
    assert (resctrl / "web/tasks").read_text() == "17\n"
    rdt.remove(made)
    rdt.remove(made)
    assert not (resctrl / "web").exists()


def test_a_class_that_is_named_is_made_and_stays(resctrl: Path) -> None:
    made = rdt.prepare({"closID": "gold", "schemata": ["L3:0=f"]}, "web", [str(resctrl)])
    rdt.remove(made)
    assert (resctrl / "gold").is_dir()


def test_a_class_that_is_there_must_have_the_same_schemata(resctrl: Path) -> None:
    rdt.prepare({"closID": "gold", "schemata": ["L3:0=f"]}, "web", [str(resctrl)])
    (resctrl / "gold/schemata").write_text("    L3:00=00f;1=fff\n    MB:0=100\n")
    rdt.prepare({"closID": "gold", "l3CacheSchema": "L3:0=0F", "memBwSchema": "MB:0=100"}, "a", [str(resctrl)])
    with pytest.raises(FailedPrecondition, match="has other schemata: L3:1=fff, not ff"):
        rdt.prepare({"closID": "gold", "l3CacheSchema": "L3:1=ff"}, "a", [str(resctrl)])


def test_the_default_class_is_the_root(resctrl: Path) -> None:
    made = rdt.prepare({"closID": "/"}, "web", [str(resctrl)])
    rdt.enter(made, 17)
    rdt.remove(made)
    assert (resctrl / "tasks").read_text() == "17\n"


def test_monitoring_is_a_group_of_its_own(resctrl: Path) -> None:
    made = rdt.prepare({"enableMonitoring": True}, "web", [str(resctrl)])
    rdt.enter(made, 17)
    assert (resctrl / "web/mon_groups/web/tasks").read_text() == "17\n"
    rdt.remove(made)
    assert not (resctrl / "web").exists()


def test_what_makes_no_sense_is_refused(resctrl: Path) -> None:
    with pytest.raises(FailedPrecondition, match="there is no class 'gold'"):
        rdt.prepare({"closID": "gold"}, "web", [str(resctrl)])
    for name in ("a/b", "..", "a\nb"):
        with pytest.raises(InvalidArgument, match="is not a name"):
            rdt.prepare({"closID": name}, "web", [str(resctrl)])
    with pytest.raises(InvalidArgument, match="more than one line"):
        rdt.prepare({"schemata": ["L3:0=f\nL3:1=f"]}, "web", [str(resctrl)])
    with pytest.raises(InvalidArgument, match="must start with MB:"):
        rdt.prepare({"memBwSchema": "L3:0=f"}, "web", [str(resctrl)])
    with pytest.raises(FailedPrecondition, match="no resctrl file system is mounted"):
        rdt.prepare({}, "web", [])


def test_schemata_are_changed_in_the_containers_class(resctrl: Path) -> None:
    made = rdt.prepare({"l3CacheSchema": "L3:0=f"}, "web", [str(resctrl)])
    rdt.change(made, {"l3CacheSchema": "L3:0=3", "memBwSchema": "MB:0=50"})
    assert (resctrl / "web/schemata").read_text().splitlines()[-1] == "MB:0=50"
    with pytest.raises(InvalidArgument, match="must start with MB:"):
        rdt.change(made, {"memBwSchema": "50"})
    rdt.remove(made)
    with pytest.raises(FailedPrecondition, match="schemata: ENOENT"):
        rdt.change(made, {"memBwSchema": "MB:0=50"})
