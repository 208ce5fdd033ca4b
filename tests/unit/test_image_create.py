"""``boxship-image create``: bundles from layouts and archives, and what stops it."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
from pathlib import Path

import pytest

from boxship.oci import image as oci
from boxship.tools.main import main

from .test_image_spec_documents import Image, tarball

pytest.importorskip("boxship.image.bundle")
pytestmark = pytest.mark.root


@pytest.fixture
def image(tmp_path: Path) -> Image:
    made = Image(tmp_path / "layout")
    made.config = {"config": {"Cmd": ["/file"], "Env": ["A=b"], "WorkingDir": "/"}}
    made.write()
    return made


def create(*words: object) -> int:
    return main(["create", *map(str, words)], "boxship-image")


def test_a_bundle_of_a_layout(image: Image, tmp_path: Path) -> None:
    assert create("--ref", "name=v1", image.path, tmp_path / "bundle") == 0
    assert sorted(os.listdir(tmp_path / "bundle")) == ["config.json", "rootfs"]
    assert (tmp_path / "bundle/rootfs/file").read_bytes() == b"x"
    config = json.loads((tmp_path / "bundle/config.json").read_text())
    assert config["root"]["path"] == "rootfs"
    assert config["process"]["args"] == ["/file"]
    assert "A=b" in config["process"]["env"]


def test_a_bundle_of_an_archive_with_another_name_for_its_root(image: Image, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "image.tar.gz", "w:gz") as archive:
        archive.add(image.path, arcname=".")
    assert create("--rootfs", "tree", tmp_path / "image.tar.gz", tmp_path / "bundle") == 0
    assert json.loads((tmp_path / "bundle/config.json").read_text())["root"]["path"] == "tree"
    assert (tmp_path / "bundle/tree/file").exists()


def test_a_root_file_system_alone(image: Image, tmp_path: Path) -> None:
    assert create("--rootfs-only", image.path, tmp_path / "root") == 0
    assert os.listdir(tmp_path / "root") == ["file"]


def test_the_platform_chooses(image: Image, tmp_path: Path) -> None:
    entry = json.loads((image.path / "index.json").read_text())["manifests"][0]
    entry["platform"] = {"os": "linux", "architecture": "s390x"}
    del entry["annotations"]
    index = {"schemaVersion": 2, "mediaType": oci.MEDIA_INDEX, "manifests": [entry]}
    image.index([image.document(index, oci.MEDIA_INDEX)])
    assert create(image.path, tmp_path / "here") == 1
    assert create("--platform", "linux:s390x", image.path, tmp_path / "there") == 0
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("only", [(), ("--rootfs-only",)], ids=["bundle", "rootfs"])
def test_a_failure_leaves_nothing(
    only: tuple[str, ...], image: Image, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image.layer = gzip.compress(tarball(b"other"))
    image.write()
    assert create(*only, image.path, tmp_path / "bundle") == 1
    assert "Traceback" not in capfd.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_what_it_refuses(image: Image, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    for words, complaint in (
        ([image.path, tmp_path / "there"], "there is there already"),
        (["--ref", "name=v2", image.path, tmp_path / "b"], "has no such image"),
        (["--rootfs", "../x", image.path, tmp_path / "b"], "is not the name of a directory"),
        (["--platform", "a:b:c:d", image.path, tmp_path / "b"], "invalid platform"),
        ([tmp_path / "nosuch", tmp_path / "b"], "there is no file"),
        ([tmp_path, tmp_path / "b"], "is not an OCI image layout"),
        ([image.path, tmp_path / "no/such"], "cannot make"),
    ):
        assert create(*words) == 1
        assert complaint in capfd.readouterr().err
        assert not (tmp_path / "b").exists()
