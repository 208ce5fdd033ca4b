"""The real dockerd with our containerd under it, and archives between the two."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxship.image.content import ContentStore
from boxship.image.load import load_archive
from boxship.image.save import save

NEEDED = ("dockerd", "docker", "containerd-shim-runc-v2", "busybox")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"needs {', '.join(NEEDED)}"),
]


class Docker:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.socket = f"unix://{home}/d.sock"

    def __call__(
        self, *arguments: str, stdin: bytes = b"", check: bool = True
    ) -> "subprocess.CompletedProcess[bytes]":
        done = subprocess.run(
            ["docker", "-H", self.socket, *arguments], input=stdin, capture_output=True, timeout=60, check=False
        )
        if check:
            said = "".join((self.home / name).read_text()[-2000:] for name in ("dockerd.log", "containerd.log"))
            assert done.returncode == 0, f"{arguments}: {done.stderr.decode()}\n{said}"
        return done


def wait_for(command: "list[str]", log: Path) -> None:
    deadline = time.monotonic() + 20
    while subprocess.run(command, capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    home = Path("/tmp") / f"bxdk{os.getpid()}"  # short: the path of a socket has 107 bytes
    home.mkdir()
    docker = Docker(home)
    (home / "daemon.json").write_text("{}")
    with open(home / "containerd.log", "wb") as log:
        ours = subprocess.Popen(
            [sys.executable, "-m", "boxship.containerd.main", "--root", f"{home}/r", "--state", f"{home}/s",
             "--address", f"{home}/c.sock"], stdout=log, stderr=log,
        )  # fmt: skip
    theirs = None
    try:
        wait_for(["ctr", "-a", f"{home}/c.sock", "version"], home / "containerd.log")
        with open(home / "dockerd.log", "wb") as log:
            theirs = subprocess.Popen(
                ["dockerd", "--config-file", f"{home}/daemon.json", "--containerd", f"{home}/c.sock",
                 "--data-root", f"{home}/data", "--exec-root", f"{home}/exec", "-H", docker.socket,
                 "-p", f"{home}/pid", "--bridge", "none", "--iptables=false"], stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(["docker", "-H", docker.socket, "version"], home / "dockerd.log")
        yield docker
    finally:
        for process in (theirs, ours):
            if process is not None:
                process.send_signal(signal.SIGTERM)
                process.wait(30)
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if f" {home}/" in line:
                subprocess.run(["umount", "-l", line.split()[1]], check=False)
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def image(docker: Docker) -> str:
    rootfs = io.BytesIO()
    with tarfile.open(fileobj=rootfs, mode="w") as tar:
        tar.add(shutil.which("busybox") or "", "bin/busybox")
        for applet in ("sh", "echo", "sleep"):
            info = tarfile.TarInfo(f"bin/{applet}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
    docker("import", "-", "tiny:1", stdin=rootfs.getvalue())
    return "tiny:1"


def test_a_container_runs_execs_and_stops(docker: Docker, image: str) -> None:
    run = ("run", "--network", "none")
    assert docker(*run, "--rm", image, "/bin/echo", "hello").stdout == b"hello\n"
    assert docker(*run, "--rm", image, "/bin/sh", "-c", "exit 7", check=False).returncode == 7
    docker(*run, "-d", "--name", "web", image, "/bin/sleep", "1000")
    assert docker("exec", "web", "/bin/echo", "inside").stdout == b"inside\n"
    docker("kill", "web")
    assert docker("wait", "web").stdout == b"137\n"
    docker("rm", "web")
    left = Path(docker.home, "s", "io.containerd.runtime.v2.task", "moby")
    assert os.listdir(left) == []


def test_what_docker_saves_we_load_and_what_we_save_docker_loads(docker: Docker, image: str, tmp_path: Path) -> None:
    store = ContentStore(str(tmp_path / "content"))
    saved = docker("save", image).stdout
    (loaded,) = load_archive(io.BytesIO(saved), store)
    assert loaded.names == ["docker.io/library/tiny:1"]
    id = docker("images", "-q", "--no-trunc", image).stdout.decode().strip()
    assert loaded.id == id
    loaded.names[:] = ["docker.io/library/tiny:back"]
    out = io.BytesIO()
    save(store, [loaded], out)
    assert b"Loaded image: tiny:back" in docker("load", stdin=out.getvalue()).stdout
    assert docker("images", "-q", "--no-trunc", "tiny:back").stdout.decode().strip() == id
