"""Bundles and images between our umoci verbs and the real umoci, in both directions."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from boxship.image import bundle, mtree
from boxship.image.layout import Layout
from boxship.image.named import read_config, read_manifest, resolve
from boxship.tools.umoci.main import main

pytestmark = [pytest.mark.root, pytest.mark.skipif(shutil.which("umoci") is None, reason="needs umoci")]


def theirs(*words: str) -> None:
    done = subprocess.run(["umoci", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"umoci {words}: {done.stderr}"


def ours(*words: str) -> None:
    assert main(list(words)) == 0


PAIRS = {"ours then theirs": (ours, theirs), "theirs then ours": (theirs, ours), "ours alone": (ours, ours)}


@pytest.fixture
def base(tmp_path: Path) -> str:
    """An image of one layer with files of every kind, made by umoci."""
    layout = str(tmp_path / "images")
    theirs("init", "--layout", layout)
    theirs("new", "--image", f"{layout}:base")
    theirs("unpack", "--image", f"{layout}:base", str(tmp_path / "first"))
    fill(tmp_path / "first" / "rootfs")
    settle(tmp_path / "first" / "rootfs")
    theirs("repack", "--image", f"{layout}:base", str(tmp_path / "first"))
    return layout


def fill(rootfs: Path) -> None:
    (rootfs / "etc").mkdir()
    (rootfs / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (rootfs / "etc" / ("long" * 40)).write_text("long name")
    (rootfs / "fünf [#] \\ spaces").write_text("odd name")
    (rootfs / "bin").symlink_to("usr/bin")
    (rootfs / "usr" / "bin").mkdir(parents=True)
    (rootfs / "usr" / "bin" / "tool").write_bytes(os.urandom(70_000))
    os.chmod(rootfs / "usr" / "bin" / "tool", 0o4755)
    os.link(rootfs / "usr" / "bin" / "tool", rootfs / "usr" / "bin" / "same")
    os.chown(rootfs / "etc" / "passwd", 5, 6)
    os.mkfifo(rootfs / "fifo")
    os.mknod(rootfs / "null", 0o666 | 0o020000, os.makedev(1, 3))
    os.setxattr(rootfs / "etc", "user.note", b"\xff\x00binary")


def change(rootfs: Path) -> None:
    (rootfs / "etc" / "passwd").write_text("root:x:0:0:other:/:/bin/sh\n")
    (rootfs / "null").unlink()
    shutil.rmtree(rootfs / "usr")
    (rootfs / "usr").write_text("a file now")
    (rootfs / "new dir").mkdir(mode=0o1777)
    os.removexattr(rootfs / "etc", "user.note")


def settle(rootfs: Path) -> None:
    """Whole seconds: umoci 0.4.7 rounds what others cut."""
    for path in [rootfs, *rootfs.rglob("*")]:
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)


def shown(rootfs: Path) -> mtree.Files:
    return mtree.scan(str(rootfs))


@pytest.mark.parametrize("pair", PAIRS)
def test_what_one_unpacks_the_other_repacks(base: str, tmp_path: Path, pair: str) -> None:
    unpack, repack = PAIRS[pair]
    work = tmp_path / "work"
    unpack("unpack", "--image", f"{base}:base", str(work))
    before = shown(work / "rootfs")
    change(work / "rootfs")
    settle(work / "rootfs")
    repack("repack", "--image", f"{base}:new", "--refresh-bundle", str(work))
    for number, again in enumerate((ours, theirs)):
        again("unpack", "--image", f"{base}:new", str(tmp_path / f"again{number}"))
        assert mtree.compare(shown(work / "rootfs"), shown(tmp_path / f"again{number}" / "rootfs")) == []
        again("unpack", "--image", f"{base}:base", str(tmp_path / f"old{number}"))
        assert mtree.compare(before, shown(tmp_path / f"old{number}" / "rootfs")) == []
    unchanged = bundle.changes(str(work), bundle.read_meta(str(work)))
    assert unchanged == []


def test_equal_changes_give_equal_diff_ids(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    theirs("unpack", "--image", f"{base}:base", str(tmp_path / "work"))
    change(tmp_path / "work" / "rootfs")
    settle(tmp_path / "work" / "rootfs")
    layout = Layout(base)
    diff_ids = []
    for name, tool in (("by-them", theirs), ("by-us", ours)):
        tool("repack", "--image", f"{base}:{name}", str(tmp_path / "work"))
        manifest = read_manifest(layout, resolve(layout, name).manifest)
        diff_ids.append(read_config(layout, manifest).diff_ids[-1])
    assert diff_ids[0] == diff_ids[1]


def test_runtime_configs_say_the_same(base: str, tmp_path: Path) -> None:
    ours("config", "--image", f"{base}:base", "--config.user", "root", "--config.env", "A=b", "--config.cmd", "tool",
         "--config.volume", "/data", "--config.workingdir", "/etc", "--config.label", "x=y",
         "--config.exposedports", "80/tcp", "--config.stopsignal", "SIGUSR1")  # fmt: skip
    specs = []
    for name, tool in (("them", theirs), ("us", ours)):
        tool("unpack", "--image", f"{base}:base", str(tmp_path / name))
        specs.append(json.loads((tmp_path / name / "config.json").read_text()))
    for spec in specs:
        del spec["ociVersion"]
        spec["linux"]["namespaces"] = [
            one for one in spec["linux"]["namespaces"] if one["type"] != "cgroup"
        ]  # since 0.5
    assert specs[0]["process"] == specs[1]["process"]
    for spec in specs:  # 0.4.7 writes empty ones, too
        spec["annotations"] = {key: value for key, value in spec["annotations"].items() if value}
    assert specs[0]["mounts"] == specs[1]["mounts"]
    assert specs[0] == specs[1]


def test_rootless_bundles_go_both_ways(base: str, tmp_path: Path) -> None:
    ours("unpack", "--rootless", "--image", f"{base}:base", str(tmp_path / "ours"))
    theirs("unpack", "--rootless", "--image", f"{base}:base", str(tmp_path / "theirs"))
    passwd = "rootfs/etc/passwd"
    records = [os.getxattr(tmp_path / who / passwd, "user.rootlesscontainers") for who in ("ours", "theirs")]
    assert records[0] == records[1]
    os.chmod(tmp_path / "ours" / passwd, 0o600)
    theirs("repack", "--image", f"{base}:new", str(tmp_path / "ours"))
    ours("unpack", "--image", f"{base}:new", str(tmp_path / "whole"))
    found = (tmp_path / "whole" / passwd).stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (5, 6, 0o600)


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_inserted_and_removed_files_are_seen_by_umoci(base: str, tmp_path: Path, compression: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_text("inserted")
    ours("insert", "--image", f"{base}:base", "--opaque", f"--compress={compression}", str(tmp_path / "tree"), "/etc")
    ours("insert", "--image", f"{base}:base", "--whiteout", "/usr/bin/same")
    theirs("gc", "--layout", base)
    theirs("unpack", "--image", f"{base}:base", str(tmp_path / "work"))
    rootfs = tmp_path / "work" / "rootfs"
    assert os.listdir(rootfs / "etc") == ["f"]
    assert os.listdir(rootfs / "usr" / "bin") == ["tool"]
