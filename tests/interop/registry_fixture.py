"""A docker-registry on loopback for tests: open, behind a password, or with TLS."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# "sailor" with the password "anchor", as htpasswd -B writes it (docker-registry takes bcrypt only)
HTPASSWD = "sailor:$2b$05$c0fcHggIVhi6HS1vLGuj/eEPFIB1I.EuYDBWTRJfhxCbOjMgYMtr6\n"
NAME, PASSWORD = "sailor", "anchor"


class Registry:
    def __init__(self, port: int, root: Path, process: subprocess.Popen[bytes]) -> None:
        self.domain = f"127.0.0.1:{port}"
        self.root = root
        self.process = process

    def blobs(self) -> list[str]:
        found = self.root.glob("data/docker/registry/v2/blobs/sha256/*/*")
        return sorted(path.name for path in found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def registry(root: Path, *, password: bool = False, tls: bool = False) -> Iterator[Registry]:
    """``root`` gets its data; with ``tls`` also ca.crt, the authority of its certificate."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("not installed: docker-registry")
    root.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage:\n"
    config += f"  filesystem: {{rootdirectory: {root}/data}}\n  delete: {{enabled: true}}\n"
    config += f"http:\n  addr: 127.0.0.1:{port}\n"
    if tls:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-keyout", f"{root}/key.pem", "-out", f"{root}/ca.crt", "-subj", "/CN=127.0.0.1",
             "-addext", "subjectAltName=IP:127.0.0.1"],
            check=True, capture_output=True,
        )  # fmt: skip
        config += f"  tls: {{certificate: {root}/ca.crt, key: {root}/key.pem}}\n"
    if password:
        (root / "htpasswd").write_text(HTPASSWD)
        config += f"auth: {{htpasswd: {{realm: test, path: {root}/htpasswd}}}}\n"
    (root / "config.yml").write_text(config)
    with open(root / "log", "wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(root / "config.yml")],
            stdout=log,
            stderr=log,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        deadline = time.monotonic() + 10
        while True:
            assert process.poll() is None, (root / "log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield Registry(port, root, process)
    finally:
        process.terminate()
        process.wait(10)
