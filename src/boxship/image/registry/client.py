"""One repository of a registry: a method for each endpoint of the distribution-spec (its section "Endpoints").

A registry may have several addresses (mirrors, TLS and plain): the first that answers a question is asked from then
on.
Digests and sizes are verified as bytes pass; what does not fit its digest is never returned.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode, urljoin

import msgspec

from boxship.errors import (
    BoxshipError,
    DataLoss,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PeerError,
    Unauthenticated,
    Unavailable,
)
from boxship.http.client import address, speaks_tls, split
from boxship.http.headers import number
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci.digest import Digest
from boxship.oci.reference import Reference

from .credentials import Credential
from .hosts import Endpoint, Settings, endpoints
from .session import CONNECT, Response, Session, Unreachable, proxy_of

ACCEPT = ", ".join([oci.MEDIA_INDEX, oci.DOCKER_INDEX, oci.MEDIA_MANIFEST, oci.DOCKER_MANIFEST, "*/*;q=0.1"])
LIST_LIMIT = 8 << 20
PAGES = 1000

T = TypeVar("T")


class Keyring(Protocol):
    """What knows credentials: `boxship.image.registry.credentials.Credentials` is one."""

    def get(self, domain: str) -> "Credential | None": ...


class Blob:
    """A blob on its way: its size as the registry states it (-1: not stated) and its bytes. Close it."""

    def __init__(self, response: Response, offset: int) -> None:
        self._response = response
        length = number(response.headers.get("Content-Length", ""))
        self.size = length + offset if length >= 0 else -1

    def read(self, size: int = -1) -> bytes:
        return self._response.read(size)

    def close(self) -> None:
        self._response.close()


class Repository:
    """``reference`` names registry and repository; its tag and digest do not matter here."""

    def __init__(
        self,
        reference: Reference,
        *,
        settings: "Settings | None" = None,
        credential: "Credential | None" = None,
        credentials: "Keyring | None" = None,
        registry_token: str = "",
    ) -> None:
        self.reference = reference
        self.path = reference.path
        self._settings = settings or Settings()
        self._sessions: dict[str, Session] = {}
        self._chosen: dict[str, Session] = {}
        self._token = registry_token

        def known() -> "Credential | None":
            if credential is not None:
                return credential or None
            return credentials.get(reference.domain) if credentials is not None else None

        self._known = known

    # ── Manifests ──

    def manifest(self, reference: str) -> "tuple[oci.Descriptor, bytes]":
        """A manifest or index by tag or digest: its descriptor (whose media type is the document's own) and bytes.

        Raises NotFound, DataLoss (not what its digest says), InvalidArgument (no manifest that we know).
        """
        what = f"manifest {self._name(reference)}"

        def ask(session: Session) -> "tuple[bytes, str]":
            with session.request(
                "GET",
                self._url("manifests", reference),
                scope=self._scope("pull"),
                headers={"Accept": ACCEPT},
                what=what,
            ) as response:
                return response.all(oci.DOCUMENT_LIMIT, what), response.headers.get("Docker-Content-Digest", "")

        data, stated = self._ask("pull", ask)
        wanted = reference if ":" in reference else stated
        algorithm = "sha256"
        if wanted:
            algorithm = digests.algorithm(digests.parse(wanted))
        digest = digests.of(data, algorithm)
        if wanted and digest != wanted:
            raise DataLoss(f"{what} has digest {digest}, expected {wanted}")
        media_type = oci.document_media_type(data, what)
        return oci.Descriptor(media_type, digest, len(data)), data

    def head(self, reference: str) -> "oci.Descriptor | None":
        """What a tag or digest points at, without its bytes; None when the registry does not have it."""
        what = f"manifest {self._name(reference)}"

        def ask(session: Session) -> "oci.Descriptor | None":
            with session.request(
                "HEAD", self._url("manifests", reference), scope=self._scope("pull"), headers={"Accept": ACCEPT},
                expect=(200, 404), what=what,
            ) as response:  # fmt: skip
                if response.status == 404:
                    return None
                length = number(response.headers.get("Content-Length", ""))
                digest = response.headers.get("Docker-Content-Digest", "") or (reference if ":" in reference else "")
                media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            if not digest or length < 0:
                return self.manifest(reference)[0]  # it does not say so in a HEAD
            return oci.Descriptor(media_type, digests.parse(digest), length)

        return self._ask("resolve", ask)

    def put_manifest(self, reference: str, data: bytes, media_type: str) -> Digest:
        """Upload a manifest or index under a tag or its digest; says its digest as the registry computed it."""
        what = f"push manifest {self._name(reference)}"

        def ask(session: Session) -> str:
            with session.request(
                "PUT", self._url("manifests", reference), scope=self._scope("pull,push"), body=data,
                headers={"Content-Type": media_type}, expect=(201, 200, 202), what=what,
            ) as response:  # fmt: skip
                return response.headers.get("Docker-Content-Digest", "")

        stated = self._ask("push", ask)
        digest = digests.of(data)
        if stated and stated != digest and stated.startswith("sha256:"):
            raise DataLoss(f"{what}: the registry has {stated}, sent was {digest}")
        return digest

    def delete(self, kind: str, reference: str) -> None:
        """Delete one of ``kind`` (manifests, blobs); raises NotFound, InvalidArgument (deletion is switched off)."""
        what = f"delete {kind[:-1]} {self._name(reference)}"

        def ask(session: Session) -> None:
            session.request(
                "DELETE",
                self._url(kind, reference),
                scope=self._scope("delete,pull,push"),
                expect=(202, 200, 204),
                what=what,
            ).close()

        try:
            self._ask("push", ask)
        except PeerError as error:
            if "405" in error.cause:
                raise InvalidArgument(what, cause="this registry has deletion switched off") from error
            raise

    # ── Blobs ──

    def blob(self, digest: str, offset: int = 0) -> Blob:
        """A blob's bytes from ``offset``; nothing is verified here. Raises NotFound."""
        what = f"blob {self._name(digest)}"

        def ask(session: Session) -> Blob:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            response = session.request(
                "GET",
                self._url("blobs", digest),
                scope=self._scope("pull"),
                headers=headers,
                expect=(200, 206),
                what=what,
            )
            skip = offset if response.status == 200 else 0
            try:
                while skip:  # a registry without ranges sends it all
                    data = response.read(min(skip, 1 << 18))
                    if not data:
                        raise PeerError(f"{what} ends before byte {offset}")
                    skip -= len(data)
            except BaseException:
                response.close()
                raise
            return Blob(response, 0 if response.status == 200 else offset)

        return self._ask("pull", ask)

    def has_blob(self, digest: str) -> bool:
        def ask(session: Session) -> bool:
            with session.request(
                "HEAD", self._url("blobs", digest), scope=self._scope("pull,push"), expect=(200, 404),
                what=f"blob {self._name(digest)}",
            ) as response:  # fmt: skip
                return response.status == 200

        return self._ask("push", ask)

    def mount(self, digest: str, source: str) -> bool:
        """Have the registry link a blob of its repository ``source`` here; False when it will not."""

        def ask(session: Session) -> bool:
            query = urlencode({"mount": digest, "from": source})
            scope = self._scope("pull,push") + f" repository:{source}:pull"
            with session.request(
                "POST", f"/v2/{self.path}/blobs/uploads/?{query}", scope=scope, body=b"", expect=(201, 202),
                what=f"mount blob {digest} from {source}",
            ) as response:  # fmt: skip
                location = response.headers.get("Location", "")
                url = urljoin(response.url, location)
            if response.status == 201:
                return True
            if location:
                session.request("DELETE", url, scope=self._scope("pull,push"), expect=(204, 202, 404, 405)).close()
            return False

        return self._ask("push", ask)

    def upload(self, digest: str, size: int, source: "Callable[[int], Iterable[bytes]]", *, chunk: int = 0) -> None:
        """Upload a blob in one request, or in pieces of ``chunk`` bytes; ``source(offset)`` gives its bytes.

        Raises DataLoss when the registry computed another digest.
        """
        what = f"push blob {self._name(digest)}"
        scope = self._scope("pull,push")

        def ask(session: Session) -> None:
            with session.request(
                "POST", f"/v2/{self.path}/blobs/uploads/", scope=scope, body=b"", expect=(202,), what=what
            ) as response:
                url = self._location(response, what)
                least = number(response.headers.get("OCI-Chunk-Min-Length", ""))
            if chunk:
                url = self._upload_chunks(session, url, size, source, max(chunk, least), what)
                body: "bytes | Callable[[], Iterable[bytes]]" = b""
                headers = {"Content-Length": "0"}
            else:
                body = lambda: source(0)  # noqa: E731 - made again when the request is
                headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
            separator = "&" if "?" in url else "?"
            session.request(
                "PUT", f"{url}{separator}{urlencode({'digest': digest})}", scope=scope, body=body, headers=headers,
                expect=(201, 204), what=what, again=not chunk and size < (1 << 20),
            ).close()  # fmt: skip

        self._ask("push", ask)

    def upload_stream(self, source: "Iterable[bytes]", finish: "Callable[[], str]") -> None:
        """Upload bytes whose digest is known when they have passed: ``finish`` says it then.

        They are sent once, so what breaks is not taken up again. Raises DataLoss, Unavailable.
        """
        what = f"push a blob to {self.reference.familiar_name}"
        scope = self._scope("pull,push")

        def ask(session: Session) -> None:
            with session.request(
                "POST", f"/v2/{self.path}/blobs/uploads/", scope=scope, body=b"", expect=(202,), what=what
            ) as response:
                url = self._location(response, what)
            with session.request(
                "PATCH", url, scope=scope, body=lambda: source, expect=(202, 204), what=what, again=False,
                headers={"Content-Type": "application/octet-stream"},
            ) as response:  # fmt: skip
                url = self._location(response, what)
            separator = "&" if "?" in url else "?"
            session.request(
                "PUT", f"{url}{separator}{urlencode({'digest': finish()})}", scope=scope, body=b"",
                headers={"Content-Length": "0"}, expect=(201, 204), what=what, again=False,
            ).close()  # fmt: skip

        self._ask("push", ask)

    def _upload_chunks(
        self, session: Session, url: str, size: int, source: "Callable[[int], Iterable[bytes]]", chunk: int, what: str
    ) -> str:
        pieces = iter(source(0))
        rest, offset = b"", 0
        while offset < size:
            while len(rest) < chunk and (data := next(pieces, b"")):
                rest += data
            part, rest = rest[:chunk], rest[chunk:]
            if not part:
                raise DataLoss(f"{what} has {offset} bytes, expected {size}")
            headers = {
                "Content-Range": f"{offset}-{offset + len(part) - 1}",
                "Content-Length": str(len(part)),
                "Content-Type": "application/octet-stream",
            }
            with session.request(
                "PATCH", url, scope=self._scope("pull,push"), body=part, headers=headers, expect=(202, 204),
                what=what, again=False,
            ) as response:  # fmt: skip
                url = self._location(response, what)
            offset += len(part)
        return url

    @staticmethod
    def _location(response: Response, what: str) -> str:
        location = response.headers.get("Location", "")
        if not location:
            raise PeerError(what, cause="the registry does not say where to upload to")
        return urljoin(response.url, location)

    # ── Lists ──

    def tags(self) -> "list[str]":
        """All tags, in the registry's order. Raises NotFound."""
        return self._pages(
            f"/v2/{self.path}/tags/list", "tags", f"tags of {self.reference.name}", self._scope("pull")
        )

    def referrers(self, digest: str, artifact_type: str = "") -> "list[oci.Descriptor]":
        """Manifests whose subject is ``digest``; from the tag that older registries keep them under, if need be."""
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        what = f"referrers of {self._name(digest)}"

        def ask(session: Session) -> "bytes | None":
            with session.request(
                "GET",
                f"/v2/{self.path}/referrers/{digest}{query}",
                scope=self._scope("pull"),
                expect=(200, 404),
                what=what,
            ) as response:
                return response.all(oci.DOCUMENT_LIMIT, what) if response.status == 200 else None

        data = self._ask("pull", ask)
        if data is None:
            try:
                _, data = self.manifest(digest.replace(":", "-", 1))
            except NotFound:
                return []
        found = oci.decode(oci.Index, data, what).manifests or []
        return [one for one in found if not artifact_type or one.artifact_type == artifact_type]

    def _pages(self, path: str, key: str, what: str, scope: str) -> "list[str]":
        found: list[str] = []

        def ask(session: Session) -> None:
            url = session.endpoint.url + path
            for _ in range(PAGES):
                with session.request("GET", url, scope=scope, what=what) as response:
                    data = response.all(LIST_LIMIT, what)
                    link = response.headers.get("Link", "")
                    here = response.url
                found.extend(_names(data, key, what))
                if 'rel="next"' not in link or "<" not in link:
                    return
                url = urljoin(here, link.partition("<")[2].partition(">")[0])
            raise PeerError(what, cause=f"more than {PAGES} pages")

        self._ask("pull", ask)
        return found

    def ping(self) -> None:
        """Whether the registry takes us: raises Unauthenticated, Unavailable, PeerError."""

        def ask(session: Session) -> None:
            session.request("GET", "/v2/", scope="", what=f"ask {session.host}").close()

        self._ask("pull", ask)

    # ── Inside ──

    def _ask(self, capability: str, ask: "Callable[[Session], T]") -> T:
        """Ask the endpoint that answered before, or the first that does; mirrors may lack things."""
        chosen = self._chosen.get(capability)
        if chosen is not None and chosen.endpoint.own:
            return ask(chosen)
        wanted = endpoints(self.reference.domain, self._settings, capability)
        failure: BoxshipError | None = None
        for place, endpoint in enumerate(wanted):
            if _is_plain(endpoint, wanted[place + 1 :]):
                continue
            session = self._sessions.get(endpoint.url)
            if session is None:
                # A mirror is somebody else: it gets no credentials of the registry that it mirrors.
                known = self._known if endpoint.own else (lambda: None)
                token = self._token if endpoint.own else ""
                session = self._sessions[endpoint.url] = Session(
                    endpoint, known, registry_token=token, agent=self._settings.agent
                )
            last = place + 1 == len(wanted)
            try:
                answer = ask(session)
            except (Unavailable, NotFound, Unauthenticated) as error:
                # The registry's own answer counts; only when it cannot be reached is its next address tried.
                if last or (endpoint.own and not _unreachable(error)):
                    raise failure if failure is not None and _unreachable(error) else error from None
                failure = failure or (error if endpoint.own else None)
                continue
            self._chosen[capability] = session
            return answer
        raise Unavailable(f"no address of {self.reference.domain} may be asked to {capability}")

    def _url(self, kind: str, reference: str) -> str:
        return f"/v2/{self.path}/{kind}/{quote(reference, safe=':')}"

    def _scope(self, actions: str) -> str:
        return f"repository:{self.path}:{actions}"

    def _name(self, reference: str) -> str:
        separator = "@" if ":" in reference else ":"
        return f"{self.reference.familiar_name}{separator}{reference}"

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()


def _is_plain(endpoint: Endpoint, others: "list[Endpoint]") -> bool:
    """Whether this is an https address of a server that turns out to speak plain HTTP, which may be spoken to it.

    A greeting tells so in no time; loading a TLS library and failing takes as long as a small copy.
    """
    http = "http" + endpoint.url.removeprefix("https")
    if endpoint.plain or not any(one.url == http for one in others) or proxy_of(endpoint.url):
        return False
    try:
        return not speaks_tls(*address(split(endpoint.url)[1], "https"), CONNECT)
    except OSError:
        return False  # asking will say what is wrong


def _unreachable(error: BoxshipError) -> bool:
    return isinstance(error, (Unreachable, DeadlineExceeded))


def _names(data: bytes, key: str, what: str) -> "list[str]":
    try:
        document = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise PeerError(what, cause="the answer is not JSON") from error
    names = document.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PeerError(what, cause=f"{key} is no list of names")
    return names
