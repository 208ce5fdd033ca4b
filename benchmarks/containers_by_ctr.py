"""How long do 100 containers by `ctr run -d`, 10 at a time, take on our containerd, beside the real one?

Both daemons run side by side on directories of their own, with the same image; rounds alternate. Ours forks its
shims from the zygote, the real one executes containerd-shim-runc-v2 and runc. Aim: at most 0.6 of the real one.
Needs root, and Debian's containerd, ctr, runc and a static busybox.
"""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

CONTAINERS = 100
AT_A_TIME = 10
ROUNDS = 3
AIM = 0.6
IMAGE = "docker.io/library/bench:latest"


@dataclass(frozen=True)
class Peer:
    name: str
    socket: str
    runtime: str

    def ctr(self, *arguments: str) -> str:
        command = ["ctr", "-a", self.socket, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def run(self, name: str) -> None:
        self.ctr("run", "-d", "--runtime", self.runtime, IMAGE, name, "/bin/busybox", "sleep", "1000")


@contextmanager
def daemon(command: Sequence[str], socket: str, log: str) -> Iterator[None]:
    """Run a containerd in the foreground until the block ends."""
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 15
        while subprocess.run(["ctr", "-a", socket, "version"], capture_output=True, check=False).returncode:
            if time.monotonic() > deadline or process.poll() is not None:
                with open(log, encoding="utf-8") as said:
                    raise RuntimeError(f"{command[0]} did not start: {said.read()[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def image_archive(path: str) -> None:
    """A docker-archive of one layer with busybox, written by our own library."""
    from boxship.image.content import ContentStore
    from boxship.image.rootfs import import_rootfs
    from boxship.image.save import save

    busybox = shutil.which("busybox")
    assert busybox is not None, "needs busybox (Debian: busybox-static)"
    with tempfile.TemporaryDirectory() as scratch:
        rootfs = os.path.join(scratch, "rootfs.tar")
        with tarfile.open(rootfs, "w") as tar:
            tar.add(busybox, "bin/busybox")
        store = ContentStore(os.path.join(scratch, "content"))
        with open(rootfs, "rb") as file:
            image = import_rootfs(file, store, config={"Env": ["PATH=/bin"]})
        image.names.append(IMAGE)
        with open(path, "wb") as out:
            save(store, [image], out)


def one_round(peer: Peer) -> float:
    """Seconds from the first `ctr run -d` to the last one's return; the containers are removed afterwards."""
    names = [f"bench-{number}" for number in range(CONTAINERS)]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        try:
            start = time.monotonic()
            list(pool.map(peer.run, names))
            took = time.monotonic() - start
            running = peer.ctr("tasks", "ls").count("RUNNING")
            assert running == CONTAINERS, f"{peer.name}: only {running} of {CONTAINERS} run"
        finally:
            tasks = peer.ctr("tasks", "ls", "-q").split()
            list(pool.map(lambda name: peer.ctr("tasks", "rm", "-f", name), tasks))
            list(
                pool.map(
                    lambda name: peer.ctr("containers", "rm", name),
                    peer.ctr("containers", "ls", "-q").split(),
                )
            )
    return took


def main() -> int:
    """The exit code: 1 when the aim is missed."""
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="boxship-bench-"))
        archive = os.path.join(scratch, "image.tar")
        image_archive(archive)
        peers = []
        for name, program, runtime in (
            (
                "boxship-containerd",
                [sys.executable, "-m", "boxship.containerd.main"],
                "io.containerd.boxship.v2",
            ),
            ("containerd", ["containerd"], "io.containerd.runc.v2"),
        ):
            home = os.path.join(scratch, name[:4])
            os.makedirs(home)
            peer = Peer(name, os.path.join(home, "c.sock"), runtime)
            directories = ["--root", os.path.join(home, "root"), "--state", os.path.join(home, "state")]
            config = os.path.join(home, "config.toml")
            with open(config, "w") as file:
                file.write('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
            command = [*program, "--config", config, *directories, "--address", peer.socket]
            stack.enter_context(daemon(command, peer.socket, os.path.join(home, "log")))
            peer.ctr("images", "import", archive)
            peers.append(peer)
        times: "dict[str, list[float]]" = {peer.name: [] for peer in peers}
        for _ in range(ROUNDS):
            for peer in peers:
                times[peer.name].append(one_round(peer))
        ours, theirs = (statistics.median(times[peer.name]) for peer in peers)
    ratio = ours / theirs
    print(f"{CONTAINERS} containers by ctr run -d, {AT_A_TIME} at a time, median of {ROUNDS}:")
    print(f"  boxship-containerd {ours:6.2f} s   containerd {theirs:6.2f} s   ratio {ratio:.2f} (aim {AIM})")
    return 0 if ratio <= AIM else 1


if __name__ == "__main__":
    sys.exit(main())
