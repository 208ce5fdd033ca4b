"""How much memory does a shim cost when 50 containers run?  Ours beside containerd-shim-runc-v2.

Both are driven by the same containerd (Debian's), 50 sleeping busybox containers each; the figure is the shims'
PSS (memory shared by several processes counts for each its part), in MB, and ours also with the zygote added.

    python benchmarks/shim_memory.py [COUNT]
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "interop"))

from test_shim_with_containerd import IMAGE, RUNTIME, Containerd, image_archive

PEER = "io.containerd.runc.v2"


def pss(pid: int) -> float:
    """MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0


def private(pid: int) -> float:
    """MB that nobody shares."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"^Private_\w+:\s+(\d+)", text, re.MULTILINE)) / 1024


def shims(daemon: Containerd, count: int, runtime: str) -> tuple[list[float], list[float]]:
    """PSS and private memory of the shims of ``count`` running containers, which are gone afterwards."""
    ids = [f"mem{n}" for n in range(count)]
    for id in ids:
        daemon.ctr("run", "-d", "--runtime", runtime, IMAGE, id, "sleep", "1000")
    try:
        pids = [daemon.shim_pid(id) for id in ids]
        if runtime == RUNTIME:
            zygote = daemon.zygote()
            print(f"  zygote {pss(zygote):.1f} MB PSS")
        return [pss(pid) for pid in pids], [private(pid) for pid in pids]
    finally:
        for id in ids:
            daemon.remove(id)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    if os.geteuid() != 0 or not shutil.which("containerd") or not shutil.which("containerd-shim-runc-v2"):
        print("skipped: needs root, containerd and containerd-shim-runc-v2")
        return
    root = Path(tempfile.mkdtemp(prefix="shimmem"))
    image_archive(root / "image.tar")
    daemon = Containerd(root)
    try:
        daemon.ctr("image", "import", str(root / "image.tar"))
        results = {}
        for name, runtime in (("ours", RUNTIME), ("runc-v2", PEER)):
            print(f"{name}: {count} containers")
            results[name], alone = shims(daemon, count, runtime)
            print(
                f"  PSS each: median {statistics.median(results[name]):.2f} MB, "
                f"max {max(results[name]):.2f} MB; private {statistics.median(alone):.2f} MB"
            )
        ratio = statistics.median(results["ours"]) / statistics.median(results["runc-v2"])
        print(f"ratio ours / containerd-shim-runc-v2: {ratio:.2f} (target: at most 1)")
    finally:
        daemon.kill()
        if daemon.zygote():
            os.kill(daemon.zygote(), signal.SIGKILL)
        subprocess.run(["umount", "-l", *map(str, (root / "state").rglob("rootfs"))], capture_output=True)
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
