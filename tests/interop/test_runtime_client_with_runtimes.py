"""The same calls of our client, answered alike by runc and by boxship-runc: the seam holds in both directions."""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxship.api.runc import Runtime
from boxship.errors import BoxshipError, FailedPrecondition, NotFound
from boxship.libcontainer.defaults import default

BUSYBOX = shutil.which("busybox") or ""
OURS = Path(sys.executable).parent / "boxship-runc"
RUNTIMES = {"boxship-runc": str(OURS) if OURS.exists() else None, "runc": shutil.which("runc")}
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not BUSYBOX, reason="needs root and a static busybox"),
]


@pytest.fixture
def bundle() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="boxship-"))
    (directory / "rootfs/bin").mkdir(parents=True)
    shutil.copy2(BUSYBOX, directory / "rootfs/bin/sleep")
    for name in ("proc", "dev", "sys"):
        (directory / "rootfs" / name).mkdir()
    spec = default()
    spec["ociVersion"] = "1.0.2"
    spec["process"].update(terminal=False, args=["sleep", "100"])
    (directory / "config.json").write_text(json.dumps(spec))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, bundle: Path) -> Runtime:
    path = RUNTIMES[request.param]
    if path is None:
        pytest.skip(f"needs {request.param}")
    return Runtime(path, str(bundle / "state"))


@pytest.mark.peer("runc")
def test_a_container_s_life(runtime: Runtime, bundle: Path) -> None:
    id = f"client-{os.getpid()}"
    try:
        runtime.create(id, str(bundle), pid_file=str(bundle / "pid"))
        state = runtime.state(id)
        assert (state.status, state.pid) == ("created", int((bundle / "pid").read_text()))
        runtime.start(id)
        assert runtime.state(id).status == "running"
        assert state.pid in runtime.pids(id)
        runtime.pause(id)
        assert runtime.state(id).status == "paused"
        runtime.resume(id)
        runtime.kill(id, "KILL")
        deadline = time.monotonic() + 5
        while runtime.state(id).status != "stopped":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(FailedPrecondition):
            runtime.kill(id, "TERM")
        runtime.delete(id)
        with pytest.raises(NotFound):
            runtime.state(id)
    finally:
        runtime.delete(id, force=True)


@pytest.mark.peer("runc")
def test_a_missing_command_is_said_alike(runtime: Runtime, bundle: Path) -> None:
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"]["args"] = ["nosuch"]
    (bundle / "config.json").write_text(json.dumps(spec))
    with pytest.raises(BoxshipError, match='exec: "nosuch": executable file not found in \\$PATH'):
        runtime.create("client-missing", str(bundle))
    with pytest.raises(NotFound):
        runtime.state("client-missing")
