"""SIGKILL of the creator between any two of its steps: `delete --force` cleans everything, nothing stays behind."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .bundle_fixture import Bundle, needs_root, new_bundle

pytestmark = [pytest.mark.root, needs_root]

# The creator: dies by its own hand at the N-th of these calls.
CREATOR = """
import json, os, sys
from boxship.libcontainer import state
from boxship.libcontainer.container import Container
from boxship.libcontainer.executor import Run
bundle, root, die_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
calls = 0
def mortal(owner, name):
    real = getattr(owner, name)
    def call(*args, **named):
        global calls
        calls += 1
        if calls == die_at:
            os.kill(os.getpid(), 9)
        return real(*args, **named)
    setattr(owner, name, staticmethod(call) if owner is state else call)
for owner, name in ((state, "write"), (Run, "extend"), (Run, "go"), (Run, "until"), (Run, "keep"), (os, "mkdir"),
                    (os, "posix_spawn"), (os, "rename")):
    mortal(owner, name)
container = Container.create("victim", bundle, root=root, spec=json.load(open(bundle + "/spec.json")))
container.detach()
"""

# Who watches: orphans come to it (subreaper), and after the delete there must be none.
WATCHER = """
import ctypes, json, os, subprocess, sys, time
from boxship.errors import NotFound
from boxship.libcontainer.container import Container
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
creator, bundle, root, die_at = sys.argv[1:]
died = subprocess.run([sys.executable, "-c", creator, bundle, root, die_at]).returncode
try:
    container = Container.load("victim", root=root)
    paths = list(container.cgroups.paths.values())
    container.delete(force=True)
except NotFound:
    paths = []
deadline = time.monotonic() + 5
left = True
while left and time.monotonic() < deadline:
    try:
        if os.waitpid(-1, os.WNOHANG)[0] == 0:
            time.sleep(0.01)
    except ChildProcessError:
        left = False
names = [name for name in (os.listdir(root) if os.path.isdir(root) else []) if name != ".seccomp"]
paths = [path for path in paths if os.path.exists(path)]
print(json.dumps({"died": died, "processes": left, "cgroups": paths, "state": names}))
"""


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        made.spec["process"]["args"] = ["sleep", "100"]
        (made.path / "spec.json").write_text(json.dumps(made.spec))
        yield made


def test_a_creator_killed_at_any_step_leaves_nothing_that_delete_cannot_clean(bundle: Bundle) -> None:
    reached_the_end = False
    for die_at in range(1, 60):
        command = [sys.executable, "-c", WATCHER, CREATOR, str(bundle.path), bundle.root, str(die_at)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        reached_the_end = found.pop("died") == 0
        assert found == {"processes": False, "cgroups": [], "state": []}, f"died at call {die_at}"
        if reached_the_end:
            break
    assert reached_the_end
    assert die_at > 8
    assert not os.path.exists(bundle.root) or os.listdir(bundle.root) in ([], [".seccomp"])
