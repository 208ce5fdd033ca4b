"""Containers are saved and go on elsewhere, with a real CRIU; named by BOXSHIP_CRIU, or the one in PATH."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boxship.errors import FailedPrecondition, NotFound
from boxship.libcontainer.checkpoint import checkpoint
from boxship.libcontainer.container import Container
from boxship.libcontainer.criu import Criu
from boxship.libcontainer.process import Stdio
from boxship.libcontainer.restore import restore

from .bundle_fixture import Bundle, needs_root, new_bundle, pipe

RUNTIME = Path(sys.executable).parent / "boxship-runc"
PROGRAM = os.environ.get("BOXSHIP_CRIU") or shutil.which("criu") or ""


def _works() -> bool:
    """Versions before 4 do not understand the vdso of kernels from 6.11 on: they fail in the middle of a dump."""
    if not PROGRAM or os.geteuid() != 0:
        return False
    found = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=False).stdout
    major = int(found.partition(": ")[2].partition(".")[0] or 0)
    kernel = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if major < 4 and kernel >= (6, 11):
        return False
    return subprocess.run([PROGRAM, "check"], check=False, capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.root,
    needs_root,
    pytest.mark.skipif(not _works(), reason="no CRIU that works on this kernel"),
]
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as bundle:
        yield bundle


def _options(bundle: Bundle, **options: Any) -> Criu:
    return Criu(str(bundle.path / "images"), program=PROGRAM, manage_cgroups_mode="ignore", **options)


def _next_line(read: int, after: int = 0) -> int:
    """The next whole number that comes above ``after``."""
    deadline = time.monotonic() + 10
    text = b""
    while time.monotonic() < deadline:
        text += os.read(read, 4096)
        numbers = [int(line) for line in text.split(b"\n")[:-1] if line]
        if numbers and numbers[-1] > after:
            return numbers[-1]
    raise AssertionError(text)


def _counting(bundle: Bundle, write: int) -> Container:
    container = bundle.create("sh", "-c", COUNT, stdio=Stdio(write, write, write))
    container.start()
    return container


def test_a_container_goes_on_where_it_stood(bundle: Bundle) -> None:
    with pipe() as (read, write):
        container = _counting(bundle, write)
        stood = _next_line(read)
        checkpoint(container, _options(bundle))
        assert container.status() == "stopped"
        container.wait()
        container.delete()
        id, streams = container.id, (write, write, write)
        again = restore(id, str(bundle.path), _options(bundle), root=bundle.root, spec=bundle.spec, streams=streams)
        bundle.made.append(again)
        assert again.status() == "running"
        went_on = _next_line(read, stood)
        assert stood < went_on < stood + 40
        process = again.exec({"args": ["/bin/sh", "-c", "kill -0 1"], "cwd": "/", "env": ["PATH=/bin"]})
        assert process.wait() == 0
        again.delete(force=True)
    assert not Path(bundle.root, again.id).exists()
    assert not Path(bundle.root, "criu-root").exists()


def test_a_container_may_be_left_running(bundle: Bundle) -> None:
    with pipe() as (read, write):
        container = _counting(bundle, write)
        checkpoint(container, _options(bundle, leave_running=True))
        assert container.status() == "running"
        stood = _next_line(read)
        assert _next_line(read, stood) > stood
        assert (bundle.path / "images" / "descriptors.json").exists()


def test_what_cannot_be_restored_leaves_nothing(bundle: Bundle) -> None:
    id = f"nothing-{os.getpid()}"
    with pytest.raises(NotFound, match="no such directory"):
        restore(id, str(bundle.path), _options(bundle), root=bundle.root, spec=bundle.spec)
    (bundle.path / "images").mkdir()
    with pytest.raises(NotFound, match="is this the directory of a checkpoint"):
        restore(id, str(bundle.path), _options(bundle), root=bundle.root, spec=bundle.spec)
    (bundle.path / "images" / "descriptors.json").write_text("[]")
    bundle.spec["process"]["args"] = ["true"]
    with pytest.raises(FailedPrecondition, match=r"criu failed: type RESTORE.*restore\.log"):
        restore(id, str(bundle.path), _options(bundle), root=bundle.root, spec=bundle.spec)
    assert not Path(bundle.root, id).exists()
    assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "criu-root" in line]
    assert not list(Path("/sys/fs/cgroup").glob(f"*/boxship/{id}"))


def test_the_command_line_saves_and_restores(bundle: Bundle) -> None:
    id = f"cli-{os.getpid()}"
    bundle.spec["process"]["args"] = ["sh", "-c", COUNT]
    (bundle.path / "config.json").write_text(json.dumps(bundle.spec))

    def runtime(*words: str, **streams: Any) -> "subprocess.CompletedProcess[bytes]":
        command = [str(RUNTIME), "--root", bundle.root, "--criu", PROGRAM, *words]
        return subprocess.run(command, cwd=bundle.path, timeout=30, check=False, **streams)

    with pipe() as (read, write):
        ours: dict[str, Any] = {"stdin": write, "stdout": write, "stderr": write}
        try:
            assert runtime("run", "-d", id, **ours).returncode == 0
            stood = _next_line(read)
            flags = ["--image-path", "images", "--work-path", "work", "--manage-cgroups-mode", "ignore"]
            assert runtime("checkpoint", *flags, id, capture_output=True).returncode == 0
            assert runtime("state", id, capture_output=True).returncode == 1
            assert (bundle.path / "work" / "dump.log").exists()
            assert runtime("restore", "-d", "--pid-file", "pid", *flags, id, **ours).returncode == 0
            assert _next_line(read, stood) > stood
            pid = int((bundle.path / "pid").read_text())
            state = json.loads(runtime("state", id, capture_output=True).stdout)
            assert (state["status"], state["pid"]) == ("running", pid)
        finally:
            runtime("delete", "--force", id, capture_output=True)
