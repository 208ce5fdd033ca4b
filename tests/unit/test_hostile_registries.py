"""Registries that lie, break off, or lead astray: one clear error each, and nothing is left in the store.

The server is a real one on loopback whose answers a test scripts; those that only break now and then must work.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from boxship.errors import (
    BoxshipError,
    DataLoss,
    InvalidArgument,
    NotFound,
    PeerError,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from boxship.image.content import ContentStore
from boxship.image.registry import session as sessions
from boxship.image.registry.client import Repository
from boxship.image.registry.credentials import Credential
from boxship.image.registry.session import _challenges
from boxship.image.registry.transfer import pull
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci import reference as references

LAYER = b"layer " * 20_000
CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digests.of(LAYER)]}}
).encode()


def manifest(**changes: Any) -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": oci.MEDIA_MANIFEST,
        "config": {"mediaType": oci.MEDIA_CONFIG, "digest": digests.of(CONFIG), "size": len(CONFIG)},
        "layers": [{"mediaType": oci.MEDIA_LAYER, "digest": digests.of(LAYER), "size": len(LAYER)}],
    }
    document.update(changes)
    return json.dumps(document).encode()


class Server:
    """Answers as a good registry would, but for the paths in ``answers``."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.content: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.authorization: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.asked.append(f"{self.command} {self.path}")
                server.authorization.append(self.headers.get("Authorization", ""))
                for part, answer in server.answers.items():
                    if part in self.path:
                        answer(self)
                        return
                name = self.path.rpartition("/")[2].partition("?")[0]
                say(self, server.content[name]) if name in server.content else say(self, b"{}", 404)

            do_HEAD = do_POST = do_PUT = do_PATCH = do_GET

            def log_message(self, *_: Any) -> None:
                """Tests print nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.domain = f"127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        for data in (CONFIG, LAYER):
            self.content[digests.of(data)] = data
        self.image(manifest())

    def image(self, data: bytes, tag: str = "v1") -> str:
        digest = digests.of(data)
        self.content[digest] = self.content[tag] = data
        return digest

    def repository(self, **options: Any) -> Repository:
        return Repository(references.parse(f"{self.domain}/a/b"), **options)


def say(handler: BaseHTTPRequestHandler, data: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(data)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(sessions, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(sessions, "LONGEST_PAUSE", 0.002)
    monkeypatch.setattr("boxship.image.registry.transfer.time.sleep", lambda _: None)
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path / "store"))


def refused(server: Server, store: ContentStore, kind: type[BoxshipError], words: str, tag: str = "v1") -> None:
    """A pull ends in this error, with one line, soon, and leaves nothing."""
    begin = time.monotonic()
    with pytest.raises(kind) as error:
        pull(server.repository(), tag, store)
    text = str(error.value)
    assert words in text
    assert "\n" not in text
    assert len(text) < 1000
    assert list(store.walk()) == []
    assert store.statuses() == []
    assert time.monotonic() - begin < 10


def test_the_good_one(server: Server, store: ContentStore) -> None:
    image = pull(server.repository(), "v1", store)
    assert {blob.digest for blob in store.walk()} == {digests.of(CONFIG), digests.of(LAYER), image.target.digest}


# ── Documents ──

DOCUMENTS: "dict[str, tuple[bytes, type[BoxshipError], str]]" = {
    "no JSON": (b"<html>not found</html>", InvalidArgument, "invalid manifest"),
    "cut short": (manifest()[:-20], InvalidArgument, "invalid manifest"),
    "a list": (b"[]", InvalidArgument, "invalid manifest"),
    "not UTF-8": (b'{"schemaVersion": 2, "\xff": 1}', InvalidArgument, "invalid manifest"),
    "deep": (b'{"layers":' + b"[" * 100_000 + b"]" * 100_000 + b"}", InvalidArgument, "invalid manifest"),
    "too large": (manifest(pad="x" * (5 << 20)), PeerError, "larger than"),
    "manifest and index": (manifest(manifests=[]), InvalidArgument, "both an index and a manifest"),
    "schema 1": (json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(), InvalidArgument, "schema 1"),
    "unknown media type": (manifest(mediaType="text/plain"), InvalidArgument, "unknown media type text/plain"),
    "layers of another type": (manifest(layers={}), InvalidArgument, "layers"),
    "no config": (b'{"schemaVersion": 2, "layers": []}', InvalidArgument, "config"),
    "a digest that climbs": (
        manifest(layers=[{"mediaType": oci.MEDIA_LAYER, "digest": "sha256:../../../etc/passwd", "size": 3}]),
        InvalidArgument, "invalid digest",
    ),
    "an unknown algorithm": (
        manifest(layers=[{"mediaType": oci.MEDIA_LAYER, "digest": "md5:" + "0" * 32, "size": 3}]),
        InvalidArgument, "md5",
    ),
    "a negative size": (
        manifest(layers=[{"mediaType": oci.MEDIA_LAYER, "digest": digests.of(LAYER), "size": -1}]),
        InvalidArgument, "layers[0].size",
    ),
    "a size that is a string": (
        manifest(layers=[{"mediaType": oci.MEDIA_LAYER, "digest": digests.of(LAYER), "size": "12"}]),
        InvalidArgument, "size",
    ),
    "two sizes": (
        manifest(
            layers=[{"mediaType": oci.MEDIA_LAYER, "digest": digests.of(LAYER), "size": size} for size in (1, 2)]
        ),
        InvalidArgument, "two sizes",
    ),
    "more layers than diff IDs": (
        manifest(layers=[{"mediaType": oci.MEDIA_LAYER, "digest": digests.of(LAYER), "size": len(LAYER)}] * 2),
        InvalidArgument, "diff IDs",
    ),
    "a blob that is not there": (
        manifest(layers=[{"mediaType": oci.MEDIA_LAYER, "digest": "sha256:" + "1" * 64, "size": 3}]),
        NotFound, "sha256:1111",
    ),
    "a config that is a layer": (
        manifest(config={"mediaType": oci.MEDIA_CONFIG, "digest": digests.of(LAYER), "size": len(LAYER)}),
        InvalidArgument, "image config",
    ),
    "an index for others": (
        json.dumps({
            "schemaVersion": 2, "mediaType": oci.MEDIA_INDEX,
            "manifests": [{"mediaType": oci.MEDIA_MANIFEST, "digest": "sha256:" + "2" * 64, "size": 2,
                           "platform": {"os": "plan9", "architecture": "mips"}}],
        }).encode(), NotFound, "plan9/mips",
    ),
    "an empty index": (b'{"schemaVersion": 2, "manifests": []}', NotFound, "no matching manifest"),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(server: Server, store: ContentStore, name: str) -> None:
    data, kind, words = DOCUMENTS[name]
    server.image(data)
    refused(server, store, kind, words)


def test_an_index_that_names_itself_without_end(server: Server, store: ContentStore) -> None:
    inner = manifest()
    for _ in range(8):
        digest = server.image(inner)
        inner = json.dumps({
            "schemaVersion": 2, "mediaType": oci.MEDIA_INDEX,
            "manifests": [{"mediaType": oci.MEDIA_INDEX, "digest": digest, "size": len(inner)}],
        }).encode()  # fmt: skip
    server.image(inner)
    refused(server, store, InvalidArgument, "nested too deep")


def test_a_manifest_of_another_digest(server: Server, store: ContentStore) -> None:
    digest = digests.of(b"what was asked for")
    server.content[digest] = manifest()
    refused(server, store, DataLoss, "expected", digest)
    server.answers["/manifests/v1"] = lambda h: say(h, manifest(), Docker_Content_Digest="sha256:" + "3" * 64)
    refused(server, store, DataLoss, "expected sha256:333")


# ── Blobs ──

BLOBS: "dict[str, tuple[Callable[[BaseHTTPRequestHandler], None], type[BoxshipError], str]]" = {
    "other bytes": (lambda h: say(h, LAYER[::-1]), DataLoss, "digest"),
    "too short": (lambda h: say(h, LAYER[:-1]), DataLoss, "manifest says"),
    "too long": (lambda h: say(h, LAYER + b"!"), DataLoss, "manifest says"),
    "too long, unsaid": (lambda h: _without_length(h, LAYER + b"!" * 1000), DataLoss, "longer"),
    "always cut": (lambda h: _cut(h, LAYER, 10), DataLoss, "ends after"),
    "gone": (lambda h: say(h, b"{}", 404), NotFound, "blob"),
    "forbidden": (
        lambda h: say(h, b'{"errors":[{"code":"DENIED","message":"no"}]}', 403), PermissionDenied, "DENIED: no",
    ),
    "broken": (lambda h: say(h, b"oops", 500), Unavailable, "answered 500"),
    "limited": (lambda h: say(h, b"{}", 429, Retry_After="1"), ResourceExhausted, "too many requests"),
    "teapot": (lambda h: say(h, b"short and stout", 418), PeerError, "418"),
    "to a file": (lambda h: say(h, b"", 307, Location="file:///etc/passwd"), PeerError, "no address of a web server"),
    "around and around": (lambda h: say(h, b"", 307, Location=h.path), PeerError, "more than 10 times"),
}  # fmt: skip


def _without_length(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(data)
    handler.close_connection = True


def _cut(handler: BaseHTTPRequestHandler, data: bytes, at: int) -> None:
    """Say the right length, send a part, close."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[:at])
    handler.wfile.flush()
    handler.close_connection = True


