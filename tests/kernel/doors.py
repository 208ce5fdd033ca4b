"""The two doors of `boxship-runc`: a cold start, and a plan server. What is tested over one is tested over both."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUNTIME = Path(sys.executable).parent / "boxship-runc"
VARIABLE = "BOXSHIP_PLAN_SERVER"
DOORS = ("cold", "warm")


class Served:
    """A plan server of a test's own at ``path``."""

    def __init__(self, path: str, process: "subprocess.Popen[bytes]") -> None:
        self.path = path
        self.process = process

    def workers(self) -> "list[int]":
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(word) for word in text.split()]


@contextmanager
def plan_server() -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="boxship-plans-") as directory:
        path = directory + "/plans.sock"
        process = subprocess.Popen([str(RUNTIME), "serve", "--socket", path], stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            served = Served(path, process)
            while not os.path.exists(path) or len(served.workers()) < 2:
                assert process.poll() is None, "the plan server ended"
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield served
        finally:
            process.terminate()
            process.wait(10)
