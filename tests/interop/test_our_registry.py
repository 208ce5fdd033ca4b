"""Our registry with the programs that people have: docker's CLI, skopeo, podman, ctr and dockerd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from boxship.image.content import ContentStore
from boxship.image.load import load_archive
from boxship.image.registry.client import Repository
from boxship.image.registry.transfer import push
from boxship.oci import image as oci
from boxship.oci import reference as references

from . import containerd_fixture
from .engine_fixture import EngineProcess
from .registry_fixture import HTPASSWD, NAME, PASSWORD, free_port
from .test_shim_with_containerd import image_archive

pytestmark = pytest.mark.root


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


@dataclass(frozen=True)
class Served:
    domain: str
    root: Path

    def blobs(self) -> set[str]:
        return {path.name for path in (self.root / "data/blobs/sha256").iterdir()}


@contextmanager
def serving(root: Path, *words: str) -> Iterator[Served]:
    domain = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "boxship.registry", "serve", f"{root}/data", "--listen", domain, *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert b"serving" in line, line + process.stderr.read()
    try:
        yield Served(domain, root)
    finally:
        process.terminate()
        assert process.wait(10) == 0


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("plain")) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With TLS and a password; ``ca.crt`` is its authority."""
    root = tmp_path_factory.mktemp("guarded")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-keyout", f"{root}/key.pem", "-out", f"{root}/ca.crt", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    (root / "htpasswd").write_text(HTPASSWD)
    with serving(
        root, "--tls-cert", f"{root}/ca.crt", "--tls-key", f"{root}/key.pem", "--htpasswd", f"{root}/htpasswd"
    ) as found:
        yield found


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, plain: Served) -> str:
    """An image that our own client has pushed: busybox."""
    root = tmp_path_factory.mktemp("image")
    image_archive(root / "image.tar")
    store = ContentStore(str(root / "content"))
    with open(root / "image.tar", "rb") as file:
        (loaded,) = load_archive(file, store)
    name = f"{plain.domain}/base/busybox:v1"
    push(Repository(references.parse(name)), "v1", store, loaded.target)
    return name


def run(*command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=False, env={**os.environ, **environment}
    )
    if check:
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


# ── skopeo ──


@needs("skopeo")
def test_skopeo_copies_inspects_lists_and_deletes(plain: Served, image: str, tmp_path: Path) -> None:
    there, back = f"docker://{plain.domain}/sk/copy", f"oci:{tmp_path}/back:v1"
    plainly = ("--src-tls-verify=false", "--dest-tls-verify=false")
    run("skopeo", "copy", *plainly, f"docker://{image}", f"{there}:v1")
    before = plain.blobs()
    run("skopeo", "copy", *plainly, f"{there}:v1", f"{there}/again:v1")
    assert plain.blobs() == before, "content is there once"
    run("skopeo", "copy", *plainly, "--format", "v2s2", f"{there}:v1", f"{there}:docker")
    tags = json.loads(run("skopeo", "list-tags", "--tls-verify=false", there).stdout)["Tags"]
    assert tags == ["docker", "v1"]
    seen = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"{there}:docker", "--raw").stdout)
    assert seen["mediaType"] == oci.DOCKER_MANIFEST
    run("skopeo", "copy", *plainly[:1], f"{there}:v1", back)
    inspect = ("skopeo", "inspect", "--tls-verify=false", "--config")
    assert run(*inspect, f"{there}:v1").stdout == run(*inspect, back).stdout
    run("skopeo", "delete", "--tls-verify=false", f"{there}:docker")  # the manifest, by its digest
    tags = json.loads(run("skopeo", "list-tags", "--tls-verify=false", there).stdout)["Tags"]
    assert tags == ["v1"]
    assert run("skopeo", "inspect", "--tls-verify=false", f"{there}:docker", check=False).returncode != 0


@needs("skopeo", "openssl")
def test_skopeo_over_tls_with_a_password(plain: Served, guarded: Served, image: str) -> None:
    trust = f"--dest-cert-dir={guarded.root}"
    there = f"docker://{guarded.domain}/team/one:v1"
    stranger = run("skopeo", "copy", "--src-tls-verify=false", trust, f"docker://{image}", there, check=False)
    assert "authentication required" in stranger.stderr
    assert not guarded.blobs()
    run("skopeo", "copy", "--src-tls-verify=false", trust, f"--dest-creds={NAME}:{PASSWORD}",
        f"docker://{image}", there)  # fmt: skip
    seen = run("skopeo", "inspect", f"--cert-dir={guarded.root}", f"--creds={NAME}:{PASSWORD}", there).stdout
    assert json.loads(seen)["Os"] == "linux"


