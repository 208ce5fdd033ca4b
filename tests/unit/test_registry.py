"""The registry against the distribution-spec's sentences: pull, push, discovery, management, refusals, crashes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boxship.errors import FailedPrecondition, InvalidArgument
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.registry.auth import Passwords, parse
from boxship.registry.collect import collect
from boxship.registry.main import main
from boxship.registry.ranges import wanted
from boxship.registry.registry import Registry
from boxship.registry.routes import Limits

from .registry_server import Client, image, serving

ABSENT = "sha256:" + "a" * 64
SAILOR = "sailor:$2b$05$c0fcHggIVhi6HS1vLGuj/eEPFIB1I.EuYDBWTRJfhxCbOjMgYMtr6\n"  # "anchor"
BASIC = "Basic c2FpbG9yOmFuY2hvcg=="


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path / "registry") as found:
        yield found


def push(client: Client, repository: str, tag: str, layer: bytes = b"layer", **more: object) -> str:
    """An image of one layer; its digest."""
    document = image(client.push_blob(repository, b"{}"), client.push_blob(repository, layer), **more)
    done = client.push_manifest(repository, tag, document)
    assert done.status == 201, done
    return done.headers["docker-content-digest"]


# ── Pull ──


def test_a_pushed_image_is_pulled_as_it_was(client: Client) -> None:
    digest = push(client, "a/b", "v1")
    for reference in ("v1", digest):
        found = client("GET", f"/v2/a/b/manifests/{reference}")
        assert found.status == 200
        assert digests.of(found.body) == digest == found.headers["docker-content-digest"]
        assert found.headers["content-type"] == oci.MEDIA_MANIFEST
        head = client("HEAD", f"/v2/a/b/manifests/{reference}")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(found.body))
    blob = client("GET", f"/v2/a/b/blobs/{digests.of(b'layer')}")
    assert (blob.status, blob.body) == (200, b"layer")


def test_content_of_one_repository_is_not_another_s(client: Client) -> None:
    digest = push(client, "a/b", "v1")
    assert client("GET", f"/v2/a/c/manifests/{digest}").code == "NAME_UNKNOWN"
    client.push_blob("a/c", b"x")
    assert client("GET", f"/v2/a/c/manifests/{digest}").code == "MANIFEST_UNKNOWN"
    assert client("GET", f"/v2/a/c/blobs/{digests.of(b'layer')}").code == "BLOB_UNKNOWN"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-3", (0, 4)), ("bytes=4-", (4, 6)), ("bytes=-3", (7, 3)), ("bytes=8-99", (8, 2)),
        ("bytes=-99", (0, 10)), ("bytes=0-0", (0, 1)), ("", None), ("lines=1-2", None),
        ("bytes=0-1,4-5", None), ("bytes=-", None),
        ("bytes=" + "9" * 40 + "-", None), ("bytes=5-4", 416), ("bytes=10-", 416), ("bytes=-0", 416),
    ],
)  # fmt: skip
def test_ranges_that_a_client_reads(client: Client, header: str, expected: object) -> None:
    blob = client.push_blob("a", b"0123456789")
    found = client("GET", f"/v2/a/blobs/{blob.digest}", Range=header)
    if expected == 416:
        assert found.status == 416
        assert found.headers["content-range"] == "bytes */10"
        return
    assert wanted(header, 10) == expected
    if expected is None:
        assert (found.status, found.body) == (200, b"0123456789")
    else:
        assert isinstance(expected, tuple)
        first, count = expected
        assert (found.status, found.body) == (206, b"0123456789"[first : first + count])
        assert found.headers["content-range"] == f"bytes {first}-{first + count - 1}/10"


def test_what_a_client_has_is_not_sent_again(client: Client) -> None:
    digest = push(client, "a", "v1")
    blob = digests.of(b"layer")
    for path, tag in ((f"/v2/a/blobs/{blob}", blob), ("/v2/a/manifests/v1", digest)):
        etag = client("GET", path).headers["etag"]
        assert etag == f'"{tag}"'
        for value in (etag, tag, f'"x", {etag}', f"W/{etag}"):
            assert client("GET", path, If_None_Match=value).status == 304
        assert client("GET", path, If_None_Match='"other"').status == 200
    assert client("GET", f"/v2/a/blobs/{blob}", Range="bytes=0-0", If_Range='"other"').status == 200


# ── Push ──


def start(client: Client, repository: str = "a", query: str = "") -> str:
    begun = client("POST", f"/v2/{repository}/blobs/uploads/{query}")
    assert begun.status == 202
    assert begun.headers["range"] == "0-0"
    return begun.headers["location"]


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_a_blob_comes_in_chunks_under_any_algorithm(client: Client, algorithm: str, told: bool) -> None:
    digest = digests.of(b"0123456789", algorithm)
    place = start(client, query=f"?digest-algorithm={algorithm}" if told else "")
    for first, part in ((0, b"0123"), (4, b"45")):
        last = first + len(part) - 1
        done = client("PATCH", place, part, Content_Range=f"{first}-{last}")
        assert (done.status, done.headers["range"]) == (202, f"0-{last}")
    status = client("GET", place)
    assert (status.status, status.headers["range"], status.headers["location"]) == (204, "0-5", place)
    done = client("PUT", f"{place}?digest={digest}", b"6789", Content_Range="6-9")
    assert done.status == 201
    assert client("GET", done.headers["location"]).body == b"0123456789"
    assert client("GET", place).code == "BLOB_UPLOAD_UNKNOWN"


@pytest.mark.parametrize(
    ("method", "headers", "body", "status", "code"),
    [
        ("PATCH", {"Content_Range": "5-8"}, b"4567", 416, "BLOB_UPLOAD_INVALID"),
        ("PATCH", {"Content_Range": "0-3"}, b"0123", 416, "BLOB_UPLOAD_INVALID"),
        ("PUT", {"Content_Range": "9-9"}, b"9", 416, "BLOB_UPLOAD_INVALID"),
        ("PATCH", {"Content_Range": "4-9"}, b"45", 400, "SIZE_INVALID"),
        ("PATCH", {"Content_Range": "4-3"}, b"", 400, "BLOB_UPLOAD_INVALID"),
        ("PATCH", {"Content_Range": "from the start"}, b"45", 400, "BLOB_UPLOAD_INVALID"),
        ("PATCH", {"Content_Range": "4-" + "9" * 40}, b"45", 400, "BLOB_UPLOAD_INVALID"),
        ("PUT", {}, b"", 400, "DIGEST_INVALID"),
    ],
)
def test_a_wrong_chunk_changes_nothing(
    client: Client, method: str, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    place = start(client)
    assert client("PATCH", place, b"0123").status == 202
    query = f"?digest={digests.of(b'0123')}" if method == "PUT" and headers else ""
    refused = client(method, place + query, body, **headers)
    assert (refused.status, refused.code) == (status, code)
    assert client("GET", place).headers["range"] == "0-3"
    if status == 416:
        assert refused.headers["range"] == "0-3"
    assert client("PUT", f"{place}?digest={digests.of(b'0123')}").status == 201


def test_a_chunk_that_is_shorter_than_it_said_is_taken_back(client: Client) -> None:
    place = start(client)
    assert client("PATCH", place, b"0123").status == 202
    with socket.create_connection(("127.0.0.1", client.port)) as raw:
        head = f"PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Range: 4-9\r\nTransfer-Encoding: chunked\r\n\r\n"
        raw.sendall(head.encode() + b"2\r\n45\r\n0\r\n\r\n")
        assert b"400" in raw.recv(4096)
    assert client("GET", place).headers["range"] == "0-3"


def test_what_a_broken_connection_brought_stays(client: Client) -> None:
    place = start(client)
    with socket.create_connection(("127.0.0.1", client.port)) as raw:
        raw.sendall(f"PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Length: {3 << 20}\r\n\r\n".encode())
        raw.sendall(bytes(2 << 20))
    deadline = time.monotonic() + 5
    came = before = 0
    while came == 0 or came != before:  # until it comes no more
        assert time.monotonic() < deadline
        time.sleep(0.1)
        before, came = came, int(client("GET", place).headers["range"][2:])
    came += 1
    assert came <= 2 << 20
    done = client("PUT", f"{place}?digest={digests.of(bytes(3 << 20))}", bytes((3 << 20) - came))
    assert done.status == 201


def test_a_wrong_digest_leaves_nothing(client: Client, tmp_path: Path) -> None:
    place = start(client)
    for method, path in (("PUT", place), ("POST", "/v2/a/blobs/uploads/")):
        refused = client(method, f"{path}?digest={ABSENT}", b"other")
        assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    assert client("GET", place).code == "BLOB_UPLOAD_UNKNOWN"
    assert not list((tmp_path / "registry/ingest").iterdir())
    assert not list((tmp_path / "registry/blobs/sha256").iterdir())


def test_an_upload_is_cancelled(client: Client) -> None:
    place = start(client)
    assert client("DELETE", place).status == 204
    assert client("DELETE", place).code == "BLOB_UPLOAD_UNKNOWN"
    assert client("PATCH", place, b"x").code == "BLOB_UPLOAD_UNKNOWN"


def test_idle_uploads_hold_no_file_and_go_on(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_files() -> int:
        links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        return sum(os.path.lexists(link) and "ingest" in os.readlink(link) for link in links)

    places = [start(client) for _ in range(5)]
    assert client("PATCH", places[0], b"0123").status == 202
    assert open_files() == 5
    client.tidy(-1)
    assert open_files() == 0
    assert client("GET", places[0]).headers["range"] == "0-3"
    assert client("PUT", f"{places[0]}?digest={digests.of(b'01234')}", b"4").status == 201
    client.tidy(-1)
    for name in os.listdir(tmp_path / "registry/ingest"):
        for path in ("", "data", "ref"):
            os.utime(tmp_path / "registry/ingest" / name / path, (1, 1))
    client.tidy(-1)
    assert client("GET", places[1]).code == "BLOB_UPLOAD_UNKNOWN"


@pytest.mark.parametrize("source", ["&from=a", ""], ids=["from", "found by itself"])
def test_a_blob_is_mounted(client: Client, source: str) -> None:
    blob = client.push_blob("a", b"layer")
    done = client("POST", f"/v2/b/blobs/uploads/?mount={blob.digest}{source}")
    assert (done.status, done.headers["location"]) == (201, f"/v2/b/blobs/{blob.digest}")
    assert client("DELETE", f"/v2/a/blobs/{blob.digest}").status == 202
    assert client("GET", f"/v2/b/blobs/{blob.digest}").body == b"layer"


def test_a_mount_of_what_is_not_there_begins_an_upload(client: Client) -> None:
    assert client("POST", f"/v2/b/blobs/uploads/?mount={ABSENT}&from=a").status == 202
    blob = client.push_blob("a", b"layer")
    assert client("POST", f"/v2/b/blobs/uploads/?mount={blob.digest}&from=c").status == 202


def test_a_manifest_takes_tags_along(client: Client) -> None:
    document = json.dumps(image(client.push_blob("a", b"{}"))).encode()
    for algorithm in ("sha256", "sha512"):
        digest = digests.of(document, algorithm)
        tags = [f"{algorithm}-{number}" for number in range(12)]
        query = "&".join(f"tag={tag}" for tag in tags)
        done = client.push_manifest("a", f"{digest}?{query}", document)
        assert (done.status, done.headers["oci-tag"]) == (201, ", ".join(tags))
        assert client("HEAD", f"/v2/a/manifests/{tags[-1]}").headers["docker-content-digest"] == digest
    assert client.push_manifest("a", f"{digest}?" + "tag=x&" * 101, document).status == 414


def _manifest(client: Client) -> dict[str, object]:
    return image(client.push_blob("a", b"{}"), client.push_blob("a", b"layer"))


BROKEN_MANIFESTS = {
    "not JSON": (b"{", "MANIFEST_INVALID"),
    "not an object": (b"[]", "MANIFEST_INVALID"),
    "not UTF-8": (b'{"schemaVersion":2,"mediaType":"\xff"}', "MANIFEST_INVALID"),
    "nested deep": (b"[" * 100_000, "MANIFEST_INVALID"),
    "schema 1": ({"schemaVersion": 1}, "MANIFEST_INVALID"),
    "schema 1 with its layers": ({"fsLayers": []}, "MANIFEST_INVALID"),
    "no config": ({"config": None}, "MANIFEST_INVALID"),
    "both": ({"manifests": []}, "MANIFEST_INVALID"),
    "unknown type": ({"mediaType": "text/plain"}, "MANIFEST_INVALID"),
    "an index's type": ({"mediaType": oci.MEDIA_INDEX}, "MANIFEST_INVALID"),
    "wrong size": ({"config": {"mediaType": "x/y", "digest": digests.of(b"{}"), "size": 3}}, "MANIFEST_INVALID"),
    "negative size": ({"config": {"mediaType": "x/y", "digest": digests.of(b"{}"), "size": -1}}, "MANIFEST_INVALID"),
    "huge size": ({"config": {"mediaType": "x/y", "digest": digests.of(b"{}"), "size": 10**400}}, "MANIFEST_INVALID"),
    "bad digest": ({"config": {"mediaType": "x/y", "digest": "sha256:../../x", "size": 2}}, "DIGEST_INVALID"),
    "bad subject": ({"subject": {"mediaType": "x/y", "digest": "md5:00", "size": 2}}, "DIGEST_INVALID"),
    "missing layer": ({"layers": [{"mediaType": "x/y", "digest": ABSENT, "size": 5}]}, "MANIFEST_BLOB_UNKNOWN"),
    "annotations of numbers": ({"annotations": {"a": 1}}, "MANIFEST_INVALID"),
}


@pytest.mark.parametrize("name", BROKEN_MANIFESTS)
def test_a_manifest_that_makes_no_sense_is_refused(client: Client, name: str) -> None:
    change, code = BROKEN_MANIFESTS[name]
    document = change if isinstance(change, bytes) else {**_manifest(client), **change}
    refused = client.push_manifest("a", "v1", document)
    assert (refused.status, refused.code) == (400, code)
    assert client("GET", "/v2/a/manifests/v1").status == 404


def test_the_content_type_must_fit_the_document(client: Client) -> None:
    document = _manifest(client)
    assert client.push_manifest("a", "v1", document, Content_Type=oci.MEDIA_INDEX).code == "MANIFEST_INVALID"
    assert client.push_manifest("a", "v1", document, Content_Type=oci.DOCKER_MANIFEST).code == "MANIFEST_INVALID"
    for fitting in (oci.MEDIA_MANIFEST, f"{oci.MEDIA_MANIFEST}; charset=utf-8", "application/json"):
        assert client.push_manifest("a", "v1", document, Content_Type=fitting).status == 201
    del document["mediaType"]
    assert client.push_manifest("a", "v2", document, Content_Type=oci.DOCKER_MANIFEST).status == 201
    assert client("GET", "/v2/a/manifests/v2").headers["content-type"] == oci.DOCKER_MANIFEST
    assert client.push_manifest("a", "v3", document, Content_Type=oci.DOCKER_INDEX).code == "MANIFEST_INVALID"


def test_manifests_of_4_mib_are_taken_and_larger_ones_refused(client: Client) -> None:
    base = image(client.push_blob("a", b"{}"))
    room = (4 << 20) - len(json.dumps({**base, "annotations": {"x": ""}}))
    assert client.push_manifest("a", "large", {**base, "annotations": {"x": "y" * room}}).status == 201
    refused = client.push_manifest("a", "larger", {**base, "annotations": {"x": "y" * (room + 1)}})
    assert (refused.status, refused.code) == (413, "SIZE_INVALID")


def test_a_sparse_index_is_taken_when_asked_for(tmp_path: Path) -> None:
    index = {
        "schemaVersion": 2, "mediaType": oci.MEDIA_INDEX,
        "manifests": [{"mediaType": oci.MEDIA_MANIFEST, "digest": ABSENT, "size": 5}],
    }  # fmt: skip
    with serving(tmp_path / "strict") as client:
        refused = client.push_manifest("a", "v1", index)
        assert (refused.code, refused.json["errors"][0]["detail"]) == (  # type: ignore[index]
            "MANIFEST_BLOB_UNKNOWN", [{"digest": ABSENT}],
        )  # fmt: skip
    with serving(tmp_path / "sparse", sparse=True) as client:
        assert client.push_manifest("a", "v1", index).status == 201


def test_two_who_change_a_tag_do_not_overwrite_each_other(client: Client) -> None:
    config = client.push_blob("a", b"{}")
    one, two = image(config), image(config, annotations={"n": "2"})
    assert client.push_manifest("a", "v1", one, If_Match='"x"').status == 412
    first = client.push_manifest("a", "v1", one, If_None_Match="*")
    assert first.status == 201
    assert client.push_manifest("a", "v1", two, If_None_Match="*").status == 412
    assert client.push_manifest("a", "v1", two, If_Match=f'"{first.headers["docker-content-digest"]}"').status == 201


# ── Discovery ──


def test_lists_are_sorted_and_paged(client: Client) -> None:
    document = json.dumps(image(client.push_blob("z/z", b"{}"))).encode()
    tags = sorted([f"t{number}" for number in range(9)] + ["A", "_x", "b.c"])
    query = "&".join(f"tag={tag}" for tag in reversed(tags))
    client.push_manifest("z/z", f"{digests.of(document)}?{query}", document)
    assert client("GET", "/v2/z/z/tags/list").json == {"name": "z/z", "tags": tags}
    found: list[str] = []
    path = "/v2/z/z/tags/list?n=5"
    while path:
        page = client("GET", path)
        assert len(page.json["tags"]) <= 5  # type: ignore[arg-type]
        found += page.json["tags"]  # type: ignore[arg-type]
        path = page.headers.get("link", "").partition("<")[2].partition(">")[0]
    assert found == tags
    assert client("GET", f"/v2/z/z/tags/list?last={tags[8]}").json["tags"] == tags[9:]
    none = client("GET", "/v2/z/z/tags/list?n=0")
    assert (none.json["tags"], "link" in none.headers) == ([], False)
    assert client("GET", "/v2/z/z/tags/list?n=many").status == 400
    assert client("GET", "/v2/nosuch/tags/list").code == "NAME_UNKNOWN"
    client.push_blob("b", b"x")
    client.push_blob("a", b"x")
    assert client("GET", "/v2/_catalog").json == {"repositories": ["a", "b", "z/z"]}
    page = client("GET", "/v2/_catalog?n=2")
    assert page.json == {"repositories": ["a", "b"]}
    assert page.headers["link"] == '</v2/_catalog?n=2&last=b>; rel="next"'


def test_referrers(client: Client) -> None:
    config = client.push_blob("a", b"{}")
    subject = {"mediaType": oci.MEDIA_MANIFEST, "digest": ABSENT, "size": 7}  # may come later, or never
    typed = image(config, subject=subject, artifactType="x/sbom", annotations={"k": "v"})
    untyped = image(config, subject=subject)
    index = {"schemaVersion": 2, "mediaType": oci.MEDIA_INDEX, "manifests": [], "subject": subject}
    digest = {}
    for name, document in (("typed", typed), ("untyped", untyped), ("index", index)):
        done = client.push_manifest("a", name, document)
        assert done.headers["oci-subject"] == ABSENT
        digest[name] = done.headers["docker-content-digest"]
    found = client("GET", f"/v2/a/referrers/{ABSENT}")
    assert found.headers["content-type"] == oci.MEDIA_INDEX
    entries = {one["digest"]: one for one in found.json["manifests"]}  # type: ignore[attr-defined]
    assert entries[digest["typed"]]["artifactType"] == "x/sbom"
    assert entries[digest["typed"]]["annotations"] == {"k": "v"}
    assert entries[digest["untyped"]]["artifactType"] == oci.MEDIA_CONFIG
    assert "artifactType" not in entries[digest["index"]]
    only = client("GET", f"/v2/a/referrers/{ABSENT}?artifactType=x/sbom")
    assert only.headers["oci-filters-applied"] == "artifactType"
    assert [one["digest"] for one in only.json["manifests"]] == [digest["typed"]]  # type: ignore[attr-defined]
    assert client("DELETE", f"/v2/a/manifests/{digest['typed']}").status == 202
    assert client("GET", f"/v2/a/referrers/{ABSENT}?artifactType=x/sbom").json["manifests"] == []
    assert client("GET", f"/v2/nosuch/referrers/{ABSENT}").json["manifests"] == []
    assert client("GET", "/v2/a/referrers/sha256:zz").code == "DIGEST_INVALID"


def test_many_referrers_come_in_pages(client: Client) -> None:
    config = client.push_blob("a", b"{}")
    subject = {"mediaType": oci.MEDIA_MANIFEST, "digest": ABSENT, "size": 7}
    for number in range(5):
        annotations = {"n": str(number), "x": "y" * (1 << 20)}
        assert client.push_manifest("a", f"t{number}", image(config, subject=subject, annotations=annotations)).status
    path, found = f"/v2/a/referrers/{ABSENT}?artifactType={oci.MEDIA_CONFIG.replace('+', '%2B')}", []
    pages = 0
    while path:
        page = client("GET", path)
        assert len(page.body) <= 4 << 20
        found += [one["annotations"]["n"] for one in page.json["manifests"]]  # type: ignore[attr-defined]
        path = page.headers.get("link", "").partition("<")[2].partition(">")[0]
        pages += 1
    assert (sorted(found), pages) == (["0", "1", "2", "3", "4"], 2)


# ── Management ──


def test_deleting(client: Client, tmp_path: Path) -> None:
    digest = push(client, "a", "v1")
    assert client.push_manifest("a", "v2", client("GET", "/v2/a/manifests/v1").body).status == 201
    assert client("DELETE", "/v2/a/manifests/v1").status == 202
    assert client("DELETE", "/v2/a/manifests/v1").code == "MANIFEST_UNKNOWN"
    assert client("GET", "/v2/a/manifests/v2").status == 200
    assert client("DELETE", f"/v2/a/manifests/{digest}").status == 202
    assert client("GET", "/v2/a/manifests/v2").code == "MANIFEST_UNKNOWN"
    assert client("GET", "/v2/a/tags/list").json["tags"] == []
    for data in (b"{}", b"layer"):
        assert client("DELETE", f"/v2/a/blobs/{digests.of(data)}").status == 202
    assert client("DELETE", f"/v2/a/blobs/{ABSENT}").code == "BLOB_UNKNOWN"
    assert client("GET", "/v2/a/tags/list").code == "NAME_UNKNOWN"
    assert not list((tmp_path / "registry/blobs/sha256").iterdir())


def test_collection_removes_what_no_manifest_needs(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        kept = push(client, "a", "kept")
        loose = push(client, "a", "loose", b"another layer")
        assert client("DELETE", "/v2/a/manifests/loose").status == 202
        client.push_blob("b", b"nobody's")
        client.push_blob("b", b"layer")  # a's, too
        with pytest.raises(FailedPrecondition, match="another process"):
            Registry(str(tmp_path))
    registry = Registry(str(tmp_path))
    assert collect(registry, age=3600).blobs == 0
    dry = collect(registry, age=0, untagged=True, dry=True)
    done = collect(registry, age=0, untagged=True)
    assert dry == done
    assert (done.manifests, done.blobs) == (1, 3)
    registry.close()
    with serving(tmp_path) as client:
        assert client("GET", f"/v2/a/manifests/{kept}").status == 200
        assert client("GET", f"/v2/a/manifests/{loose}").status == 404
        assert client("GET", f"/v2/a/blobs/{digests.of(b'layer')}").status == 200
        assert client("GET", "/v2/_catalog").json["repositories"] == ["a"]
    assert len(list((tmp_path / "blobs/sha256").iterdir())) == 3


def test_who_pushes_while_others_delete_has_what_was_pushed(client: Client) -> None:
    """The content is one file: it must not go with another repository's last row."""
    data = b"shared" * 1000
    digest = digests.of(data)
    lost: list[str] = []

    def work(repository: str) -> None:
        for _ in range(30):
            client.push_blob(repository, data)
            if client("GET", f"/v2/{repository}/blobs/{digest}").body != data:
                lost.append(repository)
            client("DELETE", f"/v2/{repository}/blobs/{digest}")

    threads = [threading.Thread(target=work, args=(f"r{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not lost


# ── Who may, and what ──


def test_only_who_has_the_password_comes_in(tmp_path: Path) -> None:
    file = tmp_path / "htpasswd"
    file.write_text(SAILOR)
    with serving(tmp_path / "registry", htpasswd=str(file)) as client:
        stranger = client("GET", "/v2/")
        assert (stranger.status, stranger.code) == (401, "UNAUTHORIZED")
        assert stranger.headers["www-authenticate"] == 'Basic realm="Boxship registry"'
        for wrong in ("Basic c2FpbG9yOm9hcg==", "Basic !!", "Bearer x", "Basic bm9ib2R5OmFuY2hvcg=="):
            assert client("GET", "/v2/", Authorization=wrong).status == 401
        for _ in range(3):
            assert client("GET", "/v2/", Authorization=BASIC).status == 200
        file.write_text("# nobody\n")
        os.utime(file, (1, 1))
        assert client("GET", "/v2/", Authorization=BASIC).status == 401


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("sailor", "line 1 is not USER:HASH"), ("#\nsailor:{SHA}x", "line 2: the password of 'sailor' is not hashed")],
)
def test_an_htpasswd_file_that_is_none(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        parse(text.encode(), "htpasswd")
    with pytest.raises(InvalidArgument, match="cannot read"):
        Passwords(str(tmp_path / "nosuch"))


def test_a_read_only_registry(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        digest = push(client, "a", "v1")
    with serving(tmp_path, limits=Limits(read_only=True)) as client:
        assert client("GET", "/v2/a/manifests/v1").status == 200
        for method, path in (
            ("POST", "/v2/a/blobs/uploads/"), ("PUT", "/v2/a/manifests/v2"), ("DELETE", f"/v2/a/manifests/{digest}")
        ):  # fmt: skip
            refused = client(method, path)
            assert (refused.status, refused.code) == (405, "UNSUPPORTED")


def test_a_blob_that_is_too_large_is_refused_before_it_is_there(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(upload=10)) as client:
        place = start(client)
        assert client("PATCH", place, b"01234").status == 202
        for body in (b"567890", bytes(1 << 20)):
            refused = client("PATCH", place, body)
            assert (refused.status, refused.code) == (413, "SIZE_INVALID")
        assert client("PUT", f"{place}?digest={digests.of(b'0123456789')}", b"56789").status == 201


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "UNSUPPORTED"),
        ("GET", "/v2/a/nosuch/x", 404, "UNSUPPORTED"),
        ("GET", "/v2/A/manifests/x", 400, "NAME_INVALID"),
        ("GET", "/v2/a/../manifests/x", 400, "NAME_INVALID"),
        ("GET", "/v2/a%2f%2e%2e/manifests/x", 400, "NAME_INVALID"),
        ("GET", "/v2/" + "a" * 256 + "/manifests/x", 400, "NAME_INVALID"),
        ("GET", "/v2/a/manifests/.x", 400, "MANIFEST_INVALID"),
        ("GET", "/v2/a/manifests/" + "x" * 129, 400, "MANIFEST_INVALID"),
        ("GET", "/v2/a/manifests/sha256:x", 400, "DIGEST_INVALID"),
        ("GET", "/v2/a/blobs/sha256:..%2f..%2fetc", 404, "UNSUPPORTED"),
        ("GET", "/v2/a/blobs/md5:0000", 400, "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?digest=sha256:x", 400, "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", 400, "DIGEST_INVALID"),
        ("POST", f"/v2/a/blobs/uploads/?mount={ABSENT}&from=A", 400, "NAME_INVALID"),
        ("PATCH", "/v2/a/blobs/uploads/..", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("DELETE", "/v2/a/tags/list", 405, "UNSUPPORTED"),
        ("POST", "/v2/_catalog", 405, "UNSUPPORTED"),
        ("PUT", "/v2/a/manifests/x", 400, "MANIFEST_INVALID"),
    ],
)
def test_refusals(client: Client, method: str, path: str, status: int, code: str) -> None:
    refused = client(method, path)
    assert (refused.status, refused.code) == (status, code)


# ── Processes ──


@contextmanager
def program(root: Path) -> Iterator[tuple[subprocess.Popen[bytes], Client]]:
    """The registry as a process, which is gone when the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [sys.executable, "-m", "boxship.registry", "serve", str(root), "--listen", f"127.0.0.1:{port}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert b"serving" in line, line
            yield process, Client(port)
        finally:
            process.kill()


def test_killed_at_any_moment_it_has_whole_content_only(tmp_path: Path) -> None:
    data = {number: os.urandom(1 << 16) + bytes(number) for number in range(60)}
    told: set[str] = set()

    def pushing(client: Client) -> None:
        try:
            for number in list(data):
                told.add(client.push_blob("a", data[number]).digest)
                push(client, "a", f"t{number}", data[number])
        except (OSError, AssertionError):
            pass  # killed

    place = ""
    for pause in (0.02, 0.08, 0.15):
        with program(tmp_path) as (process, client):
            if place:  # an upload of a server that is no more goes on
                assert client("GET", place).headers["range"] == "0-3"
                done = client("PUT", f"{place}?digest={digests.of(b'0123456')}", b"456")
                assert done.status == 201
                client("DELETE", done.headers["location"])
            place = start(client)
            assert client("PATCH", place, b"0123").status == 202
            thread = threading.Thread(target=pushing, args=(client,))
            thread.start()
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            process.wait()
            thread.join()
    with serving(tmp_path) as client:
        for digest in told:
            assert digests.of(client("GET", f"/v2/a/blobs/{digest}").body) == digest
        for tag in client("GET", "/v2/a/tags/list").json["tags"]:  # type: ignore[attr-defined]
            manifest = client("GET", f"/v2/a/manifests/{tag}")
            assert digests.of(manifest.body) == manifest.headers["docker-content-digest"]
            for layer in manifest.json["layers"]:  # type: ignore[attr-defined]
                found = client("GET", f"/v2/a/blobs/{layer['digest']}").body
                assert hashlib.sha256(found).hexdigest() == layer["digest"][7:]
    registry = Registry(str(tmp_path))
    assert all(registry.metadata.owned(blob.digest) for blob in registry.store.walk())
    registry.close()


def test_a_large_blob_leaves_memory_flat_and_the_loop_free(tmp_path: Path) -> None:
    with program(tmp_path) as (process, client):
        size, piece = 64 << 20, bytes(1 << 20)
        digest = "sha256:" + hashlib.sha256(bytes(size)).hexdigest()
        place = start(client)
        answers = 0
        running = threading.Event()

        def watch() -> None:
            nonlocal answers
            while not running.is_set():
                assert client("GET", "/v2/").status == 200
                answers += 1

        watching = threading.Thread(target=watch)
        watching.start()
        with socket.create_connection(("127.0.0.1", client.port)) as raw:
            raw.sendall(f"PUT {place}?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
            for _ in range(64):
                raw.sendall(piece)
            assert b"201" in raw.recv(4096)
            raw.sendall(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            came = 0
            while came < size:
                came += len(raw.recv(1 << 20))
        running.set()
        watching.join()
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0])
        assert peak < 100_000, f"{peak} kB for a blob of 64 MiB"
        assert answers > 10, "others were answered meanwhile"
        process.terminate()
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        ([], 2, ""),
        (["nosuch"], 2, "'nosuch' is not one of serve, gc"),
        (["serve"], 2, "serve wants exactly one directory, got 0"),
        (["serve", "{}", "--nosuch"], 2, "unknown flag: --nosuch"),
        (["serve", "{}", "--max-upload", "much"], 2, "--max-upload 'much' is not a size"),
        (["serve", "{}", "--tls-key", "x"], 2, "--tls-key needs --tls-cert"),
        (["serve", "{}", "--gc-untagged"], 2, "need --gc-every"),
        (["serve", "{}", "--gc-every", "often"], 2, "--gc-every 'often' is not a time"),
        (["serve", "{}", "--gc-every", "1h", "--gc-older-than", "9m"], 2, "--gc-older-than 10m"),
        (["serve", "{}", "--anonymous-pull"], 2, "--anonymous-pull needs --htpasswd"),
        (["serve", "{}", "--log-level", "loud"], 2, "is not one of debug"),
        (["serve", "{}", "--listen", "127.0.0.1:http"], 1, "'http' is not a port"),
        (["serve", "{}", "--tls-cert", "/nosuch"], 1, "cannot use the TLS certificate /nosuch"),
        (["serve", "{}", "--tls-cert", __file__], 1, "cannot use the TLS certificate"),
        (["serve", "{}", "--htpasswd", "/nosuch"], 1, "cannot read /nosuch: No such file"),
        (["serve", "/dev/null"], 1, "cannot use /dev/null as a registry: "),
        (["gc", "{}"], 1, "is not a registry"),
        (["gc", "{}", "--older-than", "soon"], 2, "--older-than 'soon' is not a time"),
    ],
)
def test_wrong_command_lines_are_one_line(
    words: list[str], code: int, complaint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(tmp_path) for word in words]) == code
    said = capfd.readouterr().err
    assert complaint in said
    assert "Traceback" not in said


@pytest.mark.parametrize("damage", ["garbage", "a directory", "another database"])
def test_a_database_that_is_none(damage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "registry.db"
    if damage == "garbage":
        path.write_bytes(b"garbage " * 1000)
    elif damage == "a directory":
        path.mkdir()
    else:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE blobs (x)")
        other.close()
    assert main(["serve", str(tmp_path), "--listen", "127.0.0.1:0"]) == 1
    said = capfd.readouterr().err
    assert "registry.db" in said
    assert "Traceback" not in said


def test_a_port_that_is_taken(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["serve", str(tmp_path), "--listen", address]) == 1
    assert f"listen on tcp://{address}: Address already in use" in capfd.readouterr().err


def test_gc_says_what_it_removed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path) as client:
        client.push_blob("a", b"12345")
    for words, said in ((["--dry-run"], "would remove"), ([], "removed")):
        assert main(["gc", str(tmp_path), "--older-than", "0s", *words]) == 0
        assert capfd.readouterr().out == f"{said} 0 manifests and 1 blobs, 5 bytes\n"
