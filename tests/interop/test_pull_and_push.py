"""Pull, push and login against docker-registry: our command line, docker's, and the library; skopeo reads, too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxship.errors import DataLoss, NotFound, PeerError, Unauthenticated, Unavailable
from boxship.image.content import ContentStore
from boxship.image.load import load_archive
from boxship.image.registry.client import Repository
from boxship.image.registry.credentials import Credential, Credentials
from boxship.image.registry.hosts import Settings
from boxship.image.registry.transfer import pull, push
from boxship.oci import image as oci
from boxship.oci import platform as platforms
from boxship.oci import reference as references

from .engine_fixture import EngineProcess
from .registry_fixture import NAME, PASSWORD, Registry, registry
from .test_shim_with_containerd import image_archive

pytestmark = [pytest.mark.root, pytest.mark.peer("docker-registry")]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("guarded"), password=True) as found:
        yield found


@pytest.fixture(scope="module")
def second() -> Iterator[EngineProcess]:
    """Another engine, which has no image yet."""
    root = Path(tempfile.mkdtemp(prefix="bxp", dir="/tmp"))
    process = EngineProcess(root).start()
    try:
        yield process
    finally:
        process.remove_everything()


# ── Through the engine ──


@pytest.mark.peer("docker", "skopeo")
def test_what_one_engine_pushes_another_pulls_and_runs(
    engine: EngineProcess, second: EngineProcess, plain: Registry
) -> None:
    name = f"{plain.domain}/team/busybox:v1"
    engine.docker("tag", "busybox", name)
    pushed = engine.docker("push", name).stdout
    assert "Pushed" in pushed
    digest = pushed.rpartition("digest: ")[2].split()[0]
    assert engine.docker("push", name).stdout.count("Layer already exists") == 1

    out = second.docker("pull", name).stdout
    assert f"Digest: {digest}" in out
    assert f"Status: Downloaded newer image for {name}" in out
    assert out.splitlines()[-1] == name
    assert f"Status: Image is up to date for {name}" in second.docker("pull", name).stdout
    assert second.docker("run", "--rm", "--network", "none", name, "echo", "pulled").stdout == "pulled\n"
    ids = [one.docker("inspect", "-f", "{{.Id}}", name).stdout for one in (engine, second)]
    assert ids[0] == ids[1]
    assert f"{name.rpartition(':')[0]}@{digest}" in second.docker("inspect", "-f", "{{.RepoDigests}}", name).stdout
    seen = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"], capture_output=True, text=True, check=True
    )
    assert json.loads(seen.stdout)["Digest"] == digest


def test_run_pulls_what_is_missing(engine: EngineProcess, second: EngineProcess, plain: Registry) -> None:
    name = f"{plain.domain}/missing/one"
    engine.boxship("tag", "busybox", name)
    assert f"The push refers to repository [{name}]" in engine.boxship("push", name).stdout
    done = second.boxship("run", "--rm", "--network", "none", name, "echo", "here")
    assert done.stdout == "here\n"
    assert f"Unable to find image '{name}:latest' locally" in done.stderr
    again = second.docker("pull", "--quiet", f"{name}@{_digest(plain, 'missing/one', 'latest')}")
    assert again.stdout.startswith(f"{name}@sha256:")


def _digest(plain: Registry, path: str, tag: str) -> str:
    found = Repository(references.parse(f"{plain.domain}/{path}")).head(tag)
    assert found is not None
    return found.digest


def test_what_is_not_there_is_said_in_one_line(second: EngineProcess, plain: Registry) -> None:
    for command in (second.docker, second.boxship):
        done = command("pull", f"{plain.domain}/no/such:tag", check=False)
        assert done.returncode == 1
        assert "not found" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    nobody = second.docker("pull", "127.0.0.1:1/x", check=False)
    assert nobody.returncode == 1
    assert "onnection refused" in nobody.stderr


def test_a_platform_that_is_not_there(second: EngineProcess, engine: EngineProcess, plain: Registry) -> None:
    name = f"{plain.domain}/only/amd64"
    engine.docker("tag", "busybox", name)
    engine.docker("push", name)
    done = second.docker("pull", "--platform", "linux/s390x", name, check=False)
    assert done.returncode == 1
    assert "linux/s390x" in done.stderr


def test_a_registry_that_wants_a_name(engine: EngineProcess, guarded: Registry, tmp_path: Path) -> None:
    name = f"{guarded.domain}/private/busybox"
    engine.docker("tag", "busybox", name)
    config = ["--config", str(tmp_path)]

    def docker(*words: str, input: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[str]:
        return engine.docker(*config, *words, input=input, check=check)

    refused = docker("push", name, check=False)
    assert refused.returncode == 1
    assert "unauthorized: authentication required" in refused.stderr
    assert "pull access" not in refused.stderr
    wrong = docker("login", "-u", NAME, "--password-stdin", guarded.domain, input=b"wrong", check=False)
    assert wrong.returncode == 1
    assert "401" in wrong.stderr or "nauthorized" in wrong.stderr or "login attempt" in wrong.stderr
    done = docker("login", "-u", NAME, "--password-stdin", guarded.domain, input=PASSWORD.encode())
    assert "Login Succeeded" in done.stdout
    assert "Pushed" in docker("push", name).stdout
    assert "up to date" in docker("pull", name).stdout
    docker("logout", guarded.domain)
    denied = docker("pull", name, check=False)
    assert "pull access denied" in denied.stderr


def test_our_login_is_dockers(
    engine: EngineProcess, guarded: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both programs keep what they know in the same file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    done = engine.boxship("login", "-u", NAME, "--password-stdin", guarded.domain, input=PASSWORD.encode())
    assert done.stdout == "Login Succeeded\n"
    file = tmp_path / ".docker" / "config.json"
    assert file.stat().st_mode & 0o777 == 0o600
    name = f"{guarded.domain}/ours/busybox"
    engine.docker("tag", "busybox", name)
    assert "digest: sha256:" in engine.docker("push", name).stdout
    assert "digest: sha256:" in engine.boxship("push", name).stdout
    assert engine.boxship("logout", guarded.domain).stdout == f"Removing login credentials for {guarded.domain}\n"
    assert json.loads(file.read_text())["auths"] == {}


# ── The library ──


@pytest.fixture
def image(tmp_path: Path) -> "tuple[ContentStore, oci.Descriptor]":
    image_archive(tmp_path / "image.tar")
    store = ContentStore(str(tmp_path / "source"))
    with open(tmp_path / "image.tar", "rb") as file:
        (found,) = load_archive(file, store)
    return store, found.target


def at(found: Registry, path: str, **options: object) -> Repository:
    return Repository(references.parse(f"{found.domain}/{path}"), **options)  # type: ignore[arg-type]


def test_there_and_back_is_the_same(
    image: "tuple[ContentStore, oci.Descriptor]", plain: Registry, tmp_path: Path
) -> None:
    store, target = image
    repository = at(plain, "library/there")
    assert push(repository, "v1", store, target).digest == target.digest
    other = ContentStore(str(tmp_path / "other"))
    back = pull(repository, "v1", other)
    assert back.target.digest == target.digest
    assert {blob.digest for blob in other.walk()} == {blob.digest for blob in store.walk()}
    by_digest = pull(repository, target.digest, ContentStore(str(tmp_path / "third")))
    assert by_digest.id == back.id
    assert repository.tags() == ["v1"]


def test_a_blob_of_the_same_registry_is_mounted(
    image: "tuple[ContentStore, oci.Descriptor]", plain: Registry
) -> None:
    store, target = image
    push(at(plain, "mount/source"), "v1", store, target)
    said: list[str] = []
    push(
        at(plain, "mount/target"), "v1", store, target, mount_from=["mount/source"],
        progress=lambda _, status, *rest: said.append(status),
    )  # fmt: skip
    assert "Mounted from mount/source" in said
    assert "Pushed" not in said


def test_an_index_with_several_platforms(
    image: "tuple[ContentStore, oci.Descriptor]", plain: Registry, tmp_path: Path
) -> None:
    store, target = image
    others = []
    for architecture in ("amd64", "arm64"):
        platform = oci.ImagePlatform(architecture=architecture, os="linux")
        others.append(oci.Descriptor(target.media_type, target.digest, target.size, platform=platform))
    data = oci.encode(oci.Index(2, others, oci.MEDIA_INDEX))
    digest = store.put(data)
    index = oci.Descriptor(oci.MEDIA_INDEX, digest, len(data))
    repository = at(plain, "several/platforms")
    assert push(repository, "all", store, index).digest == digest
    back = pull(repository, "all", ContentStore(str(tmp_path / "back")), platform=platforms.parse("linux/arm64"))
    assert back.target.digest == digest
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x") as error:
        pull(repository, "all", ContentStore(str(tmp_path / "none")), platform=platforms.parse("linux/s390x"))
    assert "linux/amd64" in str(error.value)
    assert list(ContentStore(str(tmp_path / "none")).walk()) == []


def test_upload_in_pieces(plain: Registry, tmp_path: Path) -> None:
    from boxship.oci import digest as digests

    data = os.urandom(700_000)
    digest = digests.of(data)
    repository = at(plain, "pieces/here")
    repository.upload(digest, len(data), lambda offset: iter([data[offset:]]), chunk=200_000)
    blob = repository.blob(digest, 123_456)
    assert (blob.size, blob.read()) == (len(data), data[123_456:])
    blob.close()


def test_credentials_by_name(image: "tuple[ContentStore, oci.Descriptor]", guarded: Registry) -> None:
    store, target = image
    with pytest.raises(Unauthenticated, match="log in"):
        push(at(guarded, "by/name"), "v1", store, target)
    with pytest.raises(Unauthenticated):
        push(at(guarded, "by/name", credential=Credential(NAME, "wrong")), "v1", store, target)
    assert push(at(guarded, "by/name", credential=Credential(NAME, PASSWORD)), "v1", store, target)


def test_credentials_by_a_helper(guarded: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        f"#!/bin/sh\ncat > {tmp_path}/asked\n"
        f'[ "$1" = get ] && echo \'{{"ServerURL":"x","Username":"{NAME}","Secret":"{PASSWORD}"}}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {guarded.domain: "test"}}))
    repository = at(guarded, "by/helper", credentials=Credentials(str(tmp_path / "config.json")))
    repository.ping()
    assert (tmp_path / "asked").read_text() == guarded.domain


@pytest.mark.peer("openssl")
def test_tls_with_an_authority_of_its_own(image: "tuple[ContentStore, oci.Descriptor]", tmp_path: Path) -> None:
    store, target = image
    with registry(tmp_path / "tls", tls=True) as found:
        certificates = tmp_path / "certs.d" / found.domain
        certificates.mkdir(parents=True)
        shutil.copy(found.root / "ca.crt", certificates / "ca.crt")
        trusting = Settings(directories=(str(tmp_path / "certs.d"),))
        assert push(at(found, "with/tls", settings=trusting), "v1", store, target)
        (certificates / "ca.crt").unlink()
        (certificates / "hosts.toml").write_text(f'server = "https://{found.domain}"\n')
        with pytest.raises(Unavailable, match="certificate"):
            push(at(found, "with/tls", settings=trusting), "v2", store, target)


def test_a_mirror_is_asked_first_and_passed_over(
    image: "tuple[ContentStore, oci.Descriptor]", plain: Registry, tmp_path: Path
) -> None:
    store, target = image
    push(at(plain, "team/mirrored"), "v1", store, target)
    directory = tmp_path / "certs.d" / "registry.invalid"
    directory.mkdir(parents=True)
    (directory / "hosts.toml").write_text(
        f'server = "http://127.0.0.1:1"\n[host."http://127.0.0.1:2"]\n'
        f'capabilities = ["pull", "resolve"]\n[host."http://{plain.domain}"]\ncapabilities = ["pull", "resolve"]\n'
    )
    settings = Settings(directories=(str(tmp_path / "certs.d"),))
    repository = Repository(references.parse("registry.invalid/team/mirrored"), settings=settings)
    assert pull(repository, "v1", ContentStore(str(tmp_path / "m"))).target.digest == target.digest
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        push(repository, "v2", store, target)


def test_deleting(image: "tuple[ContentStore, oci.Descriptor]", plain: Registry) -> None:
    store, target = image
    repository = at(plain, "to/delete")
    push(repository, "v1", store, target)
    repository.delete("manifests", target.digest)
    assert repository.head("v1") is None
    with pytest.raises(NotFound):
        repository.delete("manifests", target.digest)


def test_errors_are_of_our_kinds(plain: Registry, tmp_path: Path) -> None:
    store = ContentStore(str(tmp_path / "s"))
    with pytest.raises(NotFound, match="manifest unknown"):
        pull(at(plain, "no/such"), "v1", store)
    with pytest.raises(NotFound):
        at(plain, "no/such").tags()
    with pytest.raises((PeerError, DataLoss)):
        at(plain, "some/where").upload("sha256:" + "0" * 64, 3, lambda _: iter([b"abc"]))
