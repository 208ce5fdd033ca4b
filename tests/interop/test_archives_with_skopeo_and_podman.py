"""Archives between our image library and skopeo, podman and umoci."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from boxship.image.apply import apply_layer
from boxship.image.content import ContentStore
from boxship.image.load import load_archive, load_layout
from boxship.image.rootfs import import_rootfs
from boxship.image.save import save, write_layout
from boxship.image.store import Image

pytestmark = pytest.mark.root
NAME = "docker.io/library/tiny:1"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path / "content"))


@pytest.fixture
def image(store: ContentStore) -> Image:
    rootfs = io.BytesIO()
    with tarfile.open(fileobj=rootfs, mode="w") as tar:
        for name, size in (("a", 10), ("dir/b", 70_000)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(os.urandom(size)))
    rootfs.seek(0)
    made = import_rootfs(rootfs, store, config={"Cmd": ["/a"]})
    made.names.append(NAME)
    return made


@pytest.fixture
def saved(store: ContentStore, image: Image, tmp_path: Path) -> Path:
    with open(tmp_path / "saved.tar", "wb") as out:
        save(store, [image], out)
    return tmp_path / "saved.tar"


@needs("skopeo")
@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive", "oci"])
def test_what_skopeo_copies_from_our_archive_comes_back_as_the_same_image(
    image: Image, saved: Path, tmp_path: Path, transport: str
) -> None:
    to = tmp_path / "copied"
    run("skopeo", "copy", "-q", f"docker-archive:{saved}", f"{transport}:{to}:{NAME}")
    other = ContentStore(str(tmp_path / "other"))
    if transport == "oci":
        (again,) = load_layout(str(to), other)
    else:
        with open(to, "rb") as file:
            (again,) = load_archive(file, other)
    assert again.names == [NAME]
    assert again.config.config == image.config.config
    assert again.config.diff_ids == image.config.diff_ids
    for layer, diff_id in zip(again.manifest.layers, again.config.diff_ids, strict=True):
        root = tmp_path / "root"
        root.mkdir()
        with other.open(layer.digest) as blob:  # skopeo compresses layers for OCI: the diff ID is what stays
            assert apply_layer(blob, str(root)).diff_id == diff_id
        assert (root / "dir" / "b").stat().st_size == 70_000


@needs("skopeo")
def test_skopeo_reads_our_layout(store: ContentStore, image: Image, tmp_path: Path) -> None:
    write_layout(store, [image], str(tmp_path / "layout"))
    said = json.loads(run("skopeo", "inspect", f"oci:{tmp_path}/layout"))
    assert said["Digest"] == image.target.digest


@needs("podman")
def test_podman_loads_what_we_save_and_we_load_what_it_saves(image: Image, saved: Path, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="bxp") as home:  # podman wants the path of its run root short
        podman = ("podman", "--root", f"{home}/r", "--runroot", f"{home}/s", "--storage-driver", "vfs")
        assert "docker.io/library/tiny:1" in run(*podman, "load", "-i", str(saved))
        for kind in ("docker-archive", "oci-archive"):
            run(*podman, "save", "-q", "--format", kind, "-o", f"{tmp_path}/{kind}", NAME)
            with open(tmp_path / kind, "rb") as file:
                (again,) = load_archive(file, ContentStore(str(tmp_path / f"from {kind}")))
            assert again.names == [NAME]
            assert again.config.diff_ids == image.config.diff_ids


@needs("umoci")
def test_umoci_unpacks_our_layout_to_what_we_unpack(store: ContentStore, image: Image, tmp_path: Path) -> None:
    write_layout(store, [image], str(tmp_path / "layout"))
    run("umoci", "unpack", "--image", f"{tmp_path}/layout:1", str(tmp_path / "bundle"))
    ours = tmp_path / "ours"
    ours.mkdir()
    with store.open(image.manifest.layers[0].digest) as blob:
        apply_layer(blob, str(ours))
    run("diff", "-r", str(tmp_path / "bundle" / "rootfs"), str(ours))
