"""A real containerd in directories of its own, for tests and benchmarks."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def containerd(directory: str = "/tmp") -> Iterator[str]:
    """The path of its socket; all of it is in ``directory`` (short: a socket's path has 107 bytes) and goes again."""
    home = Path(tempfile.mkdtemp(prefix="bxcd", dir=directory))
    (home / "config.toml").write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    command = ["containerd", "--config", f"{home}/config.toml", "--root", f"{home}/r", "--state", f"{home}/s"]
    with open(home / "log", "wb") as log:
        process = subprocess.Popen([*command, "--address", f"{home}/c.sock"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        asking = ["ctr", "-a", f"{home}/c.sock", "version"]
        while subprocess.run(asking, capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, (home / "log").read_text()[-3000:]
            time.sleep(0.1)
        yield f"{home}/c.sock"
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(home)
