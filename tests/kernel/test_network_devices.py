"""linux.netDevices: a device of the host becomes the container's, with its addresses, under its new name."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from boxship.errors import InvalidArgument, NotFound, StepFailed
from tests.kernel.bundle_fixture import OWN_IDS, Bundle, needs_root, new_bundle

pytestmark = [needs_root, pytest.mark.skipif(not shutil.which("ip"), reason="needs ip(8) to make devices")]


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        yield made


@pytest.fixture
def device() -> Iterator[str]:
    """One end of a veth pair, with an address; both ends go when one goes."""
    name, peer = f"bxt{os.getpid() % 100000}", f"bxp{os.getpid() % 100000}"
    made = subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", peer], capture_output=True)
    if made.returncode:
        pytest.skip(f"no veth here: {made.stderr.decode()}")
    try:
        for address in (["10.213.7.1/24", "brd", "10.213.7.255"], ["fd00:b0b::1/64"]):
            subprocess.run(["ip", "address", "add", *address, "dev", name], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", peer], capture_output=True, check=False)


@pytest.mark.parametrize("user_namespace", [False, True])
def test_a_device_moves_with_its_addresses_and_comes_up(bundle: Bundle, device: str, user_namespace: bool) -> None:
    if user_namespace:
        bundle.spec["linux"]["namespaces"].append({"type": "user"})
        bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = OWN_IDS
    bundle.spec["linux"]["netDevices"] = {device: {"name": "lan0"}}
    code, text = bundle.output("ip", "address", "show", "lan0")
    assert code == 0, text
    assert "inet 10.213.7.1/24 brd 10.213.7.255 scope global" in text
    assert "inet6 fd00:b0b::1/64 scope global" in text
    assert ",UP" in text


def test_a_device_keeps_its_name_when_no_other_is_given(bundle: Bundle, device: str) -> None:
    bundle.spec["linux"]["netDevices"] = {device: {}}
    assert bundle.output("ip", "link", "show", device)[0] == 0


def test_a_name_that_is_taken_is_refused_and_the_device_stays(bundle: Bundle, device: str) -> None:
    bundle.spec["linux"]["netDevices"] = {device: {"name": "lo"}}
    with pytest.raises(StepFailed, match="a network device of that name is there already"):
        bundle.create("true")
    assert os.path.exists(f"/sys/class/net/{device}")


@pytest.mark.parametrize("name", ["", "a/b", "with space", "much-too-long-a-name", ".."])
def test_a_name_that_no_device_can_have_is_refused(bundle: Bundle, name: str) -> None:
    bundle.spec["linux"]["netDevices"] = {name or "": {"name": "x0"}} if not name else {"lo": {"name": name}}
    with pytest.raises(InvalidArgument, match=r"linux\.netDevices"):
        bundle.create("true")


def test_what_cannot_be_moved_is_said_before_anything_is_made(bundle: Bundle) -> None:
    bundle.spec["linux"]["netDevices"] = {"nosuch0": {}}
    with pytest.raises(NotFound, match="no network device 'nosuch0'"):
        bundle.create("true")
    bundle.spec["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid"}]
    bundle.spec["hostname"] = ""
    with pytest.raises(InvalidArgument, match="no network namespace of its own"):
        bundle.create("true")
