"""How long does it take to compress a new layer of a Debian tree (180 MB), and how large is it?

`boxship-image copy` of a plain layer beside skopeo's, to gzip and to zstd, and `repack` beside umoci's, turn by turn
in one run and on a tmpfs: wall time, CPU time of all threads, bytes. Aim: at most a tenth more wall time than theirs.
Then the peak memory of the compressor alone.
Needs root, skopeo, umoci, debootstrap and a mirror of Debian's.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from image_fixture import debian_tar, image_of

from boxship.image.layout import Layout
from boxship.image.mutate import new_image
from boxship.image.named import read_manifest, resolve

AIM = 1.10
OURS = (sys.executable, "-m", "boxship.tools")
COPIES = {
    "copy to gzip": ("--dest-compress-format", "gzip"),
    "copy to zstd": ("--dest-compress-format", "zstd"),
}
PACK = """
import resource, sys
from boxship.image.packing import packer
packing = packer(sys.argv[2])
with open(sys.argv[1], "rb") as tar:
    while data := tar.read(1 << 18):
        packing.compress(data)
packing.flush()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def image(path: Path, tar: Path) -> None:
    """A layout with the tree as one plain layer (``plain``), and an image without layers (``empty``)."""
    layout = Layout.create(str(path))
    new_image(layout, "empty")
    image_of(layout, tar, "plain", "")


def timed(*command: str) -> tuple[float, float]:
    """Wall and CPU seconds."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu


def layer_size(path: Path, name: str) -> int:
    layout = Layout(str(path))
    return read_manifest(layout, resolve(layout, name).manifest).layers[-1].size


def report(what: str, other: str, ours: list[tuple[float, float]], theirs: list[tuple[float, float]],
           sizes: tuple[int, int]) -> None:  # fmt: skip
    wall, cpu, their_wall, their_cpu = (
        statistics.median(run[which] for run in runs) for runs in (ours, theirs) for which in (0, 1)
    )
    print(
        f"{what:<13} ours {wall:5.2f} s, CPU {cpu:5.2f} s, {sizes[0] / 1e6:5.1f} MB"
        f"   {other:<6} {their_wall:5.2f} s, CPU {their_cpu:5.2f} s, {sizes[1] / 1e6:5.1f} MB"
        f"   ratio {wall / their_wall:.2f} (aim {AIM:.2f})"
    )


def copies(work: Path, rounds: int) -> None:
    for what, flags in COPIES.items():
        times: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
        for _ in range(rounds):
            for who, tool in (("ours", OURS), ("theirs", ("skopeo",))):
                shutil.rmtree(work / who, ignore_errors=True)
                words = ("--insecure-policy", "copy", "--quiet", *flags, f"oci:{work}/image:plain")
                times[who].append(timed(*tool, *words, f"oci:{work}/{who}:x"))
        sizes = (layer_size(work / "ours", "x"), layer_size(work / "theirs", "x"))
        report(what, "skopeo", times["ours"], times["theirs"], sizes)


def repacks(work: Path, tar: Path, rounds: int) -> None:
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    subprocess.run(["umoci", "unpack", "--image", f"{work}/image:empty", f"{work}/bundle"], check=True,
                   capture_output=True)  # fmt: skip
    subprocess.run(["tar", "-C", f"{work}/bundle/rootfs", "-xf", str(tar)], check=True)
    for _ in range(rounds):
        for who, tool in (("ours", (sys.executable, "-m", "boxship.tools.umoci")), ("theirs", ("umoci",))):
            times[who].append(timed(*tool, "repack", "--image", f"{work}/image:{who}", f"{work}/bundle"))
    sizes = (layer_size(work / "image", "ours"), layer_size(work / "image", "theirs"))
    report("repack", "umoci", times["ours"], times["theirs"], sizes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    missing = [program for program in ("skopeo", "umoci") if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        raise SystemExit(f"needs {', '.join(missing) or 'root'}")
    tar = debian_tar()
    work = Path(tempfile.mkdtemp(prefix="boxship-layers-", dir="/dev/shm"))
    try:
        image(work / "image", tar)
        print(f"{len(os.sched_getaffinity(0))} cores")
        copies(work, asked.rounds)
        repacks(work, tar, asked.rounds)
        for compression in ("gzip", "zstd"):
            peak = subprocess.check_output([sys.executable, "-c", PACK, str(tar), compression], text=True)
            print(f"the compressor alone, {compression}: peak {peak.strip()} MB")
    finally:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
