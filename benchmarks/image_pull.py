"""How long does it take to pull a Debian image from a registry on loopback, until it can be run?

Our engine (``docker pull``) beside containerd (``ctr images pull``), interleaved, the image and its content removed
before each round.  Aim: at most 0.6 x containerd's wall time.
An argument names another directory to work in: on a tmpfs the disk does not count.
Needs root, docker, containerd, docker-registry, debootstrap.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from image_fixture import debian_tar, layout_of, registry_with
from tests.interop.containerd_fixture import containerd
from tests.interop.engine_fixture import EngineProcess

ROUNDS, AIM = 9, 0.6


def run(*command: str, check: bool = True) -> bool:
    return subprocess.run(command, check=check, capture_output=True).returncode == 0


def timed(*command: str) -> float:
    begin = time.perf_counter()
    run(*command)
    return (time.perf_counter() - begin) * 1e3


def main() -> int:
    if not all(map(shutil.which, ("docker", "containerd", "ctr", "docker-registry", "debootstrap"))):
        print("skipped: needs docker, containerd, docker-registry and debootstrap")
        return 0
    root = Path(tempfile.mkdtemp(prefix="bxp", dir=sys.argv[1] if sys.argv[1:] else "/var/tmp"))
    engine = EngineProcess(root / "ours").start()
    try:
        layout = layout_of(root / "layout", debian_tar(), "stable")
        with (
            registry_with(root / "registry", layout, "stable", "debian") as image,
            containerd(str(root)) as address,
        ):
            times: dict[str, list[float]] = {"ours": [], "containerd": []}
            for number in range(ROUNDS + 1):
                ours = timed("docker", "-H", engine.address, "pull", "-q", image)
                theirs = timed("ctr", "-a", address, "images", "pull", "--plain-http", image)
                run("docker", "-H", engine.address, "rmi", image)
                run("ctr", "-a", address, "images", "rm", "--sync", image)
                if number:
                    times["ours"].append(ours)
                    times["containerd"].append(theirs)
    finally:
        engine.remove_everything()
        shutil.rmtree(root)
    ours, theirs = (statistics.median(times[name]) for name in ("ours", "containerd"))
    missed = "" if ours / theirs <= AIM else "  MISSED"
    print(f"pull of a Debian image from a registry on loopback, medians of {ROUNDS}:")
    print(f"  ours {ours:.0f} ms, containerd {theirs:.0f} ms: {ours / theirs:.2f} (at most {AIM}){missed}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
