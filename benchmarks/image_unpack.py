"""How much does it cost to unpack a Debian image (6,700 files, a layer of 90 MB in gzip)?

CPU time, of children and threads too, of our ``umoci unpack`` beside the real umoci and beside ``docker load`` (its
daemon included), interleaved, on a tmpfs, because a disk's write-back costs whoever comes next. And the memory that a
layer of 4 GB needs.
Aims: at most 0.4 x umoci's CPU time and 0.6 x docker load's, under 100 MB for the large layer.
Needs root, debootstrap and a mirror (or ``BOXSHIP_BENCH_ROOTFS``, the tar of a root file system), umoci; dockerd for
the last figure.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.docker_run import dockerd
from image_fixture import image_of

from boxship.image.apply import apply_layer
from boxship.image.layout import Layout

ROUNDS = 5
OURS = [sys.executable, "-m", "boxship.tools.umoci"]
AIM_UMOCI, AIM_DOCKER, AIM_MEMORY = 0.4, 0.6, 100


def rootfs_tar(work: Path) -> Path:
    given = os.environ.get("BOXSHIP_BENCH_ROOTFS")
    if given:
        return Path(given)
    subprocess.run(
        ["debootstrap", "--variant=minbase", "stable", str(work / "debian")], check=True, stdout=subprocess.DEVNULL
    )
    tar = work / "debian.tar"
    command = ["tar", "--numeric-owner", "--sort=name", "-C", str(work / "debian"), "-cf", str(tar), "."]
    subprocess.run(command, check=True)
    shutil.rmtree(work / "debian")
    return tar


def image(work: Path, tar: Path) -> Path:
    layout = Layout.create(str(work / "layout"))
    image_of(layout, tar, "debian", "gzip")
    return work / "layout"


def cpu(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def unpacking(tool: list[str], layout: Path, work: Path) -> float:
    shutil.rmtree(work / "bundle", ignore_errors=True)
    return cpu([*tool, "unpack", "--image", f"{layout}:debian", str(work / "bundle")])


def of_process(pid: int) -> float:
    """The CPU time of a process and of those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def daemons(root: Path) -> list[int]:
    """The daemon that keeps its data in ``root``, and its containerd."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(root).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended
    return [pid for pid in found if Path(f"/proc/{pid}/comm").read_text().strip() in ("dockerd", "containerd")]


def docker_load(address: str, archive: Path, root: Path) -> float:
    pids = daemons(root)
    before = sum(map(of_process, pids))
    client = cpu(["docker", "-H", address, "load", "-i", str(archive)])
    spent = sum(map(of_process, pids)) - before
    subprocess.run(["docker", "-H", address, "rmi", "bench/debian:1"], check=True, capture_output=True)
    return client + spent


def memory_of_a_large_layer(work: Path, size: int = 4 << 30) -> int:
    """The most megabytes that this process has used, when a layer with one file of ``size`` has been applied."""
    read_end, write_end = os.pipe()

    def produce() -> None:
        import tarfile

        info = tarfile.TarInfo("large")
        info.size = size
        with open(write_end, "wb") as out:
            out.write(info.tobuf())
            block = os.urandom(1 << 20)
            for _ in range(size // len(block)):
                out.write(block)
            out.write(bytes(1024))

    (work / "large").mkdir()
    thread = threading.Thread(target=produce)
    thread.start()
    with open(read_end, "rb", buffering=0) as source:
        apply_layer(source, str(work / "large"))
    thread.join()
    shutil.rmtree(work / "large")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> int:
    if not shutil.which("umoci"):
        print("skipped: needs umoci")
        return 0
    missed = 0
    with tempfile.TemporaryDirectory(prefix="bxb", dir="/dev/shm") as directory:
        work = Path(directory)
        layout = image(work, rootfs_tar(work))
        unpacking(OURS, layout, work)
        rounds = [(unpacking(OURS, layout, work), unpacking(["umoci"], layout, work)) for _ in range(ROUNDS)]
        ours, theirs = (statistics.median(times) for times in zip(*rounds, strict=True))
        print(f"unpack: {ours:.2f} s of CPU, umoci {theirs:.2f} s: {ours / theirs:.2f} x (aim {AIM_UMOCI})")
        missed += ours / theirs > AIM_UMOCI
        if all(map(shutil.which, ("docker", "dockerd", "containerd", "skopeo"))):
            archive = work / "debian.docker.tar"
            target = f"docker-archive:{archive}:bench/debian:1"
            subprocess.run(["skopeo", "copy", "-q", f"oci:{layout}:debian", target], check=True)
            root = work / "docker"
            root.mkdir()
            with dockerd(root) as address:
                loads = []
                for _ in range(3):
                    loads.append(docker_load(address, archive, root))
                    time.sleep(0.5)
            load = statistics.median(loads)
            print(f"unpack: {ours:.2f} s of CPU, docker load {load:.2f} s: {ours / load:.2f} x (aim {AIM_DOCKER})")
            missed += ours / load > AIM_DOCKER
        memory = memory_of_a_large_layer(work)
        print(f"a layer of 4 GB: at most {memory} MB of memory (aim {AIM_MEMORY})")
        missed += memory > AIM_MEMORY
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