@pytest.mark.parametrize("name", BLOBS)
def test_blobs(server: Server, store: ContentStore, name: str) -> None:
    answer, kind, words = BLOBS[name]
    server.answers[f"/blobs/{digests.of(LAYER)}"] = answer
    refused(server, store, kind, words)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_is_taken_up_again(server: Server, store: ContentStore, ranges: bool) -> None:
    broken = 0

    def answer(handler: BaseHTTPRequestHandler) -> None:
        nonlocal broken
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        if broken < 3:
            broken += 1
            _cut(handler, LAYER[start if ranges else 0 :], 30_000 * broken) if not start or not ranges else _part(
                handler, start
            )
        elif ranges and start:
            say(handler, LAYER[start:], 206)
        else:
            say(handler, LAYER)

    def _part(handler: BaseHTTPRequestHandler, start: int) -> None:
        handler.send_response(206)
        handler.send_header("Content-Length", str(len(LAYER) - start))
        handler.end_headers()
        handler.wfile.write(LAYER[start : start + 1000])
        handler.close_connection = True

    server.answers[f"/blobs/{digests.of(LAYER)}"] = answer
    assert pull(server.repository(), "v1", store).target.digest == digests.of(manifest())
    assert broken == 3


def test_what_passes_is_waited_for(server: Server, store: ContentStore) -> None:
    left = [503, 429, 502]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        say(handler, b"{}", left.pop()) if left else say(handler, LAYER)

    server.answers[f"/blobs/{digests.of(LAYER)}"] = answer
    assert pull(server.repository(), "v1", store)
    assert left == []


