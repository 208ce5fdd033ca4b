"""The files that say where registries are and who we are there; and the version constraints of sync files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boxship.errors import FailedPrecondition, InvalidArgument
from boxship.image import semver
from boxship.image.registry.auth import AuthFiles, plain_key, search_path, writable_path
from boxship.image.registry.containers_conf import address, addresses
from boxship.image.registry.credentials import Credential, Credentials
from boxship.image.registry.hosts import Settings, endpoints
from boxship.oci import reference as references

CONF = """
unqualified-search-registries = ["example.com"]
[[registry]]
location = "insecure.io"
insecure = true
[[registry]]
prefix = "example.com/team"
location = "internal.io:5000/mirror/team"
[[registry.mirror]]
location = "first.io/team"
insecure = true
[[registry.mirror]]
location = "second.io/team"
pull-from-mirror = "digest-only"
[[registry]]
prefix = "*.wild.io"
location = "caught.io"
[[registry]]
location = "bad.io"
blocked = true
"""
DIGEST = "@sha256:" + "0" * 64

ADDRESSES = [
    ("busybox:1", [("docker.io/library/busybox:1", False)]),
    ("insecure.io/a:1", [("insecure.io/a:1", True)]),
    ("example.com/team/a:1", [("first.io/team/a:1", True), ("internal.io:5000/mirror/team/a:1", False)]),
    ("example.com/teammate/a:1", [("example.com/teammate/a:1", False)]),
    (
        f"example.com/team/a{DIGEST}",
        [
            (f"first.io/team/a{DIGEST}", True),
            (f"second.io/team/a{DIGEST}", False),
            (f"internal.io:5000/mirror/team/a{DIGEST}", False),
        ],
    ),
    ("sub.wild.io/x/y:1", [("caught.io/x/y:1", False)]),
]


@pytest.fixture
def conf(tmp_path: Path) -> str:
    (tmp_path / "registries.conf").write_text(CONF)
    return str(tmp_path / "registries.conf")


@pytest.mark.parametrize(("name", "expected"), ADDRESSES)
def test_where_a_name_is_pulled_from(name: str, expected: list[tuple[str, bool]], conf: str) -> None:
    assert [(str(one.reference), one.insecure) for one in addresses(references.parse(name), conf)] == expected


def test_pushes_go_to_no_mirror(conf: str) -> None:
    assert (
        str(address(references.parse("example.com/team/a:1"), conf).reference) == "internal.io:5000/mirror/team/a:1"
    )


def test_a_blocked_registry_is_refused(conf: str) -> None:
    with pytest.raises(FailedPrecondition, match=r"bad\.io is blocked"):
        addresses(references.parse("bad.io/a:1"), conf)


@pytest.mark.parametrize("text", ["registry = 1", "[[registry]", 'registry = ["x"]'])
def test_a_file_that_cannot_be_read_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.conf").write_text(text)
    with pytest.raises(InvalidArgument, match=r"r\.conf"):
        addresses(references.parse("a:1"), str(tmp_path / "r.conf"))
    with pytest.raises(InvalidArgument, match="no such file"):
        addresses(references.parse("a:1"), str(tmp_path / "none.conf"))


def test_files_beside_the_main_one_add_to_it(conf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "registries.conf.d").mkdir()
    (tmp_path / "registries.conf.d" / "a.conf").write_text('[[registry]]\nlocation = "bad.io"\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", conf)
    assert [str(one.reference) for one in addresses(references.parse("bad.io/a:1"))] == ["bad.io/a:1"]


VERIFY = [
    ("127.0.0.1:5000", None, "", [("https", False), ("http", True)]),
    ("127.0.0.1:5000", True, "", [("https", True)]),
    ("example.com", None, "", [("https", True)]),
    ("example.com", False, "", [("https", False), ("http", True)]),
    ("127.0.0.1:5000", None, "certs", [("https", True)]),
    ("127.0.0.1:5000", False, "certs", [("https", False), ("http", True)]),
]


@pytest.mark.parametrize(("domain", "verify", "certificates", "expected"), VERIFY)
def test_what_is_verified(
    domain: str, verify: bool | None, certificates: str, expected: list[tuple[str, bool]], tmp_path: Path
) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "ca.crt").write_text("x")
    where = str(tmp_path / certificates) if certificates else ""
    settings = Settings(directories=(), verify=verify, certificates=where)
    found = endpoints(domain, settings, "pull")
    assert [(one.url.partition(":")[0], one.verify) for one in found] == expected


def auths(path: Path, **entries: str) -> str:
    import base64

    encoded = {name: {"auth": base64.b64encode(f"{user}:secret".encode()).decode()} for name, user in entries.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": encoded}))
    return str(path)


def test_the_longest_name_in_an_auth_file_counts(tmp_path: Path) -> None:
    entries = {"x.io": "all", "x.io/team": "team", "x.io/team/app": "app", "docker.io": "hub"}
    file = auths(tmp_path / "auth.json", **entries)
    for name, user in (
        ("x.io/team/app", "app"),
        ("x.io/team/app/part", "app"),
        ("x.io/team/other", "team"),
        ("x.io/other", "all"),
        ("busybox", "hub"),
    ):
        reference = references.parse(name)
        known = AuthFiles(reference, file).get(reference.domain)
        assert known == Credential(user, "secret")
    assert AuthFiles(references.parse("y.io/a"), file).get("y.io") is None


def test_where_credentials_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    auths(tmp_path / ".docker" / "config.json", **{"x.io": "docker", "y.io": "docker"})
    auths(tmp_path / ".config" / "containers" / "auth.json", **{"x.io": "config"})
    reference = references.parse("x.io/a")
    assert AuthFiles(reference).get("x.io") == Credential("config", "secret")
    assert AuthFiles(references.parse("y.io/a")).get("y.io") == Credential("docker", "secret")
    auths(tmp_path / "run" / "containers" / "auth.json", **{"x.io": "run"})
    assert AuthFiles(reference).get("x.io") == Credential("run", "secret")
    named = auths(tmp_path / "named.json", **{"x.io": "named"})
    monkeypatch.setenv("REGISTRY_AUTH_FILE", named)
    assert search_path() == [named]
    assert AuthFiles(reference).get("x.io") == Credential("named", "secret")
    with pytest.raises(FailedPrecondition, match="no such file"):
        AuthFiles(reference, f"{tmp_path}/none.json")


def test_where_a_login_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert writable_path() == f"{tmp_path}/containers/auth.json"
    assert writable_path("/x") == "/x"
    Credentials(writable_path(), key=plain_key).store("docker.io", Credential("me", "word"))
    assert list(json.loads((tmp_path / "containers" / "auth.json").read_text())["auths"]) == ["docker.io"]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    with pytest.raises(FailedPrecondition, match="no such directory"):
        writable_path()


VERSIONS = [
    (">= 3.12", "3.12.1 v3.12.0 4", "3.11 3.12.0-rc1 latest"),
    (">= 3.12, < 4", "3.99", "4.0.0 3.11"),
    (">=1 <2 || 5.x", "1.5 5.1.2", "2.0.0 4.9 6.0.0"),
    ("~1.2", "1.2.9 1.2", "1.3.0 1.1.9"),
    ("~1.2.3", "1.2.9", "1.2.2 1.3.0"),
    ("~1", "1.9", "2.0"),
    ("^1.2.3", "1.9.0", "2.0.0 1.2.2"),
    ("^0.2.3", "0.2.9", "0.3.0"),
    ("^0.0.3", "0.0.3", "0.0.4"),
    ("1.2 - 1.4", "1.2.0 1.4.5", "1.5.0 1.1.0"),
    ("!= 1.1", "1.2.0", "1.1.5"),
    ("1.2.3", "1.2.3 v1.2.3+build", "1.2.4"),
    ("> 1.2", "1.3.0", "1.2.9"),
    ("> 1.2.3", "1.2.4", "1.2.3"),
    ("<= 1.2", "1.2.9", "1.3.0"),
    ("<= 1.2.3", "1.2.3", "1.2.4"),
    ("*", "1.0.0 99", "word"),
    (">= 1.0.0-beta.2", "1.0.0-beta.11 1.0.0-rc 1.0.0", "1.0.0-beta.1 1.0.0-alpha"),
]


@pytest.mark.parametrize(("text", "fitting", "others"), VERSIONS)
def test_version_constraints(text: str, fitting: str, others: str) -> None:
    fits = semver.constraint(text)
    assert [one for one in fitting.split() if not fits(one)] == []
    assert [one for one in others.split() if fits(one)] == []


@pytest.mark.parametrize("text", ["", "abc", ">", ">= 1.2 ||", ">= 1 ; < 2"])
def test_what_is_no_constraint_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="no version constraint"):
        semver.constraint(text)