# ── podman ──


@needs("podman")
def test_podman_pulls_and_pushes(plain: Served, image: str) -> None:
    home = tempfile.mkdtemp(prefix="bxpo", dir="/tmp")  # short: podman wants that
    podman = ("podman", "--root", f"{home}/r", "--runroot", f"{home}/s", "--storage-driver", "vfs")
    there = f"{plain.domain}/pod/man:v1"
    try:
        run(*podman, "pull", "--tls-verify=false", image)
        run(*podman, "push", "--tls-verify=false", image, there)
        run(*podman, "rmi", image)
        run(*podman, "pull", "--tls-verify=false", there)
        assert json.loads(run(*podman, "inspect", there).stdout)[0]["RepoTags"] == [there]
    finally:
        run(*podman, "rmi", "-a", "-f")
        shutil.rmtree(home)


# ── ctr ──


@pytest.fixture(scope="module")
def containerd() -> Iterator[str]:
    with containerd_fixture.containerd() as address:
        yield address


@needs("containerd", "ctr")
def test_ctr_pulls_and_pushes(plain: Served, image: str, containerd: str) -> None:
    ctr = ("ctr", "-a", containerd)
    there = f"{plain.domain}/ct/r:v1"
    run(*ctr, "images", "pull", "--plain-http", image)
    run(*ctr, "images", "tag", image, there)
    run(*ctr, "images", "push", "--plain-http", there)
    run(*ctr, "images", "rm", image, there)
    run(*ctr, "images", "pull", "--plain-http", there)
    assert there in run(*ctr, "images", "ls", "-q").stdout
    assert run(*ctr, "images", "pull", "--plain-http", f"{plain.domain}/ct/nosuch:v1", check=False).returncode != 0


# ── docker ──


@needs("docker", "busybox")
def test_docker_through_our_engine(engine: EngineProcess, plain: Served, image: str) -> None:
    there = f"{plain.domain}/docker/one:v1"
    engine.docker("pull", image)
    assert engine.docker("run", "--rm", "--network", "none", image, "echo", "pulled").stdout == "pulled\n"
    engine.docker("tag", image, there)
    assert "v1: digest: sha256:" in engine.docker("push", there).stdout
    engine.docker("rmi", there, image)
    assert f"Downloaded newer image for {there}" in engine.docker("pull", there).stdout
    missing = engine.docker("pull", f"{plain.domain}/docker/nosuch", check=False)
    assert missing.returncode != 0
    assert f"manifest for {plain.domain}/docker/nosuch:latest not found" in missing.stderr


