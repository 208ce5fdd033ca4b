"""What the image benchmarks share: a Debian root file system as one gzip layer, and a registry that has it."""

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.interop.registry_fixture import registry

from boxship.image.layout import Layout
from boxship.image.mutate import Mutation, new_image
from boxship.image.named import resolve
from boxship.image.streams import Compression

CACHE = Path("/var/tmp/boxship-bench-debian.tar")
"""Made once: fetching and unpacking the packages takes a minute."""


def debian_tar() -> Path:
    """A minimal Debian, some 6,700 files; needs debootstrap and a mirror of Debian's."""
    if not CACHE.exists():
        with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
            if shutil.which("debootstrap") is None:
                raise SystemExit("needs debootstrap")
            subprocess.run(
                ["debootstrap", "--variant=minbase", "stable", f"{scratch}/root"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            shutil.rmtree(f"{scratch}/root/var/cache/apt")
            subprocess.run(
                ["tar", "--numeric-owner", "-C", f"{scratch}/root", "-cf", f"{scratch}/tar", "."], check=True
            )
            shutil.move(f"{scratch}/tar", CACHE)
    return CACHE


def layout_of(directory: Path, tar: Path, name: str) -> Layout:
    """An OCI layout with one image of one gzip layer."""
    layout = Layout.create(str(directory))
    data = tar.read_bytes()
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as file:
        file.write(data)
    return _image(layout, packed.getvalue(), f"sha256:{hashlib.sha256(data).hexdigest()}", name)


def image_of(layout: Layout, tar: Path, tag: str, compression: Compression) -> None:
    """An image of one layer with the tree, compressed as we do it ("": plain)."""
    new_image(layout, tag)
    mutation = Mutation(layout, resolve(layout, tag))
    with mutation.layer(None, compression) as layer, open(tar, "rb") as file:
        while data := file.read(1 << 20):
            layer.write(data)
    layout.tag(tag, mutation.commit().root)


def _image(layout: Layout, layer: bytes, diff_id: str, name: str) -> Layout:
    from boxship.oci import image as oci

    digest, _ = layout.add(layer)
    config = json.dumps(
        {
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
    ).encode()  # fmt: skip
    manifest = oci.encode(
        oci.Manifest(
            2,
            oci.Descriptor(oci.MEDIA_CONFIG, layout.add(config)[0], len(config)),
            [oci.Descriptor(oci.MEDIA_LAYER_GZIP, digest, len(layer))],
            media_type=oci.MEDIA_MANIFEST,
        )
    )
    layout.tag(name, oci.Descriptor(oci.MEDIA_MANIFEST, layout.add(manifest)[0], len(manifest)))
    return layout


@contextmanager
def registry_with(root: Path, layout: Layout, name: str, repository: str) -> Iterator[str]:
    """A docker-registry on loopback that has the image; gives its complete name."""
    from boxship.image.registry.client import Repository
    from boxship.image.registry.transfer import push
    from boxship.oci import reference

    with registry(root) as serving:
        reference_ = reference.parse(f"{serving.domain}/{repository}:{name}")
        push(Repository(reference_), name, layout, layout.find(name)[0])
        yield str(reference_)