# ── Tokens and redirects ──


def _challenge(server: Server, realm: str) -> None:
    header = f'Bearer realm="{realm}",service="test",scope="repository:a/b:pull"'
    server.answers["/v2/"] = lambda h: (
        say(h, manifest())
        if h.headers.get("Authorization") == "Bearer good"
        else say(h, b"{}", 401, WWW_Authenticate=header)
    )


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b"not JSON", PeerError, "no token"),
        (b"{}", PeerError, "no token"),
        (b'{"token": 7}', PeerError, "no token"),
        (b'{"token": "with\\nnewline"}', PeerError, "no token"),
        (b'{"token": "bad"}', Unauthenticated, "authentication required"),
        (b'{"token": "' + b"x" * (2 << 20) + b'"}', PeerError, "larger than"),
    ],
)
def test_tokens(server: Server, store: ContentStore, answer: bytes, kind: type[BoxshipError], words: str) -> None:
    server.answers["/token"] = lambda h: say(h, answer)
    _challenge(server, f"http://{server.domain}/token")
    refused(server, store, kind, words)


@pytest.mark.parametrize("realm", ["http://tokens.example/", "ftp://127.0.0.1/", "/relative", "", "https://"])
def test_a_realm_that_is_no_place_for_secrets(
    server: Server, store: ContentStore, realm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _challenge(server, realm)
    monkeypatch.setattr("boxship.image.registry.session.Session.endpoint", None, raising=False)
    refused(server, store, BoxshipError, "")
    assert not any("token" in line for line in server.asked)


def test_credentials_go_to_the_registry_only(server: Server, store: ContentStore) -> None:
    """Not to whom it redirects to, nor to a mirror."""
    other = Server()
    try:
        server.answers["/blobs/"] = lambda h: say(h, b"", 307, Location=f"http://{other.domain}{h.path}")
        server.answers["/manifests/"] = lambda h: (
            say(h, manifest())
            if h.headers.get("Authorization")
            else say(h, b"{}", 401, WWW_Authenticate='Basic realm="r"')
        )
        assert pull(server.repository(credential=Credential("name", "secret")), "v1", store)
        assert any(server.authorization)
        assert not any(other.authorization)
    finally:
        other.http.shutdown()
        other.http.server_close()


def test_endless_lists(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxship.image.registry.client.PAGES", 20)
    server.answers["/tags/list"] = lambda h: say(h, b'{"tags": ["a"]}', Link=f'<{h.path}>; rel="next"')
    with pytest.raises(PeerError, match="more than 20 pages"):
        server.repository().tags()
    server.answers["/tags/list"] = lambda h: say(h, b'{"tags": [1, 2]}')
    with pytest.raises(PeerError, match="no list of names"):
        server.repository().tags()


def test_an_upload_without_a_place(server: Server) -> None:
    server.answers["/uploads/"] = lambda h: say(h, b"", 202)
    server.answers["/blobs/sha256"] = lambda h: say(h, b"", 404)
    with pytest.raises(PeerError, match="does not say where"):
        server.repository().upload(digests.of(LAYER), len(LAYER), lambda _: iter([LAYER]))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Bearer realm="https://a/t",service="s"', [("bearer", {"realm": "https://a/t", "service": "s"})]),
        ('Basic realm="a, \\"b\\""', [("basic", {"realm": 'a, "b"'})]),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Bearer realm="open', [("bearer", {"realm": "open"})]),
        ("", []),
        ("=,=,=", []),
        ('"', [('"', {})]),
        ("a=" * 10_000, []),
    ],
)
def test_challenges(header: str, found: "list[tuple[str, dict[str, str]]]") -> None:
    assert _challenges(header) == found
