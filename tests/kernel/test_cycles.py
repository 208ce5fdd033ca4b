"""Many create/start/delete cycles in one process leave memory, descriptors, cgroups, mounts, processes as they were.

200 by default, and 1,000 when BOXSHIP_THOROUGH is set.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from .bundle_fixture import Bundle, needs_root, new_bundle

pytestmark = [pytest.mark.root, needs_root]
KILOBYTES = 1024  # what the heap may differ by, in all

# Who goes through the cycles: a process of its own, so that nothing but they is in its memory.
CYCLER = """
import gc, json, os, subprocess, sys
from pathlib import Path
from boxship.libcontainer.container import Container
bundle, root, way, cycles = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
spec = json.loads(Path(bundle, "config.json").read_text())
exec = {"args": ["true"], "cwd": "/", "env": ["PATH=/bin"]}

def once():
    container = Container.create("cycle", bundle, root=root, spec=spec, keep_spec=False)
    if way != "created":
        container.start()
    if way == "exec":
        container.exec(exec).wait()
    if way == "waited":
        container.wait()
    container.delete(force=True)

def failing():
    broken = {**spec, "process": {**spec["process"], "args": ["/nosuch"]}}
    try:
        Container.create("cycle", bundle, root=root, spec=broken, keep_spec=False)
    except Exception:
        return
    sys.exit("a program that is not there was started")

def reading():
    gc.collect()
    status = Path("/proc/self/status").read_text()
    cgroups = sum(len(dirs) for top in ("/sys/fs/cgroup",) for _, dirs, _ in os.walk(top) if "boxship" in _)
    return {
        "memory": int(status.split("RssAnon:")[1].split()[0]),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "cgroups": cgroups,
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(),
        "state": [name for name in os.listdir(root) if not name.startswith(".")],
    }

step = failing if way == "failing" else once
for _ in range(20):
    step()
before = reading()
for _ in range(cycles):
    step()
print(json.dumps([before, reading()]))
"""


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        made.spec["process"]["args"] = ["sleep", "100"]
        made.spec["linux"]["resources"].update(memory={"limit": 64 << 20}, pids={"limit": 50})
        yield made


@pytest.mark.parametrize(
    ("way", "share"), [("waited", 1.0), ("killed", 0.5), ("created", 0.25), ("exec", 0.25), ("failing", 0.5)]
)
def test_cycles_leave_everything_as_it_was(bundle: Bundle, way: str, share: float) -> None:
    cycles = int((1000 if os.environ.get("BOXSHIP_THOROUGH") else 200) * share)
    if way == "waited":
        bundle.spec["process"]["args"] = ["true"]
    (bundle.path / "config.json").write_text(json.dumps(bundle.spec))
    command = [sys.executable, "-c", CYCLER, str(bundle.path), bundle.root, way, str(cycles)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    before: dict[str, Any]
    after: dict[str, Any]
    before, after = json.loads(run.stdout)
    grown = after.pop("memory") - before.pop("memory")
    assert grown < KILOBYTES
    assert after == before
    assert (after["children"], after["state"]) == ([], [])
