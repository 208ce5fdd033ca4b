"""SIGKILL of the runtime, or of its executor, between any two of their steps: `delete --force` cleans everything.

``kill_everywhere`` does it; by default with a part of the executor's steps, and with all of them when
BOXSHIP_THOROUGH is set.
"""

import collections
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from boxship.libcontainer.seccomp.docker import docker_default

from .bundle_fixture import Bundle, needs_root, new_bundle
from .doors import DOORS, VARIABLE

pytestmark = [pytest.mark.root, needs_root, pytest.mark.peer("strace")]
# Fewer cases than these mean that the steps were not seen.
LEAST = {
    "cold": {("create", "runtime"): 30, ("start", "runtime"): 5, ("exec", "runtime"): 15, ("delete", "runtime"): 10},
    "warm": {("create", "runtime"): 5, ("start", "runtime"): 3, ("exec", "runtime"): 5, ("delete", "runtime"): 3},
}
EXECUTORS_LEAST = {("create", "executor"): 90, ("exec", "executor"): 5}
STARTS_LEAST = 6


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        made.spec["process"]["args"] = ["sleep", "100"]
        made.spec["linux"]["cgroupsPath"] = f"/boxship/kill-{made.path.name}"
        made.spec["linux"]["resources"].update(memory={"limit": 64 << 20}, pids={"limit": 50})
        made.spec["process"]["noNewPrivileges"] = False
        made.spec["linux"]["seccomp"] = docker_default(["CAP_KILL"], os.uname().machine)
        (made.path / "config.json").write_text(json.dumps(made.spec))
        yield made


@pytest.mark.parametrize("door", DOORS)
def test_nothing_is_left_wherever_the_runtime_is_killed(
    bundle: Bundle, door: str, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("session_plan_server").path if door == "warm" else "none"
    stride = 1 if os.environ.get("BOXSHIP_THOROUGH") else 6
    environment = {**os.environ, VARIABLE: server, "BOXSHIP_KILL_STRIDE": str(stride)}
    command = [sys.executable, "-m", "tests.kernel.kill_everywhere", str(bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    cases = [json.loads(line) for line in done.stdout.splitlines()]
    assert [case for case in cases if case["wrong"]] == []
    counts = collections.Counter((case["verb"], case["who"]) for case in cases)
    least = {**LEAST[door], **{key: count // stride for key, count in EXECUTORS_LEAST.items()}}
    least["start", "executor"] = STARTS_LEAST
    assert {key: counts[key] for key, count in least.items() if counts[key] < count} == {}
    killed = {(case["verb"], case["who"]) for case in cases if case["code"] == -9}
    assert {("create", "runtime"), ("start", "runtime"), ("exec", "runtime"), ("delete", "runtime")} <= killed
    # The runtime says so when its executor dies, up to and including the system call that executes the program.
    assert [case for case in cases if case["who"] == "executor" and case["code"] == 0] == []
    assert [case["call"] for case in cases if case["verb"] == "start" and case["who"] == "executor"][-1] == "execve"
