"""``manifest``: the same commands by docker's own client and by ours; every byte of their output is equal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from boxship.image.layout import Layout
from boxship.image.registry.client import Repository
from boxship.image.registry.transfer import push
from boxship.oci import image as oci
from boxship.oci import reference

from .registry_fixture import registry

pytestmark = [pytest.mark.root, pytest.mark.peer("docker", "docker-registry")]

IMAGES = (  # repository, architecture, variant, docker's media types
    ("a", "amd64", "", False), ("a", "arm64", "v8", False), ("b", "amd64", "", True), ("b", "arm", "v7", True),
    ("c", "s390x", "", True),
)  # fmt: skip

COMMANDS = """
inspect --insecure REG/a:amd64
inspect --insecure -v REG/a:arm64
inspect --insecure -v REG/b:amd64
create --insecure REG/a:list REG/a:amd64 REG/a:arm64
create --insecure REG/a:list REG/a:amd64
create --insecure REG/b:list REG/b:amd64 REG/b:arm REG/c:s390x
inspect --insecure REG/b:list
inspect REG/a:list REG/a:arm64
inspect -v REG/a:list
annotate REG/b:list REG/b:arm --variant v6 --os-features f1,f2 --os-version 10
annotate REG/b:list REG/b:nosuch --arch x
annotate REG/nolist:list REG/b:arm --arch amd64
create --amend --insecure REG/a:list REG/a:amd64
push --insecure REG/a:list
push --insecure -p REG/b:list
push --insecure REG/b:list
inspect --insecure REG/b:list
inspect --insecure -v REG/b:list
inspect --insecure -v REG/a:list
rm REG/a:list
rm REG/a:list REG/zz:1
inspect --insecure REG/nosuch:1
create --insecure REG/q:1 REG/nosuch:1
create --insecure REG/a:list2 REG/a:list
push --insecure REG/never:1
""".strip().splitlines()


def _image(layout: Layout, architecture: str, variant: str, docker: bool) -> oci.Descriptor:
    layer = b"x" * 2048 + architecture.encode()
    digest = layout.add(layer)[0]
    config = json.dumps(
        {
            "architecture": architecture, "os": "linux", **({"variant": variant} if variant else {}),
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        }
    ).encode()  # fmt: skip
    kinds = (
        (oci.DOCKER_MANIFEST, oci.DOCKER_CONFIG, oci.DOCKER_LAYER_GZIP)
        if docker
        else (oci.MEDIA_MANIFEST, oci.MEDIA_CONFIG, oci.MEDIA_LAYER)
    )
    manifest = oci.encode(
        oci.Manifest(
            2,
            oci.Descriptor(kinds[1], layout.add(config)[0], len(config)),
            [oci.Descriptor(kinds[2], digest, len(layer))],
            media_type=kinds[0],
        )
    )
    return oci.Descriptor(kinds[0], layout.add(manifest)[0], len(manifest))


def _session(program: list[str], root: Path) -> list[tuple[str, str, str, int]]:
    """Each command with what it printed, what it said and how it ended, at a fresh registry."""
    found = []
    with registry(root / "registry") as serving:
        layout = Layout.create(str(root / "layout"))
        for repository, architecture, variant, docker in IMAGES:
            name = reference.parse(f"{serving.domain}/{repository}:{architecture}")
            push(Repository(name), architecture, layout, _image(layout, architecture, variant, docker))
        for line in COMMANDS:
            done = subprocess.run(
                [*program, "manifest", *line.replace("REG", serving.domain).split()],
                env={**os.environ, "DOCKER_CONFIG": str(root / "config")},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            out, said = (text.replace(serving.domain, "REG") for text in (done.stdout, done.stderr))
            found.append((line, out, said.removeprefix("boxship: "), done.returncode))
    return found


def test_every_command_prints_what_dockers_prints(tmp_path: Path) -> None:
    theirs = _session(["docker"], tmp_path / "docker")
    ours = _session([sys.executable, "-m", "boxship.cli"], tmp_path / "ours")
    for expected, found in zip(theirs, ours, strict=True):
        assert found == expected


def test_lists_of_one_are_read_by_the_other(tmp_path: Path) -> None:
    boxship, docker = [sys.executable, "-m", "boxship.cli"], ["docker"]
    with registry(tmp_path / "registry") as serving:
        layout = Layout.create(str(tmp_path / "layout"))
        name = reference.parse(f"{serving.domain}/a:arm64")
        push(Repository(name), "arm64", layout, _image(layout, "arm64", "v8", False))
        environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path / "config")}

        def run(program: list[str], *words: str) -> str:
            command = [*program, "manifest", *words]
            return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

        for writer, reader in ((boxship, docker), (docker, boxship)):
            run(writer, "create", "--insecure", f"{serving.domain}/a:list", str(name))
            run(writer, "annotate", f"{serving.domain}/a:list", str(name), "--variant", "v9")
            assert '"v9"' in run(reader, "inspect", f"{serving.domain}/a:list")
            digest = run(reader, "push", "--insecure", "-p", f"{serving.domain}/a:list").strip()
            assert digest.startswith("sha256:")
            shutil.rmtree(tmp_path / "config" / "manifests", ignore_errors=True)


def test_no_engine_is_started_for_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "boxship.cli", "-H", f"unix://{tmp_path}/none.sock", "manifest", "rm", "x/y:1"],
        env={**os.environ, "DOCKER_CONFIG": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "No such manifest: x/y:1\n")
