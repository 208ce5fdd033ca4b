"""Images that go through our tools and the real ones, both ways: what arrives has the digests of what was sent.

skopeo, podman, dockerd, containerd's ctr and docker-registry are the others; a test is skipped where one is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxship.image.layout import Layout
from boxship.image.packing import quick_packer
from boxship.oci import digest as digests

from ..unit import image_samples as samples
from . import containerd_fixture
from .engine_fixture import EngineProcess
from .registry_fixture import NAME, PASSWORD, Registry, registry

pytestmark = pytest.mark.root

POLICY = ("--insecure-policy",)


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [one for one in programs if shutil.which(one) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def run(*command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment}
    )
    if check:
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}{done.stdout}"
    return done


def ours(*words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "boxship.tools", *POLICY, *words, check=check, **environment)


def skopeo(*words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("skopeo", *POLICY, *words, check=check, **environment)


TOOLS = {"ours": ours, "skopeo": skopeo}


def manifest(tool: str, name: str) -> str:
    """The digest of the manifest that a tool reads under a name."""
    return digests.of(TOOLS[tool]("inspect", "--raw", *insecure(name), name).stdout.encode())


def insecure(*names: str) -> list[str]:
    """The flags for registries on loopback: skopeo does not take plain HTTP there by itself."""
    if len(names) == 1:
        return ["--tls-verify=false"] if names[0].startswith("docker://") else []
    flags = []
    for flag, name in zip(("--src-tls-verify=false", "--dest-tls-verify=false"), names, strict=True):
        flags += [flag] if name.startswith("docker://") else []
    return flags


def copy(tool: str, source: str, destination: str, *flags: str, **environment: str) -> None:
    TOOLS[tool]("copy", "--quiet", *insecure(source, destination), *flags, source, destination, **environment)


def diff_ids(tool: str, name: str) -> list[str]:
    found: list[str] = json.loads(TOOLS[tool]("inspect", "--config", *insecure(name), name).stdout)["rootfs"][
        "diff_ids"
    ]
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def image(tmp_path: Path) -> str:
    samples.directory(tmp_path / "image")
    return f"dir:{tmp_path}/image"


@pytest.fixture
def index(tmp_path: Path) -> str:
    samples.layout_with_index(tmp_path / "layout")
    return f"oci:{tmp_path}/layout:multi"


# ── skopeo ──


@needs("skopeo")
@pytest.mark.parametrize("writer", ["ours", "skopeo"])
@pytest.mark.parametrize("transport", ["dir:{}/out", "oci:{}/out:x", "oci-archive:{}/out.tar:x"])
def test_what_one_writes_the_other_reads(writer: str, transport: str, image: str, tmp_path: Path) -> None:
    name = transport.format(tmp_path)
    reader = "skopeo" if writer == "ours" else "ours"
    copy(writer, image, name)
    assert manifest(reader, name) == manifest(writer, name)
    copy(reader, name, f"dir:{tmp_path}/back")
    assert manifest(writer, f"dir:{tmp_path}/back") == manifest(writer, name)
    assert diff_ids(reader, name) == [digests.of(one) for one in samples.LAYERS]


@needs("skopeo")
@pytest.mark.parametrize("writer", ["ours", "skopeo"])
def test_docker_archives_keep_config_and_diff_ids(writer: str, image: str, tmp_path: Path) -> None:
    reader = "skopeo" if writer == "ours" else "ours"
    name = f"docker-archive:{tmp_path}/saved.tar"
    copy(writer, image, f"{name}:example.com/tiny:1", "--additional-tag", "tiny:2")
    for wanted in ("example.com/tiny:1", "docker.io/library/tiny:2"):
        found = json.loads(TOOLS[reader]("inspect", "--raw", f"{name}:{wanted}").stdout)
        assert found["config"]["digest"] == digests.of(samples.config())
        assert [one["digest"] for one in found["layers"]] == [digests.of(one) for one in samples.LAYERS]
    tags = json.loads(TOOLS[reader]("list-tags", name).stdout)["Tags"]
    assert tags == ["example.com/tiny:1", "docker.io/library/tiny:2"] or tags == ["example.com/tiny:1", "tiny:2"]


@needs("skopeo", "docker-registry")
@pytest.mark.parametrize("first", ["ours", "skopeo"])
def test_through_a_registry_and_back(first: str, image: str, plain: Registry, tmp_path: Path) -> None:
    second = "skopeo" if first == "ours" else "ours"
    there, again = f"docker://{plain.domain}/{first}/tiny:1", f"docker://{plain.domain}/{second}/again:1"
    copy(first, image, there)
    copy(second, there, again)
    copy(first, again, f"dir:{tmp_path}/back")
    before, after = Path(image.removeprefix("dir:")), tmp_path / "back"
    assert {one.name: one.read_bytes() for one in after.iterdir()} == {
        one.name: one.read_bytes() for one in before.iterdir()
    }


@needs("skopeo", "docker-registry")
@pytest.mark.parametrize("first", ["ours", "skopeo"])
def test_an_index_with_all_its_images(first: str, index: str, plain: Registry, tmp_path: Path) -> None:
    second = "skopeo" if first == "ours" else "ours"
    there = f"docker://{plain.domain}/{first}/multi:1"
    copy(first, index, there, "--all")
    copy(second, there, f"oci:{tmp_path}/back:multi", "--all")
    assert manifest(first, f"oci:{tmp_path}/back:multi") == manifest(second, index)
    sent, back = Layout(f"{tmp_path}/layout"), Layout(f"{tmp_path}/back")
    assert {digest for digest, _ in back.blobs()} == {digest for digest, _ in sent.blobs()}


@needs("skopeo")
@pytest.mark.parametrize("first", ["ours", "skopeo"])
def test_formats_and_compressions_are_read_by_the_other(first: str, image: str, tmp_path: Path) -> None:
    second = "skopeo" if first == "ours" else "ours"
    copy(first, image, f"oci:{tmp_path}/zstd:x", "--dest-compress-format", "zstd")
    copy(second, f"oci:{tmp_path}/zstd:x", f"dir:{tmp_path}/plain", "--dest-decompress")
    layers = json.loads(TOOLS[first]("inspect", "--raw", f"dir:{tmp_path}/plain").stdout)["layers"]
    assert [one["digest"] for one in layers] == [digests.of(one) for one in samples.LAYERS]
    copy(first, f"dir:{tmp_path}/plain", f"oci:{tmp_path}/gzip:x")
    assert diff_ids(second, f"oci:{tmp_path}/gzip:x") == [digests.of(one) for one in samples.LAYERS]


@needs("skopeo", "openssl")
@pytest.mark.parametrize("first", ["ours", "skopeo"])
def test_what_one_encrypts_the_other_decrypts(first: str, image: str, tmp_path: Path) -> None:
    second = "skopeo" if first == "ours" else "ours"
    run("openssl", "genrsa", "-out", f"{tmp_path}/key.pem", "2048")
    run("openssl", "rsa", "-in", f"{tmp_path}/key.pem", "-pubout", "-out", f"{tmp_path}/pub.pem")
    copy(first, image, f"oci:{tmp_path}/sealed:x", "--encryption-key", f"jwe:{tmp_path}/pub.pem")
    raw = json.loads(TOOLS[second]("inspect", "--raw", f"oci:{tmp_path}/sealed:x").stdout)
    assert all(one["mediaType"].endswith("+encrypted") for one in raw["layers"])
    copy(second, f"oci:{tmp_path}/sealed:x", f"oci:{tmp_path}/open:x", "--decryption-key", f"{tmp_path}/key.pem")
    layers = json.loads(TOOLS[first]("inspect", "--raw", f"oci:{tmp_path}/open:x").stdout)["layers"]
    assert [one["digest"] for one in layers] == [digests.of(one) for one in samples.packed()]


def policy(path: Path, kind: str, **fields: str) -> str:
    requirement = {"type": kind, **fields}
    path.write_text(json.dumps({"default": [{"type": "reject"}], "transports": {"docker": {"": [requirement]}}}))
    return str(path)


def judged(tool: str, policy: str, registries: Path, source: str, destination: str) -> int:
    program = ["skopeo"] if tool == "skopeo" else [sys.executable, "-m", "boxship.tools"]
    command = [*program, "--policy", policy, "--registries.d", str(registries), "copy"]
    return run(*command, *insecure(source, destination), source, destination, check=False).returncode


@needs("skopeo", "docker-registry")
@pytest.mark.parametrize("first", ["ours", "skopeo"])
def test_a_sigstore_signature_of_one_is_accepted_by_the_other(
    first: str, image: str, plain: Registry, tmp_path: Path
) -> None:
    second = "skopeo" if first == "ours" else "ours"
    (tmp_path / "pass").write_text("word\n")
    ours("generate-sigstore-key", "--output-prefix", f"{tmp_path}/k", "--passphrase-file", f"{tmp_path}/pass")
    ours("generate-sigstore-key", "--output-prefix", f"{tmp_path}/o", "--passphrase-file", f"{tmp_path}/pass")
    registries = tmp_path / "registries.d"
    registries.mkdir()
    (registries / "r.yaml").write_text(f"docker:\n  {plain.domain}:\n    use-sigstore-attachments: true\n")
    name = f"docker://{plain.domain}/signed/{first}:1"
    words = ("--sign-by-sigstore-private-key", f"{tmp_path}/k.private", "--sign-passphrase-file", f"{tmp_path}/pass")
    signed = TOOLS[first](
        "--registries.d", str(registries), "copy", *insecure(image, name), *words, image, name, check=False
    )
    if first == "skopeo" and "sigstore disabled" in signed.stderr:
        pytest.skip("this build of skopeo has sigstore signatures disabled")
    assert signed.returncode == 0, signed.stderr
    good = policy(tmp_path / "good.json", "sigstoreSigned", keyPath=f"{tmp_path}/k.pub")
    other = policy(tmp_path / "other.json", "sigstoreSigned", keyPath=f"{tmp_path}/o.pub")
    for tool in (second, first):
        if tool == "skopeo" and judged(tool, good, registries, name, f"dir:{tmp_path}/{tool}"):
            continue  # Debian's build refuses them all
        assert judged(tool, good, registries, name, f"dir:{tmp_path}/{tool}-good") == 0
        assert judged(tool, other, registries, name, f"dir:{tmp_path}/{tool}-not") == 1


@needs("skopeo", "docker-registry", "gpg")
@pytest.mark.parametrize("first", ["ours", "skopeo"])
def test_a_simple_signature_of_one_is_accepted_by_the_other(
    first: str, image: str, plain: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = "skopeo" if first == "ours" else "ours"
    home = Path(f"/tmp/bxgpg{os.getpid()}{first}")  # short: gpg's agent listens on a socket in it
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    try:
        for who in ("alice", "bob"):
            run(
                "gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--quick-gen-key", who, "rsa2048"
            )
            (tmp_path / f"{who}.gpg").write_text(run("gpg", "--armor", "--export", who).stdout)
        registries = tmp_path / "registries.d"
        registries.mkdir()
        (registries / "r.yaml").write_text(f"docker:\n  {plain.domain}:\n    sigstore: file://{tmp_path}/store\n")
        name = f"docker://{plain.domain}/simple/{first}:1"
        listed = run("gpg", "--with-colons", "--list-keys", "alice").stdout.splitlines()
        fingerprint = next(line.split(":")[9] for line in listed if line.startswith("fpr:"))
        TOOLS[first](
            "--registries.d", str(registries), "copy", *insecure(image, name), "--sign-by", fingerprint, image, name
        )
        for tool in (second, first):
            for who, code in (("alice", 0), ("bob", 1)):
                asked = policy(
                    tmp_path / f"{who}.json", "signedBy", keyType="GPGKeys", keyPath=f"{tmp_path}/{who}.gpg"
                )
                assert judged(tool, asked, registries, name, f"dir:{tmp_path}/{tool}{who}") == code
        signature = f"{tmp_path}/{second}alice/signature-1"
        for tool in TOOLS.values():
            words = (
                f"{tmp_path}/{second}alice/manifest.json",
                name.removeprefix("docker://"),
                fingerprint,
                signature,
            )
            assert "Signature verified" in tool("standalone-verify", *words).stdout
    finally:
        run("gpgconf", "--kill", "all", check=False)
        shutil.rmtree(home, ignore_errors=True)  # an agent that ends removes its sockets meanwhile


@needs("skopeo", "docker-registry")
def test_both_sync_a_repository_into_the_same_directories(image: str, plain: Registry, tmp_path: Path) -> None:
    for tag in ("1", "2"):
        copy("ours", image, f"docker://{plain.domain}/synced/app:{tag}")
    found = {}
    for tool, call in TOOLS.items():
        (tmp_path / tool).mkdir()
        call(
            "sync", "--src", "docker", "--dest", "dir", "--scoped", "--src-tls-verify=false",
            f"{plain.domain}/synced/app", f"{tmp_path}/{tool}",
        )  # fmt: skip
        files = sorted((tmp_path / tool).rglob("*"))
        found[tool] = {str(one.relative_to(tmp_path / tool)): one.is_file() and one.read_bytes() for one in files}
    assert found["ours"] == found["skopeo"]
    assert f"{plain.domain}/synced/app:2/manifest.json" in found["ours"]


@needs("podman", "skopeo", "docker-registry")
def test_one_login_serves_skopeo_podman_and_us(image: str, tmp_path: Path) -> None:
    with registry(tmp_path / "guarded", password=True) as guarded:
        name = f"docker://{guarded.domain}/private/app:1"
        for number, login in enumerate((ours, lambda *words: run("podman", *words), skopeo)):
            auth = f"{tmp_path}/auth{number}.json"
            words = ["login", "--authfile", auth, "--tls-verify=false", "-u", NAME, "-p", PASSWORD, guarded.domain]
            assert "Login Succeeded!" in login(*words).stdout
            copy("ours", image, name, "--dest-authfile", auth)
            skopeo("inspect", "--tls-verify=false", "--authfile", auth, name)
            assert ours("login", "--authfile", auth, "--get-login", guarded.domain).stdout == f"{NAME}\n"
            ours("logout", "--authfile", auth, guarded.domain)
            assert ours("inspect", "--authfile", auth, name, check=False).returncode == 1
            assert skopeo("inspect", "--tls-verify=false", "--authfile", auth, name, check=False).returncode == 1


# ── podman ──


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a podman with a store of its own."""
    home = tmp_path_factory.mktemp("podman")
    (home / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{home}/graph"\nrunroot = "{home}/run"\n'
    )
    return {"CONTAINERS_STORAGE_CONF": str(home / "storage.conf")}


