"""An engine of our own in a directory of its own, with a busybox image, and ways to talk to it."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

BUSYBOX = shutil.which("busybox") or "/bin/busybox"
APPLETS = (
    "sh cat echo sleep true false id hostname ls mkdir touch rm head tail httpd nc ps env stty tty dd kill test "
    "printf wc grep ip mount seq wget df"
).split()


def busybox_rootfs() -> bytes:
    """A root file system's tar: one static busybox and links to it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory in ("bin", "etc", "tmp", "root", "var"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            tar.addfile(entry)
        tar.add(BUSYBOX, "bin/busybox", filter=lambda entry: _executable(entry))
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        for name, text in (
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nsailor:x:1000:1000::/home/sailor:/bin/sh\n"),
            ("etc/group", "root:x:0:\ncrew:x:2000:sailor\nsailor:x:1000:\n"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _executable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode, entry.uid, entry.gid = 0o755, 0, 0
    return entry


class EngineProcess:
    """``start`` and ``stop`` it, ``crash`` it; its containers outlive it until ``remove_everything``."""

    def __init__(self, root: Path, *flags: str) -> None:
        self.root = root
        self.socket = root / "e.sock"
        self.address = f"unix://{self.socket}"
        self.flags = flags
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def data_root(self) -> Path:
        return self.root / "data"

    @property
    def exec_root(self) -> Path:
        return self.root / "run"

    def start(self) -> EngineProcess:
        self.root.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "boxship.daemon", "--data-root", str(self.data_root)]
        command += ["--exec-root", str(self.exec_root), "-H", self.address, *self.flags]
        with open(self.root / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the engine ended: {(self.root / 'log').read_text()}")
            if self.answers():
                return self
            time.sleep(0.02)
        raise AssertionError(f"the engine does not answer: {(self.root / 'log').read_text()}")

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
                probe.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return b"200 OK" in probe.recv(4096)
            except OSError:
                return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def crash(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)
        self.process = None

    def docker(
        self, *words: str, input: bytes | None = None, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """The real docker CLI against this engine."""
        return self._run(["docker", "-H", self.address, *words], input, check, timeout)

    def boxship(
        self, *words: str, input: bytes | None = None, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Our command line against this engine."""
        return self._run([sys.executable, "-m", "boxship.cli", "-H", self.address, *words], input, check, timeout)

    def _run(
        self, command: list[str], input: bytes | None, check: bool, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            input=b"" if input is None else input,
            capture_output=True,
            timeout=timeout,
            check=False,
            cwd="/",
            env={k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")},
        )
        text = subprocess.CompletedProcess(
            command, done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        )
        if check and text.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {text.returncode}\n{text.stdout}{text.stderr}")
        return text

    def import_busybox(self) -> None:
        self.boxship("import", "-", "busybox", input=busybox_rootfs())

    def state(self, name: str) -> dict[str, object]:
        import json

        state: dict[str, object] = json.loads(self.docker("inspect", "-f", "{{json .State}}", name).stdout)
        return state

    def shims(self) -> list[int]:
        """Process ids of this engine's shims."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if (
                words
                and words[0].endswith(b"containerd-shim-boxship-v2")
                and str(self.exec_root).encode() in b" ".join(words)
            ):
                found.append(int(entry.name))
        return found

    def zygote(self) -> int:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                text = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"boxship-zygote" in text and str(self.exec_root).encode() in text:
                return int(entry.name)
        raise AssertionError("no zygote")

    def remove_everything(self) -> None:
        """End the engine and all that it started; nothing stays on the machine."""
        if self.process is None:
            self.start()
        ids = self.docker("ps", "-aq").stdout.split()
        if ids:
            self.docker("rm", "-f", "-v", *ids)
        self.stop()
        try:
            zygote = self.zygote()
        except AssertionError:
            zygote = 0
        if zygote:
            os.kill(zygote, signal.SIGTERM)
        shutil.rmtree(self.root, ignore_errors=True)


def wait_until(condition: object, seconds: float = 10, what: str = "") -> None:
    """Poll ``condition`` (a callable) until it is true."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.02)
