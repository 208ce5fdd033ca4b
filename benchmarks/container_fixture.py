"""What the start-up benchmarks share: a bundle, the floor program, and printing of ratios."""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from boxship.libcontainer.defaults import default
from boxship.libcontainer.seccomp.docker import docker_default

HERE = Path(__file__).parent
IDLE = 0.12  # seconds: users start one container after a while of nothing, not fifty in a row
DOCKER_CAPABILITIES = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID CAP_SETFCAP "
    "CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE"
).split()


def state_directory() -> str:
    """Where runtimes keep their state in a benchmark: a tmpfs, as /run is on an installed system."""
    return tempfile.mkdtemp(prefix="boxship-bench-", dir="/dev/shm")


@contextmanager
def bundle() -> Iterator[str]:
    """A bundle of one static `true` with Docker's capabilities and seccomp policy and some limits."""
    directory = tempfile.mkdtemp(prefix="boxship-bench-")
    try:
        os.makedirs(directory + "/rootfs/bin")
        busybox = shutil.which("busybox")
        if busybox is None:
            raise SystemExit("needs a static busybox (Debian: busybox-static)")
        shutil.copy2(busybox, directory + "/rootfs/bin/true")
        os.link(directory + "/rootfs/bin/true", directory + "/rootfs/bin/sleep")
        # The mount points of every image, so that no program has to make them in its first run.
        for name in ("proc", "dev", "sys"):
            os.mkdir(f"{directory}/rootfs/{name}")
        spec = default()
        spec["ociVersion"] = "1.0.2"  # what the runc of a stable distribution accepts
        process = spec["process"]
        process.update(terminal=False, args=["true"], noNewPrivileges=False)
        process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), DOCKER_CAPABILITIES)
        spec["linux"]["resources"].update(
            memory={"limit": 256 << 20}, pids={"limit": 100}, cpu={"shares": 512, "quota": 100000, "period": 100000}
        )
        spec["linux"]["seccomp"] = docker_default(DOCKER_CAPABILITIES, os.uname().machine)
        (Path(directory) / "config.json").write_text(json.dumps(spec))
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def floor(directory: str) -> Iterator["Floor"]:
    """The floor program, compiled and waiting."""
    with tempfile.TemporaryDirectory() as scratch:
        program = scratch + "/floor"
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", program, str(HERE / "floor.c")], check=True)
        process = subprocess.Popen(
            [program, directory + "/rootfs", "/bin/true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        try:
            yield Floor(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


class Floor:
    """One container of the floor program for each call: milliseconds."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def __call__(self) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        return int(self.process.stdout.readline()) / 1e6


def report(title: str, times: "dict[str, list[float]]", ratios: "Sequence[tuple[str, str, float | None]]") -> bool:
    """Print medians, and each ratio with its aim, if it has one; whether all aims were reached."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(title)
    for name, value in medians.items():
        print(f"  {name:<28} {value:7.2f} ms   (fastest {min(times[name]):.2f}, {len(times[name])} runs)")
    reached = True
    for ours, theirs, aim in ratios:
        ratio = medians[ours] / medians[theirs]
        if aim is None:
            print(f"  {ours} / {theirs}: {ratio:.2f}")
            continue
        reached = reached and ratio <= aim
        print(f"  {ours} / {theirs}: {ratio:.2f} (at most {aim}){'' if ratio <= aim else '  MISSED'}")
    return reached
