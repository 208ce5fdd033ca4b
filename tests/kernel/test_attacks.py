"""Each test tries an attack that once worked on a container runtime, or that our own design would invite."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.bundle_fixture import Bundle, needs_root, new_bundle

pytestmark = needs_root


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        yield made


def _plain(_bundle: Bundle) -> "dict[str, Any]":
    return {}


def _in_a_user_namespace(bundle: Bundle) -> "dict[str, Any]":
    bundle.spec["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 0, "size": 65536}]
    bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = maps
    return {}


def _with_hooks(bundle: Bundle) -> "dict[str, Any]":
    bundle.spec["hooks"] = {"createContainer": [{"path": "/bin/true"}]}
    return {}


def _with_a_mount_on_the_root(bundle: Bundle) -> "dict[str, Any]":
    bundle.spec["mounts"].insert(
        0, {"destination": "/", "type": "bind", "source": str(bundle.path / "rootfs"), "options": ["bind"]}
    )
    return {}


def _with_several_root_mounts(bundle: Bundle) -> "dict[str, Any]":
    rootfs = str(bundle.path / "rootfs")
    return {"rootfs_mounts": [("tmpfs", "tmpfs", []), ("bind", rootfs, ["bind"])]}


@pytest.mark.parametrize(
    "prepare",
    [_plain, _in_a_user_namespace, _with_hooks, _with_a_mount_on_the_root, _with_several_root_mounts],
    ids=lambda prepare: prepare.__name__[1:],
)
def test_nothing_of_the_host_lies_over_or_under_the_root(bundle: Bundle, prepare: Any) -> None:
    """setns(2) leads to what lies over the root: an old root that stayed there would be the host's whole tree."""
    options = prepare(bundle)
    container = bundle.create("sleep", "100", **options)
    container.start()
    points = [line.split()[4] for line in Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines()]
    assert points.count("/") == 1
    outside = {"/" + name for name in ("tmp", "run", "mnt", "boot", "home", "root")}
    assert not outside.intersection(points)
    process = container.exec({"args": ["/bin/sh", "-c", "test ! -e /usr && test ! -e /etc/hostname"], "cwd": "/"})
    assert process.wait() == 0