@needs("podman")
@pytest.mark.parametrize(
    "archive", ["docker-archive:{}/a.tar:localhost/tiny:1", "oci-archive:{}/a.tar:localhost/tiny:1"]
)
def test_podman_loads_our_archives_and_we_read_its(
    archive: str, podman: dict[str, str], image: str, tmp_path: Path
) -> None:
    copy("ours", image, archive.format(tmp_path))
    run("podman", "load", "-i", f"{tmp_path}/a.tar", **podman)
    assert run("podman", "image", "exists", "localhost/tiny:1", **podman).returncode == 0
    format = archive.partition(":")[0]
    run("podman", "save", "--format", format, "-o", f"{tmp_path}/b.tar", "localhost/tiny:1", **podman)
    assert diff_ids("ours", f"{format}:{tmp_path}/b.tar") == [digests.of(one) for one in samples.LAYERS]
    run("podman", "rmi", "localhost/tiny:1", **podman)


@needs("podman")
def test_podmans_store_both_ways(podman: dict[str, str], image: str, tmp_path: Path) -> None:
    name = "containers-storage:localhost/stored:1"
    assert ours("inspect", name, check=False, **podman).returncode == 2
    copy("ours", image, name, **podman)
    run("podman", "image", "exists", "localhost/stored:1", **podman)
    copy("ours", name, f"dir:{tmp_path}/back", **podman)
    assert diff_ids("ours", f"dir:{tmp_path}/back") == [digests.of(one) for one in samples.LAYERS]
    ours("delete", name, **podman)
    assert ours("inspect", name, check=False, **podman).returncode == 2


