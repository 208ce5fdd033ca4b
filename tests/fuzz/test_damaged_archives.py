"""Archives and HTTP/2 conversations with random damage: a BoxshipError or nothing, never a crash, never a rest.

The damage is chosen by a seed, so a failure can be repeated; set BOXSHIP_FUZZ_ROUNDS for a longer hunt.
"""

import io
import os
import random
import shutil
import tarfile
from pathlib import Path

import pytest

from boxship.containerd.http2.frames import Connection
from boxship.errors import BoxshipError, PeerError
from boxship.image.apply import apply_layer
from boxship.image.content import ContentStore
from boxship.image.load import load_archive

from ..kernel.layer_archives import archive, directory, hard_link, member, symlink, with_checksum
from ..kernel.test_snapshots_and_archives import docker_archive, layers, saved
from ..unit.test_http2 import CONVERSATION

pytestmark = pytest.mark.root

ROUNDS = int(os.environ.get("BOXSHIP_FUZZ_ROUNDS", "150"))
MEMBERS = [
    directory("d", uid=1),
    member("d/f", b"x" * 600, pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "1.5"}),
    symlink("l", "/d"),
    hard_link("h", "d/f"),
    member("d/.wh.x"),
    member("n" * 150, b"y"),
    member("dev", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
]
LAYERS = [archive(MEMBERS, format=format) for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, cut out or cut off; most of the time with checksums that are right again."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out))
        match chance.randrange(6):
            case 0 | 1 | 2:
                out[at] = chance.randrange(256)
            case 3:
                out[at : at + chance.randint(1, 12)] = chance.randbytes(chance.randint(0, 12))
            case 4:
                del out[at : at + 512]
            case 5:
                del out[at:]
        out = out or bytearray(b"x")
    if chance.random() < 0.8:
        for at in range(0, len(out) - 511, 512):
            if out[at + 257 : at + 262] == b"ustar":
                out[at : at + 512] = with_checksum(out[at : at + 512])
    return bytes(out)


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_layer_is_refused_or_applied_inside_its_root(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        root = tmp_path / "root"
        root.mkdir()
        try:
            apply_layer(io.BytesIO(damaged(chance.choice(LAYERS), chance)), str(root))
        except BoxshipError:
            pass  # refused with one of our errors: what the test is about
        assert os.listdir(tmp_path) == ["root"]
        shutil.rmtree(root)


@pytest.mark.parametrize("seed", range(2))
def test_a_damaged_image_archive_is_refused_without_a_rest(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    originals = [saved(), docker_archive(layers())]
    store = ContentStore(str(tmp_path / "content"))
    for _ in range(ROUNDS):
        try:
            load_archive(io.BytesIO(damaged(chance.choice(originals), chance)), store)
        except BoxshipError:
            assert list(store.walk()) == []
        else:
            for blob in store.walk():
                store.delete(blob.digest)
        assert store.statuses() == []


def test_a_damaged_conversation_is_the_peers_fault_or_understood() -> None:
    chance = random.Random(0)
    for _ in range(ROUNDS * 4):
        data = bytearray(CONVERSATION)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(24, len(data))] = chance.randrange(256)
        try:
            Connection().receive(bytes(data))
        except PeerError:
            pass  # the peer's fault
