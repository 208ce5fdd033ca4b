"""A registry in memory, on loopback: what a test of clients needs of the distribution-spec, and what it was asked."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from boxship.oci import digest as digests


class FakeRegistry:
    """``blobs`` by repository and digest, ``manifests`` by repository and reference; ``asked`` has "METHOD path"."""

    def __init__(self, domain: str, password: str) -> None:
        self.domain = domain
        self.password = password
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, tuple[bytes, str]]] = {}
        self.asked: list[str] = []
        self.agents: set[str] = set()
        self.broken = 0
        """So many requests are answered by 503 first."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: FakeRegistry

    def log_message(self, format: str, *arguments: object) -> None:
        """Tests look at ``asked``."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str, message: str, **headers: str) -> None:
        self._answer(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode(), **headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _handle(self) -> None:
        registry, body = self.registry, self._body()
        registry.asked.append(f"{self.command} {self.path}")
        registry.agents.add(self.headers.get("User-Agent", ""))
        if registry.broken:
            registry.broken -= 1
            return self._error(503, "UNAVAILABLE", "later")
        if registry.password:
            expected = "Basic " + base64.b64encode(f"sailor:{registry.password}".encode()).decode()
            if self.headers.get("Authorization") != expected:
                challenge = 'Basic realm="test"'
                return self._error(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate=challenge)
        url = urlsplit(self.path)
        path = url.path.removeprefix("/v2/")
        if not path:
            return self._answer(200, b"{}")
        for kind in ("/manifests/", "/blobs/uploads/", "/blobs/", "/tags/"):
            repository, found, rest = path.partition(kind)
            if found:
                handler = {"/manifests/": self._manifest, "/blobs/uploads/": self._upload, "/blobs/": self._blob}
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                return handler.get(kind, self._tags)(repository, rest, query, body)
        return self._error(404, "NAME_UNKNOWN", "no such thing")

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _handle

    def _tags(self, repository: str, rest: str, query: dict[str, str], body: bytes) -> None:
        if repository not in self.registry.manifests:
            return self._error(404, "NAME_UNKNOWN", "repository name not known to registry")
        tags = sorted(one for one in self.registry.manifests[repository] if ":" not in one)
        return self._answer(200, json.dumps({"name": repository, "tags": tags}).encode())

    def _manifest(self, repository: str, reference: str, query: dict[str, str], body: bytes) -> None:
        there = self.registry.manifests.setdefault(repository, {})
        if self.command == "PUT":
            digest = digests.of(body)
            there[reference] = there[digest] = (body, self.headers["Content-Type"])
            return self._answer(201, Docker_Content_Digest=digest)
        if reference not in there:
            return self._error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        data, media_type = there[reference]
        if self.command == "DELETE":
            for name in [name for name, (other, _) in there.items() if other == data]:
                del there[name]
            return self._answer(202)
        return self._answer(200, data, Content_Type=media_type, Docker_Content_Digest=digests.of(data))

    def _blob(self, repository: str, digest: str, query: dict[str, str], body: bytes) -> None:
        data = self.registry.blobs.get(repository, {}).get(digest)
        if data is None:
            return self._error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return self._answer(200, data)

    def _upload(self, repository: str, rest: str, query: dict[str, str], body: bytes) -> None:
        blobs = self.registry.blobs
        here = blobs.setdefault(repository, {})
        session = rest or f"session{len(self.registry.asked)}"
        location = f"/v2/{repository}/blobs/uploads/{session}"
        if self.command == "POST":
            mounted = blobs.get(query.get("from", ""), {}).get(query.get("mount", ""))
            if mounted is None:
                return self._answer(202, Location=location)
            here[query["mount"]] = mounted
            return self._answer(201)
        if self.command == "PATCH":
            here[rest] = here.pop(rest, b"") + body
            return self._answer(202, Location=location)
        if self.command == "PUT":
            data = here.pop(rest, b"") + body
            if digests.of(data) != query["digest"]:
                return self._error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            here[query["digest"]] = data
            return self._answer(201)
        return self._answer(204)


@contextmanager
def fake_registry(password: str = "") -> Iterator[FakeRegistry]:
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    registry = handler.registry = FakeRegistry(f"127.0.0.1:{server.server_address[1]}", password)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
