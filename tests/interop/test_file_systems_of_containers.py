"""commit, diff and export: a container's files, seen from outside, by docker's own client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxship.engine.filesystem import ADDED, DELETED, MODIFIED, compare, merge

from .engine_fixture import EngineProcess

pytestmark = [pytest.mark.root, pytest.mark.peer("docker", "busybox")]

SCRIPT = (
    "echo hi > /new; rm /etc/group; mkdir -m 750 /d; echo x > /d/y; touch -d @1000000000 /tmp/z; chmod 700 /root; "
    "ln /d/y /d/z; ln -s /nowhere /d/l; mkfifo /d/p; chown 5:6 /new; rm -r /var; mkdir /var; echo done; sleep 600"
)


@pytest.fixture
def changed(engine: EngineProcess) -> Iterator[str]:
    """The ID of a running container that has changed a few things."""
    id = engine.docker("run", "-d", "-e", "A=1", "-v", "/kept", "busybox", "sh", "-c", SCRIPT).stdout.strip()
    follow = subprocess.Popen(
        ["docker", "-H", engine.address, "logs", "-f", id], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert follow.stdout is not None
    assert follow.stdout.readline() == b"done\n"
    follow.terminate()
    follow.wait()
    follow.stdout.close()
    yield id
    engine.docker("rm", "-f", "-v", id)


def test_diff_tells_what_was_added_changed_and_deleted_and_no_mount(engine: EngineProcess, changed: str) -> None:
    lines = engine.docker("diff", changed).stdout.splitlines()
    assert lines == [
        "A /d", "A /d/l", "A /d/p", "A /d/y", "A /d/z", "C /etc", "D /etc/group", "A /kept", "A /new", "C /root",
        "C /tmp", "A /tmp/z", "C /var",
    ]  # fmt: skip


@pytest.mark.parametrize("running", [True, False])
def test_export_is_the_root_file_system_without_what_is_mounted(
    engine: EngineProcess, changed: str, running: bool, tmp_path: Path
) -> None:
    if not running:
        engine.docker("stop", "-t", "0", changed)
    engine.docker("export", "-o", str(tmp_path / "tar"), changed)
    with tarfile.open(tmp_path / "tar") as tar:
        found = {member.name.rstrip("/"): member for member in tar}
        assert tar.extractfile("new").read() == b"hi\n"  # type: ignore[union-attr]
    assert (found["new"].uid, found["new"].gid) == (5, 6)
    assert found["d"].mode & 0o7777 == 0o750
    assert found["tmp/z"].mtime == 1000000000
    assert found["d/l"].linkname == "/nowhere"
    assert {found["d/y"].type, found["d/z"].type} == {tarfile.REGTYPE, tarfile.LNKTYPE}
    assert found["etc/hosts"].size == 0
    assert "bin/busybox" in found
    assert not any(name.startswith(("proc/", "sys/")) or name == "etc/group" for name in found)


def test_a_committed_container_runs_as_it_was(engine: EngineProcess, changed: str) -> None:
    said = ("-m", "changed it", "-a", "somebody", "-c", 'CMD ["cat", "/new"]', "-c", "ENV B=2")
    id = engine.docker("commit", *said, changed, "made:1").stdout.strip()
    assert engine.docker("run", "--rm", "made:1").stdout == "hi\n"
    shown = engine.docker("run", "--rm", "made:1", "sh", "-c", "echo $A $B; stat -c %a /root; ls /d; ls /etc").stdout
    assert shown.splitlines()[:2] == ["1 2", "700"]
    assert "group" not in shown
    inspected = json.loads(engine.docker("inspect", "made:1").stdout)[0]
    assert (inspected["Id"], inspected["Author"], inspected["Comment"]) == (id, "somebody", "changed it")
    assert len(inspected["RootFS"]["Layers"]) == 2
    assert "changed it" in engine.docker("history", "made:1").stdout
    assert engine.docker("inspect", "-f", "{{.State.Status}}", changed).stdout == "running\n"
    archive = subprocess.run(
        ["docker", "-H", engine.address, "save", "made:1"], check=True, capture_output=True
    ).stdout  # fmt: skip
    engine.docker("rmi", "made:1")
    engine.docker("load", input=archive)
    assert engine.docker("run", "--rm", "made:1").stdout == "hi\n"
    engine.docker("rmi", "made:1")


def test_a_container_that_changed_nothing_makes_no_layer(engine: EngineProcess) -> None:
    id = engine.docker("create", "busybox", "true").stdout.strip()
    engine.docker("commit", id, "same:1")
    before, after = (
        json.loads(engine.docker("inspect", name).stdout)[0]["RootFS"]["Layers"] for name in ("busybox", "same:1")
    )
    assert before == after
    engine.docker("rm", id)
    engine.docker("rmi", "same:1")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["commit", "nosuch", "x"], "No such container: nosuch"),
        (["commit", "{}", "BAD"], "must be lowercase"),
        (["commit", "-c", "FROM x", "{}", "x"], "from is not a valid change command"),
        (["diff", "nosuch"], "No such container: nosuch"),
        (["export", "nosuch"], "No such container: nosuch"),
    ],
)
def test_mistakes_are_told_as_dockerd_tells_them(
    engine: EngineProcess, changed: str, command: list[str], message: str
) -> None:
    done = engine.docker(*[word.format(changed) for word in command], check=False)
    assert done.returncode == 1
    assert message in done.stderr


def test_our_own_command_line_does_the_same(engine: EngineProcess, changed: str, tmp_path: Path) -> None:
    def boxship(*words: str) -> str:
        command = [sys.executable, "-m", "boxship.cli", "-H", engine.address, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert boxship("diff", changed) == engine.docker("diff", changed).stdout
    boxship("export", "-o", str(tmp_path / "tar"), changed)
    with tarfile.open(tmp_path / "tar") as tar:
        assert "new" in tar.getnames()
    id = boxship("container", "commit", "-m", "x", changed, "ours:1").strip()
    assert json.loads(engine.docker("inspect", "ours:1").stdout)[0]["Id"] == id
    engine.docker("rmi", "ours:1")


def test_an_opaque_directory_hides_what_is_below(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for name in ("d/old", "d/kept", "e"):
        (lower / name).mkdir(parents=True)
    (upper / "d" / "kept").mkdir(parents=True)
    (upper / "d" / "new").write_text("")
    os.chmod(upper / "d" / "kept", 0o700)
    os.setxattr(upper / "d", "trusted.overlay.opaque", b"y")
    os.mknod(upper / "e", 0o020000, 0)
    fd = os.open(lower, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = {one["Path"]: one["Kind"] for one in compare(str(upper), fd)}
    finally:
        os.close(fd)
    assert found == {"/d": MODIFIED, "/d/old": DELETED, "/d/kept": MODIFIED, "/d/new": ADDED, "/e": DELETED}


def test_two_configs_become_one() -> None:
    base = {"Env": ["A=1", "B=1"], "Cmd": ["x"], "Entrypoint": ["e"], "Labels": {"a": "1"}, "User": "u"}
    assert merge({}, base) == {**base, "ExposedPorts": {}, "Volumes": {}}
    merged = merge({"Env": ["B=2"], "Entrypoint": ["n"], "Labels": {"b": "2"}}, base)
    assert merged["Env"] == ["B=2", "A=1"]
    assert (merged["Cmd"], merged["Entrypoint"], merged["User"]) == (None, ["n"], "u")
    assert merged["Labels"] == {"a": "1", "b": "2"}
