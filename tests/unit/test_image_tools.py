"""``boxship-image`` and its skopeo habit: each verb, wrong command lines, exit codes; and never a traceback."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from boxship import __version__
from boxship.flags import UsageError
from boxship.image.layout import Layout
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.tools.main import FLAGS, SKOPEO, habit_of, load, main, seconds
from boxship.tools.progress import Bars

from . import image_samples as samples
from .fake_registry import FakeRegistry, fake_registry

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Call skopeo's habit; gives exit code, standard output and standard error. Auth files are the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "no-registries.conf"))

    def call(*words: str, called: str = "skopeo", policy: bool = False) -> tuple[int, str, str]:
        code = main([*([] if policy else ["--insecure-policy"]), *words], called)
        out = capfdbinary.readouterr()
        return code, out.out.decode(), out.err.decode()

    return call


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as found:
        yield found


@pytest.fixture
def guarded() -> Iterator[FakeRegistry]:
    with fake_registry("anchor") as found:
        yield found


@pytest.fixture
def image(tmp_path: Path) -> str:
    samples.directory(tmp_path / "image")
    return f"dir:{tmp_path}/image"


# ── The program ──


def test_version_and_help(run: Run) -> None:
    assert run("--version") == (0, f"skopeo version {__version__}\n", "")
    assert run("--version", called="boxship-image")[1] == f"boxship-image version {__version__}\n"
    for words in ((), ("--help",), ("help",), ("-h",)):
        code, out, _ = run(*words)
        assert code == 0
        assert all(verb in out for verb in SKOPEO)
    assert "Usage:\n  skopeo copy" in run("help", "copy")[1]


@pytest.mark.parametrize("verb", sorted(SKOPEO))
def test_every_verb_has_help_that_names_its_flags(verb: str, run: Run) -> None:
    code, out, err = run(verb, "--help")
    assert (code, err) == (0, "")
    command = load(habit_of("skopeo"), verb)
    assert command.name == verb
    assert all(f"--{flag.long}" in out for flag in command.flags)
    names = [flag.long for flag in command.flags] + [flag.short for flag in command.flags if flag.short]
    assert len(names) == len(set(names))
    assert all(flag.help for flag in (*command.flags, *FLAGS))


def test_the_program_has_the_verbs_of_all_its_tools() -> None:
    assert set(SKOPEO) | {"create", "validate"} <= set(habit_of("boxship-image").verbs)
    assert set(habit_of("skopeo").verbs) == set(SKOPEO)


WRONG = [
    ("frobnicate", 1, "Unrecognized command `skopeo frobnicate`"),
    ("--nonsense", 1, "unknown flag: --nonsense"),
    ("copy", 1, "wants exactly 2 arguments, got 0"),
    ("copy a", 1, "wants exactly 2 arguments, got 1"),
    ("copy a b c", 1, "wants exactly 2 arguments, got 3"),
    ("copy a b --nonsense", 1, "unknown flag"),
    ("copy a b --retry-times x", 1, "whole number"),
    ("copy nothing dir:x", 1, "Invalid source name nothing"),
    ("copy dir:x nothing", 1, "Invalid destination name nothing"),
    ("copy dir:x dir:y --multi-arch some", 1, "unknown multi-arch option"),
    ("copy dir:x dir:y --all --multi-arch all", 1, "together"),
    ("copy dir:x dir:y --format v3", 1, "unknown format"),
    ("copy dir:x dir:y --format v2s1", 1, "use v2s2 or oci"),
    ("copy dir:x dir:y --dest-compress --dest-decompress", 1, "mutually exclusive"),
    ("copy dir:x dir:y --dest-compress-format rar", 1, "not offered"),
    ("copy dir:x dir:y --dest-compress-format zstd:chunked", 1, "use zstd"),
    ("copy dir:x dir:y --encrypt-layer 0", 1, "--encryption-key"),
    ("copy dir:x dir:y --encryption-key jwe:/none --encrypt-layer one", 1, "cannot read"),
    ("copy dir:x dir:y --encryption-key pgp:me", 1, "only JWE"),
    ("copy dir:x dir:y --decryption-key /none", 1, "cannot read"),
    ("copy dir:x dir:y --image-parallel-copies 0", 1, "at least 1"),
    ("copy dir:x dir:y --src-creds a:b --src-no-creds", 1, "same time"),
    ("copy dir:x dir:y --src-creds a:b --src-username c", 1, "same time"),
    ("copy dir:x dir:y --src-username c", 1, "together"),
    ("copy dir:x dir:y --dest-creds :b", 1, "username is empty"),
    ("copy dir:x dir:y --sign-passphrase-file /none", 1, "cannot read the passphrase file"),
    ("copy dir:x dir:y --sign-by-sigstore-private-key /none", 1, "cannot read the key"),
    ("copy dir:x dir:y --sign-by-sigstore x", 1, "not offered"),
    ("copy dir:x dir:y --sign-identity busybox", 1, "name a tag"),
    ("copy dir:x dir:y --additional-tag UPPER:", 1, "invalid"),
    ("copy dir:/none dir:/tmp/never", 1, "initializing source dir:/none"),
    ("copy docker://127.0.0.1:1/a dir:/tmp/never --src-authfile /none", 1, "authfile path /none"),
    ("inspect", 1, "wants exactly 1 argument"),
    ("inspect nothing", 1, 'Error parsing image name \\"nothing\\"'),
    ("inspect --raw --format x dir:x", 1, "raw output does not support format"),
    ("inspect dir:/none", 1, "Error retrieving manifest for image"),
    ("inspect docker://127.0.0.1:1/a --cert-dir /none", 1, "certificate directory /none"),
    ("list-tags", 1, "wants exactly 1 argument"),
    ("list-tags busybox", 1, "colon-separated"),
    ("list-tags oci:x", 1, "Only supported: docker, docker-archive"),
    ("list-tags docker:x", 1, "start with //"),
    ("list-tags docker://x:1", 1, "No tag or digest allowed"),
    ("list-tags docker-archive:/none", 1, "no such file"),
    ("delete", 1, "wants exactly 1 argument"),
    ("delete dir:x", 1, "not implemented for dir:"),
    ("sync a b", 1, "A source transport must be specified"),
    ("sync --src x --dest dir a b", 1, "not a valid source transport"),
    ("sync --src docker a b", 1, "A destination transport must be specified"),
    ("sync --src docker --dest yaml a b", 1, "not a valid destination transport"),
    ("sync --src dir --dest dir a b", 1, "rsync"),
    ("sync --src dir --dest docker /none b", 1, "Invalid source directory"),
    ("sync --src yaml --dest dir /none b", 1, "cannot read the YAML file"),
    ("login", 1, "specify a registry"),
    ("login x.io --authfile a --compat-auth-file b", 1, "simultaneously"),
    ("login x.io --password-stdin", 1, "Must provide --username"),
    ("login x.io --password-stdin -p x -u y", 1, "both"),
    ("login x.io", 1, "no terminal"),
    ("login x.io --get-login", 1, "not logged into x.io"),
    ("logout x.io", 1, "not logged into x.io"),
    ("logout --all x.io", 1, "no arguments"),
    ("manifest-digest", 1, "wants exactly 1 argument"),
    ("manifest-digest /none", 1, "cannot read the manifest /none"),
    ("standalone-sign a b", 1, "wants exactly 3 arguments"),
    ("standalone-sign a b c", 1, "--output"),
    ("standalone-sign /none b c -o d", 1, "cannot read the manifest"),
    ("standalone-verify a b c", 1, "wants exactly 4 arguments"),
    ("standalone-verify a b any d", 1, "without a public key file"),
    ("standalone-verify /none b c d", 1, "cannot read the manifest"),
    ("generate-sigstore-key", 1, "--output-prefix"),
    ("generate-sigstore-key --output-prefix /tmp/never-made", 1, "--passphrase-file"),
    ("--command-timeout soon inspect dir:x", 1, "invalid duration"),
    ("--registries-conf /none inspect docker://127.0.0.1:1/a", 1, "/none: no such file"),
]


@pytest.mark.parametrize(("line", "code", "words"), WRONG, ids=[line for line, _, _ in WRONG])
def test_wrong_command_lines(line: str, code: int, words: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    found, out, err = run(*line.split())
    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err
    assert re.fullmatch(r'time="[^"]+" level=fatal msg="(\\.|[^"\\])*"\n', err)


def test_the_own_habit_tells_errors_in_plain_words(run: Run) -> None:
    code, _, err = run("inspect", "nothing", called="boxship-image")
    assert code == 1
    assert err.startswith('boxship-image: Error parsing image name "nothing"')


def test_a_policy_is_asked_for(run: Run, image: str, tmp_path: Path) -> None:
    (tmp_path / "reject.json").write_text('{"default": [{"type": "reject"}]}')
    words = ("--policy", f"{tmp_path}/reject.json", "copy", image, f"dir:{tmp_path}/to")
    code, _, err = run(*words, policy=True)
    assert code == 1
    assert "Source image rejected: Running image dir:" in err
    assert run("copy", image, f"dir:{tmp_path}/to", "--policy", "/none", policy=True)[0] == 1
    assert run(*words)[0] == 0  # --insecure-policy


def test_a_machine_without_a_policy_takes_every_image_but_in_skopeos_habit(
    run: Run, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxship.image.trust.policy.SYSTEM", f"{tmp_path}/none.json")
    words = ("copy", "-q", image, f"dir:{tmp_path}/to")
    assert run(*words, called="boxship-image", policy=True)[0] == 0
    code, _, err = run(*words, policy=True)
    assert code == 1
    assert "Error loading trust policy" in err


DURATIONS = [("30s", 30.0), ("1h30m", 5400.0), ("500ms", 0.5), ("1.5s", 1.5)]


@pytest.mark.parametrize(("text", "expected"), DURATIONS)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["5", "s", "5 s", "5s ago", "1.2.3s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError):
        seconds(text)


# ── copy ──


def test_copy_says_each_step(run: Run, image: str, registry: FakeRegistry, tmp_path: Path) -> None:
    name = f"docker://{registry.domain}/app:1"
    code, out, _ = run("copy", image, name, "--digestfile", f"{tmp_path}/digest")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "Getting image source signatures"
    assert lines[-1] == "Writing manifest to image destination"
    assert f"Copying config {digests.of(samples.config())}" in lines
    assert (tmp_path / "digest").read_text() == digests.of((tmp_path / "image" / "manifest.json").read_bytes())
    assert "already exists" in run("copy", image, name)[1]
    assert run("copy", "--quiet", image, name) == (0, "", "")


def test_copy_goes_on_when_the_registry_is_away_for_a_while(
    run: Run, image: str, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxship.image.registry.session.FIRST_PAUSE", 0.001)
    registry.broken = 3
    assert run("copy", "-q", image, f"docker://{registry.domain}/app:1")[0] == 0
    registry.broken = 5  # as many as one request has patience for
    words = ("--retry-times", "1", "--retry-delay", "1ms")
    code, _, err = run("inspect", *words, f"docker://{registry.domain}/app:1")
    assert code == 0
    assert "retrying in" in err


def test_an_archive_gets_its_names(run: Run, image: str, tmp_path: Path) -> None:
    words = ("--additional-tag", "two:2,three", "--additional-tag", "four:4")
    assert run("copy", image, f"docker-archive:{tmp_path}/a.tar:one:1", *words)[0] == 0
    tags = json.loads(run("list-tags", f"docker-archive:{tmp_path}/a.tar")[1])["Tags"]
    assert tags == ["one:1", "two:2", "three:latest", "four:4"]


def test_platforms_are_chosen_by_the_program_flags(run: Run, tmp_path: Path) -> None:
    samples.layout_with_index(tmp_path / "multi")
    config = run("--override-arch", "arm64", "inspect", "--config", f"oci:{tmp_path}/multi:multi")[1]
    assert json.loads(config)["architecture"] == "arm64"
    code, _, err = run("--override-os", "plan9", "inspect", f"oci:{tmp_path}/multi:multi")
    assert code == 1
    assert "no image found in manifest list" in err


def test_requests_carry_the_prefix_before_our_name(run: Run, image: str, registry: FakeRegistry) -> None:
    run("--user-agent-prefix", "night-build", "copy", "-q", image, f"docker://{registry.domain}/app:1")
    assert registry.agents == {"night-build boxship"}


def test_a_signature_that_cannot_be_named_is_refused_before_anything_is_copied(
    run: Run, image: str, tmp_path: Path
) -> None:
    code, out, err = run("copy", "--sign-by", "nobody", image, f"dir:{tmp_path}/to")
    assert (code, "Copying" in out) == (1, False)
    assert "--sign-identity" in err


# ── inspect, list-tags, delete ──


def test_inspect_shows_a_summary(run: Run, image: str, registry: FakeRegistry) -> None:
    name = f"docker://{registry.domain}/team/app:1"
    run("copy", "-q", image, name)
    run("copy", "-q", image, f"docker://{registry.domain}/team/app:2")
    found = json.loads(run("inspect", name)[1])
    assert list(found) == [
        "Name", "Digest", "RepoTags", "Created", "DockerVersion", "Labels", "Architecture", "Os", "Layers",
        "LayersData", "Env",
    ]  # fmt: skip
    assert found["Name"] == f"{registry.domain}/team/app"
    assert found["RepoTags"] == ["1", "2"]
    assert json.loads(run("inspect", "--no-tags", name)[1])["RepoTags"] == []
    assert "Name" not in json.loads(run("inspect", image)[1])
    assert json.loads(run("list-tags", name.rpartition(":")[0])[1])["Tags"] == ["1", "2"]


FORMATS = [
    ("{{.Architecture}}", "amd64\n"),
    ("{{.Os}}/{{.Architecture}} {{len .Layers}}", "linux/amd64 2\n"),
    ('{{index .Labels "name"}}', "tiny\n"),
    ("{{range .Env}}{{.}};{{end}}", "PATH=/bin;A=b;\n"),
]


@pytest.mark.parametrize(("form", "expected"), FORMATS)
def test_inspect_through_a_template(form: str, expected: str, run: Run, image: str) -> None:
    assert run("inspect", "--format", form, image) == (0, expected, "")


def test_inspect_gives_documents_as_they_are(run: Run, image: str, tmp_path: Path) -> None:
    assert run("inspect", "--raw", image)[1].encode() == (tmp_path / "image" / "manifest.json").read_bytes()
    assert run("inspect", "--raw", "--config", image)[1].encode() == samples.config()
    assert run("inspect", "--config", "--format", "{{.config.Cmd}}", image)[1] == "[/first]\n"
    assert "--format" in run("inspect", "--format", "{{.Nothing}}", image)[2]


def test_what_is_not_there_is_exit_code_2(run: Run, image: str, registry: FakeRegistry) -> None:
    name = f"docker://{registry.domain}/app:1"
    for words in (("inspect", name), ("delete", name), ("copy", name, "dir:/tmp/never")):
        code, _, err = run(*words)
        assert (code, "Traceback" in err) == (2, False)
    run("copy", "-q", image, name)
    assert run("delete", name) == (0, "", "")
    assert run("inspect", name)[0] == 2


def test_damaged_documents_are_told_in_one_line(run: Run, tmp_path: Path) -> None:
    samples.directory(tmp_path / "image")
    path = tmp_path / "image" / "manifest.json"
    whole = json.loads(path.read_text())
    config = tmp_path / "image" / digests.encoded(digests.of(samples.config()))
    config.write_bytes(b"{" * 100)
    for damaged in (
        "",
        "[]",
        "{}",
        '{"schemaVersion": 1, "fsLayers": []}',
        json.dumps({**whole, "layers": 1}),
        json.dumps(whole),
    ):
        path.write_text(damaged)
        for words in (("inspect", f"dir:{tmp_path}/image"), ("copy", f"dir:{tmp_path}/image", f"oci:{tmp_path}/o:x")):
            code, _, err = run(*words)
            assert code == 1, damaged
            assert err.count("\n") == 1
            assert "Traceback" not in err


# ── login, logout ──


def test_a_login_is_remembered_and_forgotten(
    run: Run, guarded: FakeRegistry, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"docker://{guarded.domain}/app:1"
    code, _, err = run("copy", "-q", image, name)
    assert code == 1
    assert "authentication required" in err
    code, _, err = run("login", "-u", "sailor", "-p", "wrong", guarded.domain)
    assert code == 1
    assert "invalid username/password" in err
    monkeypatch.setattr("sys.stdin", io.StringIO("anchor\n"))
    assert run("login", "-u", "sailor", "--password-stdin", "-v", guarded.domain) == (
        0, f"Used: {tmp_path}/containers/auth.json\nLogin Succeeded!\n", "",
    )  # fmt: skip
    assert os.stat(tmp_path / "containers" / "auth.json").st_mode & 0o777 == 0o600
    assert run("login", "--get-login", guarded.domain) == (0, "sailor\n", "")
    assert run("copy", "-q", image, name)[0] == 0
    assert run("inspect", "--no-creds", name)[0] == 1
    assert run("logout", guarded.domain) == (0, f"Removed login credentials for {guarded.domain}\n", "")
    assert run("inspect", name)[0] == 1
    assert run("inspect", "--creds", "sailor:anchor", name)[0] == 0
    assert run("inspect", "--username", "sailor", "--password", "anchor", name)[0] == 0
    assert run("copy", "-q", "--screds", "sailor:anchor", name, f"dir:{tmp_path}/to")[0] == 0


def test_a_login_may_be_for_a_repository_and_in_dockers_file(run: Run, guarded: FakeRegistry, tmp_path: Path) -> None:
    words = ("-u", "sailor", "-p", "anchor")
    assert run("login", *words, "--compat-auth-file", f"{tmp_path}/config.json", guarded.domain)[0] == 0
    assert list(json.loads((tmp_path / "config.json").read_text())["auths"]) == [guarded.domain]
    assert run("login", *words, f"{guarded.domain}/team/app")[0] == 0
    assert list(json.loads((tmp_path / "containers" / "auth.json").read_text())["auths"]) == [
        f"{guarded.domain}/team/app"
    ]
    assert run("logout", "--all")[0] == 0
    assert json.loads((tmp_path / "containers" / "auth.json").read_text())["auths"] == {}


# ── sync ──


def test_sync_copies_every_tag(run: Run, image: str, registry: FakeRegistry, tmp_path: Path) -> None:
    for tag in ("1", "2"):
        run("copy", "-q", image, f"docker://{registry.domain}/team/app:{tag}")
    source = f"{registry.domain}/team/app"
    code, out, err = run("sync", "--dry-run", "--src", "docker", "--dest", "dir", "--scoped", source, f"{tmp_path}/s")
    assert (code, out) == (0, "")
    assert f'from="docker://{source}:1" to="dir:{tmp_path}/s/{source}:1"' in err
    assert "Would have synced 2 images from 1 sources" in err
    assert not (tmp_path / "s").exists()
    words = ("--digestfile", f"{tmp_path}/digests")
    assert run("sync", "--src", "docker", "--dest", "dir", *words, source, f"{tmp_path}/s")[0] == 0
    assert sorted(os.listdir(tmp_path / "s")) == ["app:1", "app:2"]
    digest = digests.of((tmp_path / "image" / "manifest.json").read_bytes())
    assert (tmp_path / "digests").read_text().splitlines()[0] == f"{digest} dir:{tmp_path}/s/app:1"
    assert "Refusing to overwrite" in run("sync", "--src", "docker", "--dest", "dir", source, f"{tmp_path}/s")[2]
    words = ("--src", "dir", "--dest", "docker", "--append-suffix", "-x")
    assert run("sync", *words, f"{tmp_path}/s", f"{registry.domain}/mirror")[0] == 0
    assert sorted(one for one in registry.manifests["mirror/app"] if ":" not in one) == ["1-x", "2-x"]


def test_sync_goes_on_when_it_is_told_to(run: Run, image: str, registry: FakeRegistry, tmp_path: Path) -> None:
    for tag in ("1", "2"):
        run("copy", "-q", image, f"docker://{registry.domain}/app:{tag}")
    registry.manifests["app"]["1"] = (b"{}", "application/json")
    words = ("sync", "--src", "docker", "--dest", "dir", f"{registry.domain}/app")
    assert run(*words, f"{tmp_path}/one")[0] == 1
    assert not (tmp_path / "one" / "app:2").exists()
    code, _, err = run(*words, "--keep-going", f"{tmp_path}/two")
    assert code == 1
    assert "previous reported error" in err
    assert (tmp_path / "two" / "app:2" / "manifest.json").exists()


def test_sync_reads_lists_in_yaml(run: Run, image: str, registry: FakeRegistry, tmp_path: Path) -> None:
    for tag in ("1.0.0", "1.5.0", "2.0.0", "latest"):
        for repository in ("a", "b", "c", "d"):
            run("copy", "-q", image, f"docker://{registry.domain}/{repository}:{tag}")
    digest = digests.of((tmp_path / "image" / "manifest.json").read_bytes())
    (tmp_path / "list.yaml").write_text(
        f"{registry.domain}:\n  tls-verify: false\n  images:\n    a: ['{digest}', latest]\n    b:\n    none: []\n"
        "  images-by-tag-regex:\n    c: ^1\\.\n  images-by-semver:\n    d: '>= 1.2, < 2'\n"
    )
    code, _, err = run("sync", "--src", "yaml", "--dest", "dir", f"{tmp_path}/list.yaml", f"{tmp_path}/to")
    assert code == 0
    assert "skipping" in err  # the repository that is not there
    assert sorted(os.listdir(tmp_path / "to")) == [
        f"a@{digest}", "a:latest", "b:1.0.0", "b:1.5.0", "b:2.0.0", "b:latest", "c:1.0.0", "c:1.5.0", "d:1.5.0",
    ] or sorted(os.listdir(tmp_path / "to")) == sorted(
        [f"a@{digest}", "a:latest", "b:1.0.0", "b:1.5.0", "b:2.0.0", "b:latest", "c:1.0.0", "c:1.5.0", "d:1.5.0"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "no YAML"),
        ("- a", "not a mapping"),
        ("x.io: 1", "not a mapping"),
        ("x.io: {imagez: {}}", "unknown field 'imagez'"),
        ("x.io: {images: [a]}", "not a mapping of repositories"),
        ("x.io: {tls-verify: maybe}", "neither true nor false"),
        ("x.io: {credentials: {password: x}}", "username"),
    ],
)
def test_a_list_that_is_none_is_refused(text: str, words: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text(text)
    code, _, err = run("sync", "--src", "yaml", "--dest", "dir", f"{tmp_path}/list.yaml", f"{tmp_path}/to")
    assert code == 1
    assert words in err


# ── Keys and digests ──


def test_manifest_digest(run: Run, image: str, tmp_path: Path) -> None:
    path = tmp_path / "image" / "manifest.json"
    assert run("manifest-digest", str(path)) == (0, f"{digests.of(path.read_bytes())}\n", "")


def test_sigstore_keys_sign_and_verify(run: Run, image: str, registry: FakeRegistry, tmp_path: Path) -> None:
    (tmp_path / "word").write_text("word\n")
    prefix = ("--output-prefix", f"{tmp_path}/key", "--passphrase-file", f"{tmp_path}/word")
    assert run("generate-sigstore-key", *prefix)[0] == 0
    assert os.stat(tmp_path / "key.private").st_mode & 0o777 == 0o600
    assert "Refusing to overwrite" in run("generate-sigstore-key", *prefix)[2]
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "r.yaml").write_text("default-docker:\n  use-sigstore-attachments: true\n")
    requirement = {"type": "sigstoreSigned", "keyPath": f"{tmp_path}/key.pub"}
    (tmp_path / "policy.json").write_text(json.dumps({"default": [requirement]}))
    key = ("--sign-by-sigstore-private-key", f"{tmp_path}/key.private")
    name = f"docker://{registry.domain}/app:1"
    where = ("--registries.d", f"{tmp_path}/d")
    code, _, err = run(*where, "copy", *key, image, name)
    assert code == 1
    assert "wrong passphrase" in err
    code, out, _ = run(*where, "copy", *key, "--sign-passphrase-file", f"{tmp_path}/word", image, name)
    assert code == 0
    assert out.splitlines()[-3:] == [
        "Signing manifest",
        "Writing manifest to image destination",
        "Storing signatures",
    ]
    policy = ("--policy", f"{tmp_path}/policy.json")
    assert run(*where, *policy, "copy", name, f"dir:{tmp_path}/to", policy=True)[0] == 0
    assert "A signature was required" in run(*where, *policy, "copy", image, f"dir:{tmp_path}/no", policy=True)[2]


def test_a_layout_name_can_be_deleted(run: Run, tmp_path: Path) -> None:
    samples.layout(tmp_path / "layout")
    assert run("delete", f"oci:{tmp_path}/layout:tiny")[0] == 0
    assert Layout(f"{tmp_path}/layout").entries() == []


def test_a_verb_is_given_up_when_its_time_is_up(tmp_path: Path) -> None:
    """In a process of its own: the program ends at once, whatever its threads wait for."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        name = f"docker://127.0.0.1:{silent.getsockname()[1]}/app:1"
        samples.directory(tmp_path / "image")
        for words in (["inspect", name], ["copy", "--insecure-policy", f"dir:{tmp_path}/image", name]):
            command = [sys.executable, "-m", "boxship.tools", "--command-timeout", "700ms", *words]
            started = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
            assert done.returncode == 1
            assert "it took longer than --command-timeout 700ms" in done.stderr
            assert time.monotonic() - started < 10


def test_progress_redraws_its_row_on_a_terminal() -> None:
    out = io.StringIO()
    bars = Bars(out)
    first, second = (oci.Descriptor("x", digests.of(one), 1000) for one in (b"1", b"2"))
    bars.blob(first, "blob")
    bars.blob(second, "config")
    bars.moved(first, 1000)
    bars.moved(second, 1000)
    bars.say("Done")
    bars.moved(first, 1000)  # late: its row is not on the screen any more
    short = [one.digest[7:19] for one in (first, second)]
    assert out.getvalue() == (
        f"Copying blob {short[0]} [{' ' * 30}] 0B / 1000B\n"
        f"Copying config {short[1]} [{' ' * 30}] 0B / 1000B\n"
        f"\x1b[2A\r\x1b[2KCopying blob {short[0]} [{'=' * 30}] 1000B / 1000B\x1b[2B\r"
        f"\x1b[1A\r\x1b[2KCopying config {short[1]} [{'=' * 30}] 1000B / 1000B\x1b[1B\r"
        "Done\n"
    )
