"""Bundles for tests that make real containers: one static busybox in a temporary directory."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from boxship.libcontainer.container import Container
from boxship.libcontainer.defaults import default
from boxship.libcontainer.process import Stdio

BUSYBOX = shutil.which("busybox") or ""
APPLETS = "sh true false cat ls id echo sleep env tty stty kill ps mount touch grep ip head od".split()
PATIENCE = float(os.environ.get("BOXSHIP_PATIENCE", "1"))  # a factor for time limits where the processor is emulated
needs_root = pytest.mark.skipif(os.geteuid() != 0 or not BUSYBOX, reason="needs root and a static busybox")


OWN_IDS = [{"containerID": 0, "hostID": 0, "size": 65536}]
"""A map of a user namespace whose ids are the host's."""


class Bundle:
    """A bundle directory, a state root, and short ways to make containers in them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = str(path / "state")
        self.spec = default()
        self.spec["process"]["terminal"] = False
        self.spec["root"]["readonly"] = False
        bin = path / "rootfs" / "bin"
        bin.mkdir(parents=True)
        shutil.copy2(BUSYBOX, bin / "busybox")
        for applet in APPLETS:
            (bin / applet).symlink_to("busybox")
        self.made: list[Container] = []
        self.count = 0

    def create(self, *args: str, stdio: Any = None, **options: Any) -> Container:
        """A created container that runs ``args``."""
        self.count += 1
        self.spec["process"]["args"] = list(args)
        id = f"test-{os.getpid()}-{self.path.name}-{self.count}"
        container = Container.create(id, str(self.path), root=self.root, spec=self.spec, stdio=stdio, **options)
        self.made.append(container)
        return container

    def output(self, *args: str, **options: Any) -> "tuple[int, str]":
        """(exit code, standard output and error) of a container that runs ``args``."""
        with pipe() as (read, write):
            container = self.create(*args, stdio=Stdio(-1, write, write), **options)
            container.start()
            os.close(write)
            text = read_all(read)
            code = container.wait()
        container.delete()
        return code, text

    def clean(self) -> None:
        for container in self.made:
            container.delete(force=True)


@contextmanager
def pipe() -> Iterator["tuple[int, int]"]:
    """A pipe; an end that is still open is closed at the end."""
    read, write = os.pipe()
    try:
        yield read, write
    finally:
        for fd in (read, write):
            try:
                os.close(fd)
            except OSError:
                continue


def read_all(fd: int) -> str:
    """All that comes; a terminal whose other side is closed has ended too."""
    parts = []
    while True:
        try:
            data = os.read(fd, 65536)
        except OSError:
            break
        if not data:
            break
        parts.append(data)
    return b"".join(parts).decode().replace("\r\n", "\n")


@contextmanager
def new_bundle() -> Iterator[Bundle]:
    directory = Path(tempfile.mkdtemp(prefix="boxship-"))
    bundle = Bundle(directory)
    try:
        yield bundle
    finally:
        bundle.clean()
        shutil.rmtree(directory)
