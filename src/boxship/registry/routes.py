"""The distribution-spec's endpoints: one table, and a method for each.

``/v2/<name>/...``: names have slashes, so the words after the name find the route, longest first.
Handlers decide; what blocks runs in the pool (`_run`), also while bytes come (`_receive`) and go (`_parts`), a piece
at a time, so that memory stays flat and the loop free, whatever the size of a blob.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, TypeVar
from urllib.parse import urlencode

from boxship.http.headers import number
from boxship.http.messages import Request, Response, encode_json, json_response
from boxship.image.content import Writer
from boxship.oci import digest as digests
from boxship.oci import image as oci

from . import names, ranges
from .anonymous import READING, TOKEN_PATH, AnonymousPull, Asked
from .auth import Passwords
from .collect import Collected, collect
from .errors import SpecError
from .metadata import Manifest
from .registry import UPLOAD_AGE, Registry
from .uploads import Session, Uploads, unknown

PIECE = 1 << 20
"""Bytes that go through a thread at once."""
PAGE = 1000
"""Names in one answer when the client does not say how many."""
TAG_LIMIT = 100
UPLOAD_IDLE = 600.0
"""Seconds after which an upload that nobody continues is closed; it can be continued until UPLOAD_AGE."""
THREADS = 16
MANIFEST_LIMIT = oci.DOCUMENT_LIMIT
OCTETS = "application/octet-stream"

T = TypeVar("T")
Handler = Callable[["Call"], Awaitable[Response | None]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a registry lets in: bytes of one blob (0: any), nothing at all with ``read_only``."""

    upload: int = 0
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose path was understood: the repository, and what stands after the route's words."""

    request: Request
    repository: str
    rest: str


