"""How long does ``docker run --rm busybox true`` take with the real CLI on our engine?

Beside the real dockerd, interleaved: without a network and with the default one, back to back and after 120 ms of
nothing.  Aims: at most 0.4 x dockerd each.
Needs root, docker, dockerd and containerd, a static busybox.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.interop.engine_fixture import EngineProcess, busybox_rootfs

ROUNDS, IDLE, AIM = 15, 0.12, 0.4


@contextmanager
def dockerd(root: Path) -> Iterator[str]:
    """A real dockerd with a bridge of its own, in directories of its own."""
    address = f"unix://{root}/d.sock"
    subprocess.run(["ip", "link", "add", "bxbench0", "type", "bridge"], check=True)
    subprocess.run(["ip", "addr", "add", "10.199.0.1/24", "dev", "bxbench0"], check=True)
    command = ["dockerd", "--data-root", f"{root}/data", "--exec-root", f"{root}/exec", "-H", address]
    command += ["--pidfile", f"{root}/pid", "--bridge", "bxbench0"]
    with open(root / "dockerd.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(300):
            if subprocess.run(["docker", "-H", address, "info"], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)
        else:
            raise SystemExit(f"dockerd does not start: {(root / 'dockerd.log').read_text()[-500:]}")
        yield address
    finally:
        process.terminate()
        process.wait(60)
        subprocess.run(["ip", "link", "del", "bxbench0"], check=False)


def once(address: str, network: str) -> float:
    begin = time.perf_counter()
    command = ["docker", "-H", address, "run", "--rm", "--network", network, "busybox", "true"]
    subprocess.run(command, check=True, capture_output=True)
    return (time.perf_counter() - begin) * 1e3


def main() -> int:
    if not all(map(shutil.which, ("docker", "dockerd", "containerd"))):
        print("skipped: needs docker, dockerd and containerd")
        return 0
    root = Path(tempfile.mkdtemp(prefix="bxb", dir="/tmp"))
    reached = True
    engine = EngineProcess(root / "ours").start()
    try:
        with dockerd(root) as theirs:
            for address in (engine.address, theirs):
                subprocess.run(
                    ["docker", "-H", address, "import", "-", "busybox"],
                    input=busybox_rootfs(), check=True, capture_output=True,
                )  # fmt: skip
            print(f"docker run --rm busybox true, medians of {ROUNDS}:")
            for network in ("none", "bridge"):
                for idle in (0.0, IDLE):
                    times: dict[str, list[float]] = {engine.address: [], theirs: []}
                    for number in range(ROUNDS + 2):
                        for address, found in times.items():
                            time.sleep(idle)
                            taken = once(address, network)
                            if number >= 2:
                                found.append(taken)
                    ours, real = (statistics.median(found) for found in times.values())
                    when = "after 120 ms idle" if idle else "back to back"
                    reached &= ours / real <= AIM
                    print(
                        f"  --network {network:<7} {when:<18} boxship {ours:6.1f} ms   dockerd {real:6.1f} ms   "
                        f"ratio {ours / real:.2f} (at most {AIM}){'' if ours / real <= AIM else '  MISSED'}"
                    )
    finally:
        engine.remove_everything()
        shutil.rmtree(root, ignore_errors=True)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