@needs("docker", "busybox")
def test_docker_logs_in(engine: EngineProcess, image: str, tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    docker = ("docker", "--config", f"{tmp_path}/config", "-H", engine.address)
    with serving(tmp_path, "--htpasswd", f"{tmp_path}/htpasswd") as closed:
        there = f"{closed.domain}/team/one:v1"
        engine.docker("pull", image)
        run(*docker, "tag", image, there)
        stranger = run(*docker, "push", there, check=False)
        assert stranger.returncode != 0
        wrong = run(*docker, "login", "-u", NAME, "-p", "wrong", closed.domain, check=False)
        assert wrong.returncode != 0
        assert "wrong user name or password" in wrong.stderr
        assert "Login Succeeded" in run(*docker, "login", "-u", NAME, "-p", PASSWORD, closed.domain).stdout
        assert "v1: digest: sha256:" in run(*docker, "push", there).stdout


@needs("docker", "busybox")
def test_docker_search_says_that_there_is_none(engine: EngineProcess, plain: Served) -> None:
    for search in (engine.docker, engine.boxship):
        refused = search("search", f"{plain.domain}/busybox", check=False)
        assert refused.returncode == 1
        assert "this registry offers no search" in refused.stderr
    for words, complaint in (
        (("--limit", "101", "x"), "outside the range of [1, 100]"),
        (("--filter", "stars=many", "x"), "must be a number"),
        (("--filter", "colour=red", "x"), "invalid filter 'colour'"),
    ):
        refused = engine.docker("search", *words, check=False)
        assert complaint in refused.stderr


class Hub(BaseHTTPRequestHandler):
    """Answers searches as Docker Hub does."""

    def do_GET(self) -> None:
        found = [
            {"name": "official", "description": "one\n that is", "star_count": 9, "is_official": True},
            {"name": "some/other", "description": "x" * 60, "star_count": 1, "is_automated": True},
            {"name": "bare/minimum"},
        ]
        body = json.dumps({"results": found, "query": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""


@needs("docker", "busybox")
def test_search_prints_what_docker_prints(engine: EngineProcess) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        term = f"127.0.0.1:{hub.server_port}/words"
        for words in (
            (term,), ("--no-trunc", term), ("--limit", "1", term), ("--filter", "is-official=true", term),
            ("--filter", "stars=1", term), ("--format", "{{.Name}} {{.StarCount}} {{.IsOfficial}}", term),
        ):  # fmt: skip
            theirs = engine.docker("search", *words).stdout
            assert engine.boxship("search", *words).stdout == theirs
        hub.shutdown()
    assert "some/other" in theirs


@needs("docker", "skopeo")
def test_docker_manifest(plain: Served, image: str, tmp_path: Path) -> None:
    """The CLI does this by itself, without an engine."""
    name = f"{plain.domain}/docker/many"
    for architecture in ("amd64", "arm64"):
        run("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", "v2s2",
            f"docker://{image}", f"docker://{name}:{architecture}")  # fmt: skip
    docker = ("docker", "--config", str(tmp_path), "manifest")
    run(*docker, "create", "--insecure", f"{name}:all", f"{name}:amd64", f"{name}:arm64")
    run(*docker, "annotate", f"{name}:all", f"{name}:arm64", "--arch", "arm64", "--variant", "v8")
    digest = run(*docker, "push", "--insecure", f"{name}:all").stdout.strip()
    seen = json.loads(run(*docker, "inspect", "--insecure", f"{name}:all").stdout)
    assert seen["mediaType"] == oci.DOCKER_INDEX
    assert {one["platform"]["architecture"] for one in seen["manifests"]} == {"arm64"} or len(seen["manifests"]) == 2
    found = Repository(references.parse(f"{name}:all")).head("all")
    assert found is not None
    assert found.digest == digest


@pytest.fixture(scope="module")
def dockerd(containerd: str) -> Iterator[str]:
    """The address of a real one."""
    home = Path(tempfile.mkdtemp(prefix="bxrd", dir="/tmp"))
    (home / "daemon.json").write_text("{}")
    address = f"unix://{home}/d.sock"
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            ["dockerd", "--config-file", f"{home}/daemon.json", "--containerd", containerd, "--data-root",
             f"{home}/data", "--exec-root", f"{home}/exec", "-H", address, "-p", f"{home}/pid",
             "--bridge", "none", "--iptables=false", "--storage-driver", "vfs"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while run("docker", "-H", address, "version", check=False).returncode:
            assert time.monotonic() < deadline, (home / "log").read_text()[-3000:]
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(home, ignore_errors=True)


@needs("dockerd", "docker", "containerd")
def test_docker_with_the_real_dockerd(plain: Served, image: str, dockerd: str, tmp_path: Path) -> None:
    docker = ("docker", "--config", str(tmp_path), "-H", dockerd)
    there = f"{plain.domain}/real/dockerd:v1"
    run(*docker, "pull", image)
    run(*docker, "tag", image, there)
    assert "v1: digest: sha256:" in run(*docker, "push", there).stdout
    run(*docker, "rmi", there, image)
    assert f"Downloaded newer image for {there}" in run(*docker, "pull", there).stdout


# ── Anonymous pulls ──


@pytest.fixture(scope="module")
def open_to_readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("readers")
    (root / "htpasswd").write_text(HTPASSWD)
    with serving(root, "--htpasswd", f"{root}/htpasswd", "--anonymous-pull") as found:
        yield found


@needs("skopeo", "podman")
def test_skopeo_and_podman_pull_without_a_password_and_push_with_one(
    open_to_readers: Served, image: str, tmp_path: Path
) -> None:
    there = f"{open_to_readers.domain}/sk/one:v1"
    plainly = ("--src-tls-verify=false", "--dest-tls-verify=false")
    stranger = run("skopeo", "copy", *plainly, f"docker://{image}", f"docker://{there}", check=False)
    assert stranger.returncode != 0
    assert "unauthorized" in stranger.stderr
    assert not open_to_readers.blobs()
    wrong = run("skopeo", "copy", *plainly, f"--dest-creds={NAME}:oar", f"docker://{image}", f"docker://{there}",
                check=False)  # fmt: skip
    assert "wrong user name or password" in wrong.stderr or "invalid username/password" in wrong.stderr
    run("skopeo", "copy", *plainly, f"--dest-creds={NAME}:{PASSWORD}", f"docker://{image}", f"docker://{there}")
    run("skopeo", "copy", plainly[0], f"docker://{there}", f"dir:{tmp_path}/back")
    assert run("skopeo", "delete", "--tls-verify=false", f"docker://{there}", check=False).returncode != 0
    home = tempfile.mkdtemp(prefix="bxpo", dir="/tmp")
    podman = ("podman", "--root", f"{home}/r", "--runroot", f"{home}/s", "--storage-driver", "vfs")
    try:
        run(*podman, "pull", "--tls-verify=false", there)
        other = there.replace("sk/one", "pod/two")
        run(*podman, "tag", there, other)
        assert run(*podman, "push", "--tls-verify=false", other, check=False).returncode != 0
        run(*podman, "push", "--tls-verify=false", f"--creds={NAME}:{PASSWORD}", other)
    finally:
        run(*podman, "rmi", "-a", "-f")
        shutil.rmtree(home)
    run("skopeo", "delete", "--tls-verify=false", f"--creds={NAME}:{PASSWORD}", f"docker://{there}")


@needs("containerd", "ctr")
def test_ctr_pulls_without_a_password_and_pushes_with_one(
    open_to_readers: Served, image: str, containerd: str
) -> None:
    there, images = f"{open_to_readers.domain}/ct/r:v1", ("ctr", "-a", containerd, "images")
    run(*images, "pull", "--plain-http", image)
    run(*images, "tag", image, there)
    assert run(*images, "push", "--plain-http", there, check=False).returncode != 0
    run(*images, "push", "--plain-http", "--user", f"{NAME}:{PASSWORD}", there)
    run(*images, "rm", image, there)
    run(*images, "pull", "--plain-http", there)
    run(*images, "rm", there)


def pull_push_pull(docker: tuple[str, ...], there: str, image: str, home: Path) -> None:
    """With docker's CLI: nobody pushes, who logged in does, everybody pulls."""
    home.mkdir()
    environment = {"DOCKER_CONFIG": str(home)}
    run(*docker, "pull", image, **environment)
    run(*docker, "tag", image, there, **environment)
    stranger = run(*docker, "push", there, check=False, **environment)
    assert stranger.returncode != 0
    # dockerd says "denied" for a token that does not suffice
    assert "authentication required" in stranger.stderr or "access to the resource is denied" in stranger.stderr
    domain = there.partition("/")[0]
    wrong = run(*docker, "login", "-u", NAME, "-p", "oar", domain, check=False, **environment)
    assert wrong.returncode != 0
    run(*docker, "login", "-u", NAME, "-p", PASSWORD, domain, **environment)
    run(*docker, "push", there, **environment)
    run(*docker, "logout", domain, **environment)
    run(*docker, "rmi", there, image, **environment)
    assert f"Downloaded newer image for {there}" in run(*docker, "pull", there, **environment).stdout
    run(*docker, "rmi", there, **environment)


@needs("docker", "busybox")
def test_our_engine_pulls_without_a_password_and_pushes_with_one(
    engine: EngineProcess, open_to_readers: Served, image: str, tmp_path: Path
) -> None:
    there = f"{open_to_readers.domain}/docker/ours:v1"
    pull_push_pull(("docker", "-H", engine.address), there, image, tmp_path / "config")


@needs("dockerd", "docker", "containerd")
def test_dockerd_pulls_without_a_password_and_pushes_with_one(
    dockerd: str, open_to_readers: Served, image: str, tmp_path: Path
) -> None:
    there = f"{open_to_readers.domain}/docker/theirs:v1"
    pull_push_pull(("docker", "-H", dockerd), there, image, tmp_path / "config")