# ── Engines ──


@pytest.fixture(scope="module")
def dockerd() -> Iterator[str]:
    if shutil.which("dockerd") is None:
        pytest.skip("not installed: dockerd")
    home = Path("/tmp") / f"bxdi{os.getpid()}"  # short: the path of a socket has 107 bytes
    home.mkdir()
    (home / "daemon.json").write_text("{}")
    socket = f"unix://{home}/d.sock"
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            ["dockerd", "--config-file", f"{home}/daemon.json", "--data-root", f"{home}/data",
             "--exec-root", f"{home}/exec", "-H", socket, "-p", f"{home}/pid", "--bridge", "none", "--iptables=false",
             "--storage-driver", "vfs"], stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while run("docker", "-H", socket, "version", check=False).returncode:
            assert time.monotonic() < deadline, (home / "log").read_text()[-3000:]
            time.sleep(0.1)
        yield socket
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if f" {home}/" in line:
                subprocess.run(["umount", "-l", line.split()[1]], check=False)
        shutil.rmtree(home)


@needs("docker", "dockerd")
def test_dockerd_takes_and_gives_images(dockerd: str, image: str, tmp_path: Path) -> None:
    name, id = "docker-daemon:tiny:1", digests.of(samples.config())
    copy("ours", image, name, "--dest-daemon-host", dockerd)
    assert run("docker", "-H", dockerd, "images", "-q", "--no-trunc", "tiny:1").stdout.strip() == id
    for source in (name, f"docker-daemon:{id}"):
        found = json.loads(ours("inspect", "--raw", "--daemon-host", dockerd, source).stdout)
        assert found["config"]["digest"] == id
    copy("ours", name, f"oci:{tmp_path}/back:x", "--src-daemon-host", dockerd)
    assert diff_ids("ours", f"oci:{tmp_path}/back:x") == [digests.of(one) for one in samples.LAYERS]
    run("docker", "-H", dockerd, "save", "-o", f"{tmp_path}/saved.tar", "tiny:1")
    assert diff_ids("ours", f"docker-archive:{tmp_path}/saved.tar:tiny:1") == diff_ids(
        "ours", f"oci:{tmp_path}/back:x"
    )
    ours("delete", "--daemon-host", dockerd, name)
    assert ours("inspect", "--daemon-host", dockerd, name, check=False).returncode == 2


