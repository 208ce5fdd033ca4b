"""A container of a user who is not root: a user namespace with one id, and no cgroup."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxship.libcontainer.defaults import default

from .bundle_fixture import Bundle, needs_root, new_bundle

pytestmark = [pytest.mark.root, needs_root]
NOBODY = 65534

# Imports happen as root, because this interpreter may be where nobody else can read it.
USER = """
import json, os, sys
from boxship.libcontainer import cgroups, executor, hooks, idmap
from boxship.libcontainer.container import Container
from boxship.libcontainer.host import detect
from boxship.libcontainer.plan import explain
from boxship.libcontainer.process import INHERIT
executor._executor_image()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
bundle, spec = sys.argv[1], json.loads(sys.argv[2])
container = Container.create("mine", bundle, root=bundle + "/state", spec=spec, stdio=INHERIT, cgroup_manager="none",
                             host=detect())
container.start()
code = container.wait()
container.delete()
sys.exit(code)
"""


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        for path in [made.path, *made.path.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        yield made


def test_a_user_is_root_inside_and_himself_outside(bundle: Bundle) -> None:
    if Path("/proc/sys/user/max_user_namespaces").read_text().strip() == "0":
        pytest.skip("users may not make user namespaces here")
    spec = default(rootless=True)
    for kind in ("uidMappings", "gidMappings"):
        spec["linux"][kind] = [{"containerID": 0, "hostID": NOBODY, "size": 1}]
    spec["root"]["readonly"] = False
    spec["process"].update(terminal=False, args=["sh", "-c", "id -u; touch /made; head -c 1 /dev/zero | od -An -tx1"])
    command = [sys.executable, "-c", USER, str(bundle.path), json.dumps(spec)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["0", "00"]), done.stderr
    assert (bundle.path / "rootfs/made").stat().st_uid == NOBODY
    assert os.listdir(bundle.path / "state") == []