class Routes:
    """The API of one registry; a `boxship.http.protocol.Handler`. Close it when nothing is served any more."""

    def __init__(
        self, registry: Registry, limits: Limits, admission: Passwords | AnonymousPull | None = None
    ) -> None:
        self._registry = registry
        self._uploads = Uploads(registry.store)
        self._limits = limits
        self._admission = admission
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="registry")
        # (methods, what follows the name, handler); {} is the rest
        self._table: list[tuple[str, re.Pattern[str], Handler]] = [
            (method, re.compile(r"/v2/(?P<name>.+)" + words.replace("{}", "(?P<rest>[^/]*)")), handler)
            for method, words, handler in (
                ("POST", "/blobs/uploads/?", self._start_upload),
                ("GET HEAD", "/blobs/uploads/{}", self._upload_status),
                ("PATCH", "/blobs/uploads/{}", self._upload_chunk),
                ("PUT", "/blobs/uploads/{}", self._end_upload),
                ("DELETE", "/blobs/uploads/{}", self._cancel_upload),
                ("GET HEAD", "/blobs/{}", self._get_blob),
                ("DELETE", "/blobs/{}", self._delete_blob),
                ("GET HEAD", "/manifests/{}", self._get_manifest),
                ("PUT", "/manifests/{}", self._put_manifest),
                ("DELETE", "/manifests/{}", self._delete_manifest),
                ("GET HEAD", "/tags/list", self._tags),
                ("GET HEAD", "/referrers/{}", self._referrers),
            )
        ]

    async def tidy(self) -> None:
        """What time does to uploads and to the log of the metadata: to be called now and then."""
        self._uploads.rest(UPLOAD_IDLE)
        await self._run(self._registry.store.expire, UPLOAD_AGE)
        await self._run(self._registry.metadata.sync)  # what asking (HEAD) wrote is folded in, pushes or not

    async def collect(self, age: float, untagged: bool) -> Collected:
        """See `boxship.registry.collect`; requests are answered meanwhile."""
        return await self._run(partial(collect, self._registry, age=age, untagged=untagged))

    def close(self) -> None:
        self._uploads.close()
        self._pool.shutdown()

    async def __call__(self, request: Request) -> Response | None:
        await self._admit(request)
        if request.path in ("/v2", "/v2/"):
            return json_response({})
        if request.path == TOKEN_PATH and isinstance(self._admission, AnonymousPull) and request.method in READING:
            return json_response(await self._run(self._admission.token, _asked(request)))
        if request.path == "/v2/_catalog":
            return await self._catalog(request)
        others = set()
        for methods, pattern, handler in self._table:
            match = pattern.fullmatch(request.path)
            if match is None:
                continue
            if request.method in methods.split():
                found = match.groupdict()
                return await handler(Call(request, names.repository(found["name"]), found.get("rest") or ""))
            others.update(methods.split())
        if others:
            raise SpecError(
                "UNSUPPORTED", f"{request.method} is not a method of {request.path}",
                headers={"Allow": ", ".join(sorted(others))},
            )  # fmt: skip
        raise SpecError("UNSUPPORTED", f"there is nothing at {request.path[:255]}", status=404)

    async def _admit(self, request: Request) -> None:
        """Raises SpecError: who it is comes first, so that a stranger learns nothing."""
        match self._admission:
            case Passwords():
                await self._run(self._admission.check, request.headers.get("authorization", ""))
            case AnonymousPull():
                await self._run(self._admission.admit, _asked(request))
        if self._limits.read_only and request.method not in READING:
            raise SpecError("UNSUPPORTED", "this registry is read-only")

    # ── Blobs ──

    async def _get_blob(self, call: Call) -> Response | None:
        digest = names.digest(call.rest)
        request = call.request
        headers = {"Docker-Content-Digest": digest, "Etag": f'"{digest}"', "Accept-Ranges": "bytes"}
        # Content never changes: once somebody has it, it is good for ever.
        headers["Cache-Control"] = "max-age=31536000, immutable"
        if request.method == "HEAD":
            size = await self._run(self._registry.blob_size, call.repository, digest)
            return Response(200, b"", OCTETS, {**headers, "Content-Length": str(size)})
        blob, size = await self._run(self._registry.open_blob, call.repository, digest)
        with blob:
            if _matches(request.headers.get("if-none-match", ""), digest):
                return Response(304, headers=headers)
            first, count, status = 0, size, 200
            same = request.headers.get("if-range", headers["Etag"]) == headers["Etag"]
            if same and (part := ranges.wanted(request.headers.get("range", ""), size)) is not None:
                first, count = part
                status = 206
                headers["Content-Range"] = f"bytes {first}-{first + count - 1}/{size}"
            headers |= {"Content-Type": OCTETS, "Content-Length": str(count)}
            await request.send_parts(status, headers, self._parts(blob, first, count))
        return None

    async def _parts(self, blob: BinaryIO, first: int, count: int) -> AsyncIterator[bytes]:
        blob.seek(first)
        while count:
            piece = await self._run(blob.read, min(PIECE, count))
            if not piece:
                return  # cut by hand: the length that was promised tells the client
            count -= len(piece)
            yield piece

    async def _delete_blob(self, call: Call) -> Response:
        await self._run(self._registry.delete_blob, call.repository, names.digest(call.rest))
        return Response(202)

    # ── Uploads ──

    async def _start_upload(self, call: Call) -> Response:
        query = call.request.query
        if "mount" in query:
            digest = names.digest(query["mount"])
            source = query.get("from", "")
            if source:
                names.repository(source)
            if await self._run(self._registry.mount, call.repository, digest, source):
                return _created("blobs", call.repository, digest)
        algorithm = query.get("digest-algorithm", "")
        if algorithm and algorithm not in digests.ALGORITHMS:
            raise SpecError(
                "DIGEST_INVALID", f"unsupported digest algorithm {algorithm[:32]!r}",
                remedy=f"one of {', '.join(digests.ALGORITHMS)}",
            )  # fmt: skip
        wanted = names.digest(query["digest"]) if "digest" in query else None
        if wanted is not None:
            algorithm = digests.algorithm(wanted)
        session = await self._run(self._uploads.start, call.repository, algorithm or "sha256")
        if wanted is None:
            return Response(202, headers=session.headers())
        try:
            async with session.lock:
                await self._receive(call.request, session, None)
                await self._run(self._registry.add_blob, call.repository, session.writer, wanted)
        finally:
            self._uploads.end(session)
        return _created("blobs", call.repository, wanted)

    async def _upload_status(self, call: Call) -> Response:
        session = await self._run(self._uploads.find, call.repository, call.rest)
        return Response(204, headers=session.headers())

    async def _upload_chunk(self, call: Call) -> Response:
        session = await self._session(call)
        async with session.lock:
            await self._take_chunk(call, session)
            return Response(202, headers=session.headers())

    async def _end_upload(self, call: Call) -> Response:
        session = await self._session(call)
        if "digest" not in call.request.query:
            raise SpecError("DIGEST_INVALID", "an upload ends with ?digest=ALGORITHM:HEX")
        digest = names.digest(call.request.query["digest"])
        async with session.lock:
            await self._take_chunk(call, session)
            try:
                await self._run(self._registry.add_blob, call.repository, session.writer, digest)
            finally:
                self._uploads.end(session)
        return _created("blobs", call.repository, digest)

    async def _cancel_upload(self, call: Call) -> Response:
        session = await self._session(call)
        async with session.lock:
            await self._run(self._uploads.end, session)
        return Response(204)

    async def _session(self, call: Call) -> Session:
        return await self._run(self._uploads.find, call.repository, call.rest)

    async def _take_chunk(self, call: Call, session: Session) -> None:
        """The body into the session, whose lock is held; nothing of it stays when it is not what its headers say."""
        if session.ended:
            raise unknown(session.repository, session.id)  # while this request waited
        headers = call.request.headers
        said = ranges.sent(headers.get("content-range", ""), headers.get("content-length", ""))
        if said is not None:
            session.expect(said[0])
        await self._receive(call.request, session, said[1] if said else None)

    async def _receive(self, request: Request, session: Session, count: int | None) -> None:
        """The body, as it comes. What the connection broke off stays, for the client to go on from."""
        writer, before = session.writer, session.offset
        self._fits(before + max(number(request.headers.get("content-length", "")), 0))
        waiting: list[bytes] = []
        size = 0
        async for part in request.body():
            waiting.append(part)
            size += len(part)
            if size >= PIECE:
                await self._write(writer, waiting)
                size = 0
        await self._write(writer, waiting)
        if count is not None and writer.offset != before + count:
            came = writer.offset - before
            await self._run(writer.truncate, before)
            raise SpecError("SIZE_INVALID", f"the chunk has {came} bytes, its Content-Range says {count}")

    async def _write(self, writer: Writer, waiting: list[bytes]) -> None:
        self._fits(writer.offset + sum(map(len, waiting)))
        await self._run(writer.write, b"".join(waiting))
        waiting.clear()

    def _fits(self, size: int) -> None:
        if self._limits.upload and size > self._limits.upload:
            raise SpecError("SIZE_INVALID", f"a blob may have {self._limits.upload} bytes here", status=413)

    # ── Manifests ──

    async def _get_manifest(self, call: Call) -> Response:
        found, data = await self._run(
            partial(self._registry.manifest, touch=call.request.method == "HEAD"), call.repository,
            names.reference(call.rest),
        )  # fmt: skip
        headers = {"Docker-Content-Digest": found.digest, "Etag": f'"{found.digest}"'}
        if _matches(call.request.headers.get("if-none-match", ""), found.digest):
            return Response(304, headers=headers)
        return Response(200, data, found.media_type, headers)

    async def _put_manifest(self, call: Call) -> Response:
        request = call.request
        reference = names.reference(call.rest)
        tags = [names.tag(tag) for tag in request.query_lists.get("tag", [])]
        if len(tags) > TAG_LIMIT:
            raise SpecError("MANIFEST_INVALID", f"{len(tags)} tags at once, {TAG_LIMIT} are taken", status=414)
        if ":" not in reference:
            tags.insert(0, reference)
        data = await self._manifest_body(request)
        named = reference if ":" in reference else request.query.get("digest", "")
        digest = names.digest(named) if named else digests.of(data)
        manifest = await self._run(
            self._registry.put_manifest, call.repository, data, request.headers.get("content-type", ""), digest, tags,
            _precondition(request),
        )  # fmt: skip
        response = _created("manifests", call.repository, digest)
        if manifest.subject:
            response.headers["OCI-Subject"] = manifest.subject
        if tags and ":" in reference:
            response.headers["OCI-Tag"] = ", ".join(tags)
        return response

    async def _manifest_body(self, request: Request) -> bytes:
        too_large = SpecError("SIZE_INVALID", f"a manifest may have {MANIFEST_LIMIT} bytes", status=413)
        if number(request.headers.get("content-length", "")) > MANIFEST_LIMIT:
            raise too_large
        data = bytearray()
        async for part in request.body():
            data += part
            if len(data) > MANIFEST_LIMIT:
                raise too_large
        return bytes(data)

    async def _delete_manifest(self, call: Call) -> Response:
        await self._run(self._registry.delete, call.repository, names.reference(call.rest))
        return Response(202)

    # ── Lists ──

    async def _tags(self, call: Call) -> Response:
        def page(last: str, limit: int) -> list[str]:
            return self._registry.tags(call.repository, last, limit)

        tags, headers = await self._page(call.request, page)
        return _list({"name": call.repository, "tags": tags}, headers)

    async def _catalog(self, request: Request) -> Response:
        if request.method not in READING:
            raise SpecError("UNSUPPORTED", f"{request.method} is not a method of {request.path}")
        found, headers = await self._page(request, self._registry.metadata.repositories)
        return _list({"repositories": found}, headers)

    async def _page(
        self, request: Request, page: Callable[[str, int], list[str]]
    ) -> tuple[list[str], dict[str, str]]:
        """``n`` names after ``last``, and the Link to the next page when there is one (RFC 8288)."""
        text = request.query.get("n", "")
        wanted = min(number(text), PAGE) if text else PAGE
        if wanted < 0:
            raise SpecError("UNSUPPORTED", f"n={text[:32]!r} is not a number of names", status=400)
        found = await self._run(page, request.query.get("last", ""), wanted + 1)
        if len(found) <= wanted or not wanted:
            return found[:wanted], {}
        query = urlencode({"n": wanted, "last": found[wanted - 1]})
        return found[:wanted], {"Link": f'<{request.path}?{query}>; rel="next"'}

    async def _referrers(self, call: Call) -> Response:
        digest = names.digest(call.rest)
        query = call.request.query
        kind = query.get("artifactType", "")
        found = await self._run(
            self._registry.metadata.referrers, call.repository, digest, kind, query.get("last", "")
        )
        headers = {"OCI-Filters-Applied": "artifactType"} if kind else {}
        entries: list[bytes] = []
        size = 0
        for manifest in found:
            entry = encode_json(_descriptor(manifest))
            size += len(entry) + 1
            if size > MANIFEST_LIMIT - PAGE and entries:  # clients read an index of that size, not more
                more = {"last": found[len(entries) - 1].digest} | ({"artifactType": kind} if kind else {})
                headers["Link"] = f'<{call.request.path}?{urlencode(more)}>; rel="next"'
                break
            entries.append(entry)
        kind_of = oci.MEDIA_INDEX.encode()
        body = b'{"schemaVersion":2,"mediaType":"%b","manifests":[%b]}' % (kind_of, b",".join(entries))
        return Response(200, body, oci.MEDIA_INDEX, headers)

    # ── Threads ──

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        """In a thread. Whoever is cancelled waits for it first: what it works on is not to be touched meanwhile."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise


def _asked(request: Request) -> Asked:
    headers = request.headers
    return Asked(
        request.method, request.path, headers.get("authorization", ""), headers.get("host", ""),
        headers.get("x-forwarded-proto", ""),
    )  # fmt: skip


def _created(kind: str, repository: str, digest: str) -> Response:
    return Response(
        201, headers={"Location": f"/v2/{repository}/{kind}/{digest}", "Docker-Content-Digest": digest}
    )  # fmt: skip


def _list(document: dict[str, object], headers: dict[str, str]) -> Response:
    response = json_response(document)
    response.headers.update(headers)
    return response


def _descriptor(manifest: Manifest) -> dict[str, object]:
    found: dict[str, object] = {
        "mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size,
    }  # fmt: skip
    if manifest.artifact_type:
        found["artifactType"] = manifest.artifact_type
    if manifest.annotations:
        found["annotations"] = manifest.annotations
    return found


def _matches(header: str, digest: str) -> bool:
    """Whether an If-None-Match or If-Match names this content; clients send the digest with and without quotes."""
    wanted = [one.strip().removeprefix("W/").strip('"') for one in header.split(",")]
    return "*" in wanted or digest in wanted


def _precondition(request: Request) -> Callable[[Manifest | None], None]:
    """If-Match and If-None-Match of a push: two clients that change one tag do not lose each other's work."""
    match, none = request.headers.get("if-match", ""), request.headers.get("if-none-match", "")

    def check(current: Manifest | None) -> None:
        digest = current.digest if current else ""
        if (match and not (current and _matches(match, digest))) or (none and current and _matches(none, digest)):
            raise SpecError("DENIED", f"it is {digest or 'not there'} now", status=412)

    return check
