"""The docker CLI against our engine over TLS: hijacked streams, half-close, and who is let in."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxship.http.listen import tcp_listener

from .engine_fixture import EngineProcess

pytestmark = [pytest.mark.root, pytest.mark.peer("docker", "busybox", "openssl")]


def openssl(directory: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)


def certificates(directory: Path) -> None:
    """A CA, a server's certificate and a client's, under the names that the docker CLI looks for."""
    key = ("-newkey", "rsa:2048", "-nodes")
    ca = ("-addext", "basicConstraints=critical,CA:TRUE")
    openssl(directory, "req", "-x509", *key, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=ca", *ca)
    for name, extension in (
        ("server", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"),
        ("", "extendedKeyUsage=clientAuth\n"),
    ):
        prefix = f"{name}-" if name else ""
        (directory / "ext").write_text(extension)
        openssl(directory, "req", *key, "-keyout", f"{prefix}key.pem", "-out", "csr", "-subj", "/CN=localhost")
        openssl(
            directory, "x509", "-req", "-in", "csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
            "-out", f"{prefix}cert.pem", "-extfile", "ext", "-days", "2",
        )  # fmt: skip


class TlsEngine:
    def __init__(self, root: Path) -> None:
        certificates(root)
        self.root = root
        with tcp_listener("127.0.0.1:0", default_port=2375) as free:
            self.host = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        files = ("--tlscacert", f"{root}/ca.pem", "--tlscert", f"{root}/server-cert.pem", "--tlskey")
        self.engine = EngineProcess(root, "-H", self.host, "--tlsverify", *files, f"{root}/server-key.pem")

    def docker(self, *words: str, input: bytes = b"", verified: bool = True) -> subprocess.CompletedProcess[bytes]:
        env = {**os.environ, "DOCKER_HOST": self.host, "DOCKER_CERT_PATH": str(self.root)}
        if verified:
            env["DOCKER_TLS_VERIFY"] = "1"
        return subprocess.run(["docker", *words], input=input, env=env, capture_output=True, timeout=20, check=False)


@pytest.fixture(scope="module")
def tls() -> Iterator[TlsEngine]:
    with tempfile.TemporaryDirectory(prefix="bxt", dir="/tmp", ignore_cleanup_errors=True) as root:
        over = TlsEngine(Path(root))
        over.engine.start()
        try:
            over.engine.import_busybox()
            yield over
        finally:
            over.engine.remove_everything()


def test_output_comes_after_the_clients_side_has_ended(tls: TlsEngine) -> None:
    done = tls.docker("run", "--rm", "busybox", "sh", "-c", "sleep 0.3; echo late; exit 3")
    assert (done.stdout, done.returncode) == (b"late\n", 3)


def test_every_byte_goes_in_and_comes_back(tls: TlsEngine) -> None:
    data = os.urandom(3_000_000)
    assert tls.docker("run", "-i", "--rm", "busybox", "cat", input=data).stdout == data


def test_an_exec_over_tls(tls: TlsEngine) -> None:
    assert tls.docker("run", "-d", "--name", "tls", "busybox", "sleep", "100").returncode == 0
    done = tls.docker("exec", "-i", "tls", "sh", "-c", "cat; exit 6", input=b"in\n")
    assert (done.stdout, done.returncode) == (b"in\n", 6)


def test_a_client_without_a_certificate_is_not_let_in(tls: TlsEngine) -> None:
    assert tls.docker("ps", verified=False).returncode == 1
    assert tls.docker("ps").returncode == 0