@needs("busybox")
def test_our_engine_takes_and_gives_images(engine: EngineProcess, image: str, tmp_path: Path) -> None:
    host = engine.address
    copy("ours", image, "boxship:tiny:1", "--dest-daemon-host", host)
    copy("ours", "boxship:tiny:1", f"dir:{tmp_path}/back", "--src-daemon-host", host)
    assert diff_ids("ours", f"dir:{tmp_path}/back") == [digests.of(one) for one in samples.LAYERS]
    copy("ours", "docker-daemon:busybox:latest", f"oci:{tmp_path}/busybox:x", "--src-daemon-host", host)


# ── containerd ──


@pytest.fixture(scope="module")
def containerd() -> Iterator[str]:
    if shutil.which("containerd") is None or shutil.which("ctr") is None:
        pytest.skip("not installed: containerd")
    with containerd_fixture.containerd() as address:
        yield address


def test_ctr_imports_our_archives_and_we_read_its(containerd: str, image: str, index: str, tmp_path: Path) -> None:
    ctr = ("ctr", "-a", containerd, "images")
    copy("ours", image, f"oci-archive:{tmp_path}/one.tar:example.com/one:1")
    copy("ours", image, f"docker-archive:{tmp_path}/two.tar:example.com/two:1")
    copy("ours", index, f"oci-archive:{tmp_path}/all.tar:example.com/all:1", "--all")
    for archive in ("one", "two", "all"):
        extra = ["--all-platforms"] if archive == "all" else []
        run(*ctr, "import", *extra, "--base-name", f"example.com/{archive}", f"{tmp_path}/{archive}.tar")
    listed = {line.split()[0]: line.split()[2] for line in run(*ctr, "ls").stdout.splitlines()[1:]}
    assert listed["example.com/two:1"]
    name = next(one for one in listed if "one" in one)
    assert listed[name] == manifest("ours", f"oci-archive:{tmp_path}/one.tar")
    whole = next(one for one in listed if "all" in one)
    assert listed[whole] == manifest("ours", index)
    run(*ctr, "export", "--all-platforms", f"{tmp_path}/back.tar", whole)
    copy("ours", f"oci-archive:{tmp_path}/back.tar", f"oci:{tmp_path}/back:x", "--all")
    assert manifest("ours", f"oci:{tmp_path}/back:x") == manifest("ours", index)


