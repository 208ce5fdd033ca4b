"""``boxship registry serve --anonymous-pull``: everybody reads, a password lets write; programs ask for tokens."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.registry.anonymous import LIFETIME, AnonymousPull, Asked
from boxship.registry.auth import Passwords
from boxship.registry.errors import SpecError

from .registry_server import Client, image, serving
from .test_registry import BASIC, SAILOR

READABLE = b"for everybody"
BLOB = f"/v2/team/app/blobs/{digests.of(READABLE)}"
READS = [
    BLOB,
    "/v2/team/app/manifests/v1",
    "/v2/team/app/tags/list",
    f"/v2/team/app/referrers/{digests.of(b'x')}",
    "/v2/_catalog",
]
WRITES = [
    ("POST", "/v2/team/app/blobs/uploads/"),
    ("POST", f"/v2/other/blobs/uploads/?mount={digests.of(READABLE)}&from=team/app"),
    ("PUT", "/v2/team/app/manifests/v2"),
    ("DELETE", "/v2/team/app/manifests/v1"),
    ("DELETE", BLOB),
    ("PATCH", "/v2/team/app/blobs/uploads/1"),
    ("GET", "/v2/team/app/blobs/uploads/1"),  # an upload is no content yet
]
CHALLENGE = re.compile(r'Bearer realm="http://127\.0\.0\.1:\d+(?P<path>/[^"]*)",service="(?P<service>[^"]*)"')


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """Of a registry with anonymous pulls, which has the image ``team/app:v1``."""
    file = tmp_path / "htpasswd"
    file.write_text(SAILOR)
    with serving(tmp_path / "registry", htpasswd=str(file), anonymous=True) as found:
        path = f"/v2/team/app/blobs/uploads/?digest={digests.of(READABLE)}"
        assert found("POST", path, READABLE, Authorization=BASIC).status == 201
        document = image(oci.Descriptor("application/octet-stream", digests.of(READABLE), len(READABLE)))
        pushed = found("PUT", "/v2/team/app/manifests/v1", json.dumps(document).encode(), Authorization=BASIC)
        assert pushed.status == 201
        yield found


def token(client: Client, **headers: str) -> str:
    """What a client does with the challenge: it asks the realm, and has a token."""
    challenge = CHALLENGE.fullmatch(client("GET", "/v2/").headers["www-authenticate"])
    assert challenge is not None
    query = urlencode({"service": challenge["service"], "scope": "repository:team/app:pull"})
    answer = client("GET", f"{challenge['path']}?{query}", **headers)
    assert answer.status == 200, answer
    assert answer.json["token"] == answer.json["access_token"]
    return f"Bearer {answer.json['token']}"


@pytest.mark.parametrize("path", READS)
def test_reading_needs_no_password(path: str, client: Client) -> None:
    for headers in ({}, {"Authorization": token(client)}, {"Authorization": BASIC}):
        assert client("GET", path, **headers).status == 200
        assert client("HEAD", path, **headers).status == 200


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_change_needs_a_password(method: str, path: str, client: Client) -> None:
    stranger = client(method, path)
    assert (stranger.status, stranger.code) == (401, "UNAUTHORIZED")
    assert stranger.headers["www-authenticate"] == 'Basic realm="Boxship registry"'
    nobody = client(method, path, Authorization=token(client))
    assert (nobody.status, nobody.code) == (401, "UNAUTHORIZED")
    assert nobody.headers["www-authenticate"].endswith(',error="insufficient_scope"')
    assert client("GET", BLOB).body == READABLE, "nothing was changed"
    assert client("GET", "/v2/team/app/tags/list").json["tags"] == ["v1"]
    assert client(method, path, Authorization=token(client, Authorization=BASIC)).status not in (401, 403)


def test_who_asks_first_is_told_where_tokens_are(client: Client) -> None:
    """docker and skopeo go by this answer when they push."""
    stranger = client("GET", "/v2/")
    assert (stranger.status, stranger.code) == (401, "UNAUTHORIZED")
    assert CHALLENGE.fullmatch(stranger.headers["www-authenticate"])
    proxied = client("GET", "/v2/", Host="images.example.com", X_Forwarded_Proto="https")
    assert '"https://images.example.com/v2/_token"' in proxied.headers["www-authenticate"]
    assert client("GET", "/v2/", Host='a"b').status == 400
    for good in (BASIC, token(client), token(client, Authorization=BASIC)):
        assert client("GET", "/v2/", Authorization=good).status == 200


def test_who_says_who_he_is_must_be_believed(client: Client) -> None:
    """For reading, too: a wrong password is not to look like a right one."""
    wrong = "Basic c2FpbG9yOm9hcg=="
    assert client("GET", BLOB, Authorization=wrong).status == 401
    assert client("GET", "/v2/_token", Authorization=wrong).status == 401
    end, user, signature = token(client, Authorization=BASIC).removeprefix("Bearer ").split(".")
    anybody = token(client).removeprefix("Bearer ").split(".")[2]
    for forged in (
        "", "x", f"{end}.{user}", f"{int(end) + 1}.{user}.{signature}", f"{end}..{signature}",
        f"{end}.{user}.{anybody}", f"{end}.bm9ib2R5.{signature}", f"{end}.{user}.{'0' * 64}", f"{end}.!.{signature}",
    ):  # fmt: skip
        answer = client("GET", BLOB, Authorization=f"Bearer {forged}")
        assert answer.status == 401, forged
        assert answer.headers["www-authenticate"].endswith(',error="invalid_token"')
    assert client("GET", BLOB, Authorization=f"Bearer {end}.{user}.{signature}").status == 200


def test_a_token_ends_with_its_time_its_password_and_its_server(tmp_path: Path) -> None:
    file, now = tmp_path / "htpasswd", [1000.0]
    file.write_text(SAILOR)
    passwords = Passwords(str(file))
    door = AnonymousPull(passwords, clock=lambda: now[0])
    write = Asked("PUT", "/v2/a/manifests/v1", f"Bearer {door.issue('sailor')}", "localhost")
    door.admit(write)
    with pytest.raises(SpecError, match="not valid"):
        AnonymousPull(passwords, clock=lambda: now[0]).admit(write)
    now[0] += LIFETIME
    door.admit(write)
    now[0] += 1
    with pytest.raises(SpecError, match="not valid"):
        door.admit(write)
    now[0] = 1000.0
    door.admit(write)
    file.write_text("# nobody\n")
    os.utime(file, (1, 1))
    with pytest.raises(SpecError, match="not valid"):
        door.admit(write)
