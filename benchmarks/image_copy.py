"""How long does copying an image take, beside skopeo, and how much memory does a large layer need?

Both copy the same images registry -> registry, layout -> registry and registry -> layout, turn by turn in one run;
the target is at most skopeo's time and a tenth, for a Debian of 6,700 files and for one of three large layers. Then
one layer of ``--large`` GB goes through `boxship-image copy`, whose peak memory is to stay below 100 MB.
Needs skopeo and docker-registry; everything is on the loopback interface and below a temporary directory.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from boxship.image.layout import Layout
from boxship.image.transforms import Compressing
from boxship.oci import image as oci

sys.path.insert(0, str(Path(__file__).parents[1]))
from image_fixture import debian_tar, layout_of
from tests.interop.registry_fixture import free_port

TARGET = 1.10
MEMORY = 100
CHUNK = 1 << 20
OURS = (sys.executable, "-m", "boxship.tools", "--insecure-policy")
THEIRS = ("skopeo", "--insecure-policy")


@contextmanager
def registry(root: Path) -> Iterator[str]:
    port = free_port()
    root.mkdir()
    config = root / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {root}/data}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
    )
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(1.0)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


class Random:
    """Bytes that do not compress, of a seed: a reader."""

    def __init__(self, size: int, seed: int) -> None:
        self._left = size
        self._random = random.Random(seed)
        self._block = self._random.randbytes(CHUNK)

    def read(self, size: int = -1, /) -> bytes:
        size = min(CHUNK, self._left)
        self._left -= size
        self._block = self._block[1:] + self._random.randbytes(1)
        return self._block[:size]


def image(path: Path, sizes: list[int]) -> None:
    """A layout with one image. Its layers are gzip, or skopeo, which looks at the bytes, would compress them."""
    layout = Layout.create(str(path))

    def put(source: bytes | Compressing, media_type: str) -> oci.Descriptor:
        digest, _ = layout.add(source)
        return oci.Descriptor(media_type, digest, os.path.getsize(layout.blob_path(digest)))

    layers = [
        put(Compressing(Random(size, number), "gzip", 0), oci.MEDIA_LAYER_GZIP) for number, size in enumerate(sizes)
    ]
    config = oci.ImageConfig("amd64", "linux", rootfs=oci.RootFS("layers", [one.digest for one in layers]))
    manifest = oci.Manifest(2, put(oci.encode(config), oci.MEDIA_CONFIG), layers, media_type=oci.MEDIA_MANIFEST)
    layout.tag("x", put(oci.encode(manifest), oci.MEDIA_MANIFEST))


# An installed program has its bytecode; a checkout that was just edited gets it in a first call.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def timed(command: list[str]) -> float:
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started


def compare(root: Path, make: Callable[[Path], object], rounds: int) -> float:
    """The worst ratio. ``make`` makes a layout with the image ``x``."""
    root.mkdir()
    make(root / "image")
    worst = 0.0
    with registry(root / "from") as source, registry(root / "to") as target:
        copy = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false"]
        timed([*OURS, *copy, f"oci:{root}/image:x", f"docker://{source}/image:x"])
        number = 0

        def fresh(kind: str) -> str:
            nonlocal number
            number += 1
            return f"docker://{target}/new{number}:x" if kind == "registry" else f"oci:{root}/new{number}:x"

        def clean() -> None:
            shutil.rmtree(root / "to" / "data", ignore_errors=True)
            for one in root.glob("new*"):
                shutil.rmtree(one)

        for what, begin, end in (
            ("registry -> registry", f"docker://{source}/image:x", "registry"),
            ("layout -> registry", f"oci:{root}/image:x", "registry"),
            ("registry -> layout", f"docker://{source}/image:x", "layout"),
        ):
            times: dict[tuple[str, ...], list[float]] = {OURS: [], THEIRS: []}
            for _ in range(rounds):
                for tool, found in times.items():
                    found.append(timed([*tool, *copy, begin, fresh(end)]))
                    clean()
            ours, theirs = statistics.median(times[OURS]), statistics.median(times[THEIRS])
            worst = max(worst, ours / theirs)
            print(f"{what:<22} ours {ours:6.2f} s   skopeo {theirs:6.2f} s   ratio {ours / theirs:.2f}")
    return worst


PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(done.returncode)
"""


def memory(root: Path, size: int) -> int:
    """The peak of a copy in each direction, in MB: the larger of the two."""
    root.mkdir()
    image(root / "large", [size])
    with registry(root / "big") as target:
        there, flags = f"docker://{target}/large:x", ["--dest-tls-verify=false", "--src-tls-verify=false", "--quiet"]
        return max(
            int(subprocess.check_output([sys.executable, "-c", PEAK, *OURS, "copy", *flags, *ends], text=True))
            for ends in ((f"oci:{root}/large:x", there), (there, f"oci:{root}/back:x"))
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=100, help="megabytes in each of three layers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--large", type=float, default=4.0, help="gigabytes in the large layer; 0 leaves it out")
    parser.add_argument("--directory", help="where the data goes; a tmpfs leaves the disk out")
    asked = parser.parse_args()
    for program in ("skopeo", "docker-registry"):
        if shutil.which(program) is None:
            print(f"not installed: {program}")
            return 0
    root = Path(tempfile.mkdtemp(prefix="boxship-copy-", dir=asked.directory))
    try:
        print("a small image (three layers of 10 kB)")
        compare(root / "small", lambda path: image(path, [10_000] * 3), asked.rounds)
        print("a Debian of 6,700 files, one layer of 60 MB")
        worst = compare(root / "debian", lambda path: layout_of(path, debian_tar(), "x"), asked.rounds)
        print(f"an image of {3 * asked.mb} MB")
        large = compare(root / "medium", lambda path: image(path, [asked.mb * 1_000_000] * 3), asked.rounds)
        worst = max(worst, large)
        reached = worst <= TARGET
        print(f"worst ratio {worst:.2f}, target {TARGET:.2f}")
        if asked.large:
            peak = memory(root / "memory", int(asked.large * 1e9))
            print(f"a layer of {asked.large:g} GB: peak {peak} MB, target {MEMORY} MB")
            reached = reached and peak <= MEMORY
    finally:
        shutil.rmtree(root)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