# ── Layers of many blocks ──


BIG = samples.layer(
    text=b"".join(b"line %d of many, %d\n" % (number, number * number) for number in range(60_000)),
    noise=b"".join(hashlib.sha512(b"%d" % number).digest() for number in range(15_000)),
)
"""Several of the blocks that threads deflate, and of zstd's jobs (`boxship.image.packing`)."""

COMPRESSIONS = {
    "gzip": ("--dest-compress",),
    "gzip 9": ("--dest-compress-format", "gzip", "--dest-compress-level", "9"),
    "zstd": ("--dest-compress-format", "zstd"),
}


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of one plain layer."""
    path = str(tmp_path_factory.mktemp("big") / "layout")
    layout = Layout.create(path)
    layout.tag("plain", samples.into_layout(layout, (BIG,), plain=True))
    return f"oci:{path}:plain"


@needs("skopeo")
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_skopeo_and_podman_read_what_threads_compressed(
    big: str, podman: dict[str, str], tmp_path: Path, compression: str
) -> None:
    copy("ours", big, f"oci:{tmp_path}/packed:x", *COMPRESSIONS[compression])
    skopeo("copy", "--quiet", "--dest-decompress", f"oci:{tmp_path}/packed:x", f"dir:{tmp_path}/plain")
    assert (tmp_path / "plain" / digests.of(BIG).partition(":")[2]).read_bytes() == BIG
    name = f"localhost/packed:{compression.replace(' ', '-')}"
    copy("ours", f"oci:{tmp_path}/packed:x", f"oci-archive:{tmp_path}/packed.tar:{name}")
    run("podman", "load", "-i", f"{tmp_path}/packed.tar", **podman)  # checks the diff ID
    run("podman", "rmi", name, **podman)


@needs("umoci")
def test_umoci_reads_what_threads_compressed(big: str, tmp_path: Path) -> None:
    copy("ours", big, f"oci:{tmp_path}/packed:x", "--dest-compress")
    run("umoci", "unpack", "--image", f"{tmp_path}/packed:x", str(tmp_path / "bundle"))
    assert (tmp_path / "bundle/rootfs/noise").read_bytes() in BIG


@needs("docker-registry")
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_ctr_pulls_what_threads_compressed(big: str, containerd: str, tmp_path: Path, compression: str) -> None:
    with registry(tmp_path / "registry") as there:
        name = f"{there.domain}/big:{compression.replace(' ', '-')}"
        copy("ours", big, f"docker://{name}", *COMPRESSIONS[compression])
        run("ctr", "-a", containerd, "images", "pull", "--plain-http", name)  # unpacks it, and checks the diff ID
        run("ctr", "-a", containerd, "images", "rm", "--sync", name)


@needs("docker", "dockerd", "docker-registry")
@pytest.mark.parametrize("compression", ["gzip", "gzip 9"])  # dockerd 20.10 reads no zstd, whoever wrote it
def test_dockerd_pulls_what_threads_compressed(big: str, dockerd: str, tmp_path: Path, compression: str) -> None:
    with registry(tmp_path / "registry") as there:
        name = f"{there.domain}/big:{compression.replace(' ', '-')}"
        copy("ours", big, f"docker://{name}", *COMPRESSIONS[compression])
        run("docker", "-H", dockerd, "pull", name)
        run("docker", "-H", dockerd, "save", "-o", f"{tmp_path}/saved.tar", name)
        assert diff_ids("ours", f"docker-archive:{tmp_path}/saved.tar:{name}") == [digests.of(BIG)]
        run("docker", "-H", dockerd, "rmi", name)


@needs("umoci", "docker", "dockerd", "docker-registry")
def test_peers_read_layers_that_isal_deflated(
    dockerd: str, containerd: str, podman: dict[str, str], tmp_path: Path
) -> None:
    """As ``commit`` writes them."""
    layout = Layout.create(str(tmp_path / "layout"))
    packing = quick_packer(threads=2)
    parts = [packing.compress(BIG[at : at + 100_000]) for at in range(0, len(BIG), 100_000)]
    layout.tag("quick", samples.into_layout(layout, (BIG,), blobs=(b"".join([*parts, packing.flush()]),)))
    source = f"oci:{tmp_path}/layout:quick"
    run("umoci", "unpack", "--image", f"{tmp_path}/layout:quick", str(tmp_path / "bundle"))
    assert (tmp_path / "bundle/rootfs/noise").read_bytes() in BIG
    with registry(tmp_path / "registry") as there:
        name = f"{there.domain}/big:quick"
        copy("skopeo", source, f"docker://{name}")
        run("ctr", "-a", containerd, "images", "pull", "--plain-http", name)
        run("docker", "-H", dockerd, "pull", name)
        run("podman", "pull", "--tls-verify=false", name, **podman)
        for client in (("docker", "-H", dockerd), ("podman",)):
            run(*client, "rmi", name, **podman)
        run("ctr", "-a", containerd, "images", "rm", "--sync", name)


@needs("skopeo", "docker-registry", "docker", "busybox")
def test_skopeos_zstd_chunked_layers_are_pulled_copied_and_changed(
    big: str, engine: EngineProcess, podman: dict[str, str], tmp_path: Path
) -> None:
    with registry(tmp_path / "registry") as there:
        name, again = f"{there.domain}/chunked:theirs", f"{there.domain}/again:ours"
        copy("skopeo", big, f"docker://{name}", "--dest-compress-format", "zstd:chunked")
        (layer,) = json.loads(ours("inspect", "--raw", f"docker://{name}").stdout)["layers"]
        assert any("zstd-chunked.manifest-position" in key for key in layer["annotations"])
        engine.docker("pull", name)  # checks the diff ID
        assert engine.docker("inspect", "-f", "{{.RootFS.Layers}}", name).stdout == f"[{digests.of(BIG)}]\n"
        engine.docker("rmi", name)
        copy("ours", f"docker://{name}", f"docker://{again}")
        assert manifest("ours", f"docker://{again}") == manifest("skopeo", f"docker://{name}")
        run("podman", "pull", "--tls-verify=false", again, **podman)
        run("podman", "rmi", again, **podman)
        copy("ours", f"docker://{name}", f"oci:{tmp_path}/gzip:x", "--dest-compress-format", "gzip")
    (layer,) = json.loads(skopeo("inspect", "--raw", f"oci:{tmp_path}/gzip:x").stdout)["layers"]
    assert "annotations" not in layer
    skopeo("copy", "--quiet", "--dest-decompress", f"oci:{tmp_path}/gzip:x", f"dir:{tmp_path}/plain")
    assert (tmp_path / "plain" / digests.of(BIG).partition(":")[2]).read_bytes() == BIG
