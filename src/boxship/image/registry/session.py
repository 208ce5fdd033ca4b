"""HTTP to one registry: tokens, redirects, retries, errors in our words.

A request is sent with what we know; on 401 the challenge says what is missing (RFC 9110, 11.6.1; the token protocol
is docs/spec/auth/token.md of the distribution project), and the request is sent once more.
Repeated after a pause that doubles: what the network broke, 429 and 5xx, if sending it again means the same.
A redirect to another origin does not get our credentials, and there are at most ten.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import msgspec

from boxship.errors import (
    BoxshipError,
    DeadlineExceeded,
    NotFound,
    PeerError,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from boxship.http.client import Client, Unreached, split
from boxship.http.headers import number

from .hosts import Endpoint, is_loopback

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping

    from boxship.http.client import Answer, Headers

    from .credentials import Credential

    Body = bytes | Callable[[], Iterable[bytes]] | None

REDIRECTS = 10
TRIES = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 20.0
CONNECT, READ = 15.0, 60.0
"""Seconds for a connection, and between two pieces of an answer."""
TOKEN_LIMIT = 1 << 20
LONGEST_TOKEN = 86400
"""Seconds for which a token is believed to be good; some say numbers that no clock has."""
ERROR_LIMIT = 64 << 10
AGENT = "boxship"


class Unreachable(Unavailable):
    """There is no registry at this address, or not one that speaks so: asking again now changes nothing."""


class Response:
    """An answer whose body has not been read. Close it, or use it in a ``with``."""

    def __init__(self, answer: Answer, url: str) -> None:
        self._answer = answer
        self.url = url
        self.status = answer.status
        self.headers: Headers = answer.headers

    def read(self, size: int = -1) -> bytes:
        """``size`` bytes, fewer at the end only; raises Unavailable when the connection breaks."""
        try:
            return self._answer.read(size)
        except OSError as error:
            raise Unavailable(f"the connection to {urlsplit(self.url).netloc} broke", cause=_reason(error)) from error

    def all(self, limit: int, what: str) -> bytes:
        """The whole body; raises PeerError when it is larger than ``limit`` bytes."""
        parts, size = [], 0
        while data := self.read(1 << 16):
            parts.append(data)
            size += len(data)
            if size > limit:
                raise PeerError(f"{what} is larger than {limit} bytes")
        return b"".join(parts)

    def close(self) -> None:
        """Give the connection back when little is left to read, else end it."""
        self._answer.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Session:
    """Requests to one endpoint, from any thread. ``credential`` is asked once, when the registry wants to know."""

    def __init__(
        self,
        endpoint: Endpoint,
        credential: Callable[[], Credential | None],
        *,
        registry_token: str = "",
        agent: str = "",
    ) -> None:
        self.endpoint = endpoint
        self.host = urlsplit(endpoint.url).netloc
        self._ask_credential = credential
        self._credential: Credential | None = None
        self._asked = False
        self._agent = f"{agent} {AGENT}".strip()
        self._lock = threading.Lock()
        self._authorization: dict[str, tuple[str, float]] = {}  # by scope: header, until when (monotonic)
        self._given = f"Bearer {registry_token}" if registry_token else ""
        self._clients: dict[str, Client] = {}

    # ── Requests ──

    def request(
        self,
        method: str,
        path: str,
        *,
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        expect: tuple[int, ...] = (200,),
        what: str = "",
        again: bool = True,
    ) -> Response:
        """Send it until there is an answer, whose status is one of ``expect``.

        ``path`` is below the endpoint, or a whole URL. ``what`` names the thing in errors.
        ``again`` says that sending it a second time means the same; a ``body`` that is a function can be made again.
        Raises NotFound, Unauthenticated, PermissionDenied, ResourceExhausted (rate limit), Unavailable, PeerError.
        """
        url = path if "://" in path else self.endpoint.url + path
        pause = FIRST_PAUSE
        for attempt in range(1, TRIES + 1):
            last = attempt == TRIES or not again
            try:
                response = self._authorised(method, url, scope, headers or {}, body)
            except Unavailable as error:
                if last or isinstance(error, Unreachable):
                    raise
                time.sleep(_about(pause))
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            if response.status in expect:
                return response
            if (response.status == 429 or response.status >= 500) and response.status != 501 and not last:
                wait = min(_retry_after(response.headers), LONGEST_PAUSE)
                response.close()
                time.sleep(max(wait, _about(pause)))
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            with response:
                raise self._refused(response, what or f"{method} {url}")
        raise AssertionError("the last attempt returns or raises")

    def _authorised(
        self, method: str, url: str, scope: str, headers: Mapping[str, str],
        body: Body,
    ) -> Response:  # fmt: skip
        sent = self._with(headers, scope)
        response = self._follow(method, url, sent, body)
        if response.status != 401:
            return response
        challenges = _challenges(response.headers.get("WWW-Authenticate", ""))
        refused = self._refused(response, f"log in to {self.host}")
        response.close()
        if sent.get("Authorization", "").startswith("Basic "):
            raise refused  # it has seen them, and said no
        header = self._answer(challenges, scope, refused)
        with self._lock:
            self._authorization[scope] = header
        return self._follow(method, url, self._with(headers, scope), body)

    def _with(self, headers: Mapping[str, str], scope: str) -> dict[str, str]:
        found = {"User-Agent": self._agent, **headers}
        with self._lock:
            header, until = self._authorization.get(scope, ("", 0.0))
        if header and time.monotonic() < until:
            found["Authorization"] = header
        elif self._given:
            found["Authorization"] = self._given
        return found

    def _follow(self, method: str, url: str, headers: dict[str, str], body: Body) -> Response:
        origin = urlsplit(url)[:2]
        for _ in range(REDIRECTS + 1):
            response = self._send(method, url, headers, body)
            if response.status not in (301, 302, 303, 307, 308) or not response.headers.get("Location"):
                return response
            target = urljoin(url, response.headers.get("Location"))
            response.close()
            parts = urlsplit(target)
            if parts.scheme not in ("https", "http") or not parts.netloc:
                raise PeerError(f"{self.host} redirects to {target!r}", cause="no address of a web server")
            if url.startswith("https:") and parts.scheme == "http" and self.endpoint.verify:
                raise PeerError(f"{self.host} redirects from https to {target}", cause="unprotected")
            if parts[:2] != origin:
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            if response.status == 303:
                method, body = "GET", None
            url = target
        raise PeerError(f"{self.host} redirects more than {REDIRECTS} times", cause=f"last to {url}")

    def _send(self, method: str, url: str, headers: dict[str, str], body: Body) -> Response:
        payload = body() if callable(body) else body
        try:
            answer = self._client(url).request(method, url, headers, payload)
        except OSError as error:
            cause = _reason(error)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"{urlsplit(url).netloc} does not answer", cause=cause) from error
            remedy = ""
            if "CERTIFICATE_VERIFY_FAILED" in cause or "certificate verify failed" in cause:
                remedy = (
                    f"put its authority into /etc/docker/certs.d/{self.host}/ca.crt, or name the registry insecure"
                )
            kind = Unreachable if isinstance(error, Unreached) else Unavailable
            raise kind(f"cannot reach {urlsplit(url).netloc}", cause=cause, remedy=remedy) from error
        return Response(answer, url)

    def _client(self, url: str) -> Client:
        parts = urlsplit(url)
        own = parts.netloc == self.host
        proxy = proxy_of(url)
        key = f"{own} {proxy}"
        with self._lock:
            client = self._clients.get(key)
            if client is None:
                # Our certificate and our trust are for the registry, not for whom it redirects to.
                endpoint = self.endpoint if own else Endpoint(url)
                client = Client(lambda: _tls(endpoint), proxy=proxy, connect=CONNECT, read=READ)
                self._clients[key] = client
            return client

    def close(self) -> None:
        with self._lock:
            for client in self._clients.values():
                client.close()

    # ── Who we are ──

    def _known(self) -> Credential | None:
        with self._lock:
            if not self._asked:
                self._credential = self._ask_credential()
                self._asked = True
            return self._credential

    def _answer(
        self, challenges: list[tuple[str, dict[str, str]]], scope: str, refused: BoxshipError
    ) -> tuple[str, float]:
        """The Authorization header that the challenges ask for, and until when it is good."""
        for scheme, parameters in challenges:
            if scheme == "bearer" and parameters.get("realm"):
                return self._token(parameters, scope)
            if scheme == "basic":
                known = self._known()
                if not known or not known.username:
                    raise Unauthenticated(
                        f"{self.host} wants to know who asks",
                        cause=refused.cause,
                        remedy=f"log in: boxship login {self.host}",
                    )
                text = base64.b64encode(f"{known.username}:{known.password}".encode()).decode()
                return f"Basic {text}", float("inf")
        raise refused

    def _token(self, parameters: dict[str, str], scope: str) -> tuple[str, float]:
        """Exchange what we know for a token (anonymous when we know nothing)."""
        realm = parameters["realm"]
        parts = urlsplit(realm)
        trusted = parts.scheme == "https" or (parts.scheme == "http" and self.endpoint.plain)
        if not parts.netloc or not (trusted or is_loopback(parts.netloc)):
            raise PeerError(f"{self.host} sends us to {realm!r} for a token", cause="no https address")
        wanted = {"service": parameters.get("service", ""), "scope": scope or parameters.get("scope", "")}
        fields = {name: value for name, value in wanted.items() if value}
        known = self._known()
        headers = {"User-Agent": self._agent, "Accept": "application/json"}
        if known and known.identity_token:
            fields |= {"grant_type": "refresh_token", "refresh_token": known.identity_token, "client_id": AGENT}
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            response = self._follow("POST", realm, headers, urlencode(fields).encode())
        else:
            if known:
                fields["account"] = known.username
                text = base64.b64encode(f"{known.username}:{known.password}".encode()).decode()
                headers["Authorization"] = f"Basic {text}"
            separator = "&" if parts.query else "?"
            response = self._follow("GET", f"{realm}{separator}{urlencode(fields)}", headers, None)
        with response:
            if response.status != 200:
                raise self._refused(response, f"get a token from {parts.netloc}")
            data = response.all(TOKEN_LIMIT, f"the token of {parts.netloc}")
        try:
            document = msgspec.json.decode(data, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise PeerError(f"{parts.netloc} answers with no token", cause="not JSON") from error
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token or any(c <= " " for c in token):
            raise PeerError(f"{parts.netloc} answers with no token")
        lifetime = document.get("expires_in")
        seconds = float(min(lifetime, LONGEST_TOKEN)) if isinstance(lifetime, (int, float)) and lifetime > 0 else 60.0
        return f"Bearer {token}", time.monotonic() + max(seconds - 10, 5)

    # ── Errors ──

    def _refused(self, response: Response, what: str) -> BoxshipError:
        """The registry's answer as one of our errors, with what it says (distribution-spec, Error Codes)."""
        said = _said(response)
        status = response.status
        if status == 404:
            return NotFound(what, cause=said or "not found")
        if status == 401:
            return Unauthenticated(what, cause=said or "authentication required", remedy=f"boxship login {self.host}")
        if status == 403:
            return PermissionDenied(what, cause=said or "denied")
        if status == 429:
            wait = _retry_after(response.headers)
            remedy = f"wait {wait:.0f} seconds" if wait else "wait a while, or log in for a higher limit"
            return ResourceExhausted(what, cause=said or "too many requests", remedy=remedy)
        if status >= 500:
            return Unavailable(what, cause=f"{self.host} answered {status}" + (f": {said}" if said else ""))
        return PeerError(what, cause=f"{self.host} answered {status}" + (f": {said}" if said else ""))


def _said(response: Response) -> str:
    """The messages of an error document, or nothing when the body is none."""
    try:
        data = response.all(ERROR_LIMIT, "an error message")
        document = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, BoxshipError, RecursionError, UnicodeDecodeError):
        return ""
    errors = document.get("errors")
    if not isinstance(errors, list):
        return str(document.get("details") or document.get("message") or "")[:500]
    texts = [
        f"{one.get('code', '')}: {one.get('message', '')}".strip(": ") for one in errors if isinstance(one, dict)
    ]
    return ", ".join(text for text in texts if text)[:500]


def _reason(error: BaseException) -> str:
    """What the system or the TLS library says."""
    text = str(error.args[-1]) if isinstance(error, OSError) and error.args else str(error)
    return text or type(error).__name__


def _about(seconds: float) -> float:
    """A quarter less or more, so that those who were refused together do not come back together."""
    return seconds * (0.75 + os.urandom(1)[0] / 512)


def _retry_after(headers: Headers) -> float:
    """Seconds; dates are not worth a parser here."""
    return float(max(number(headers.get("Retry-After", "")), 0))


def _challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    """``Bearer realm="...",service="..."`` and the like, several in one header: [(scheme, parameters)]."""
    found: list[tuple[str, dict[str, str]]] = []
    at, size = 0, min(len(header), 8192)
    while at < size:
        while at < size and header[at] in " ,\t":
            at += 1
        start = at
        while at < size and header[at] not in " ,=\t":
            at += 1
        word = header[start:at]
        if at < size and header[at] == "=":
            at += 1
            value, at = _value(header, at, size)
            if found:
                found[-1][1].setdefault(word.lower(), value)
        elif word:
            found.append((word.lower(), {}))
        else:
            at += 1  # nothing that we know
    return found


def _value(header: str, at: int, size: int) -> tuple[str, int]:
    """A token or quoted string from ``at``: its value, and where it ends."""
    if at >= size or header[at] != '"':
        start = at
        while at < size and header[at] not in " ,\t":
            at += 1
        return header[start:at], at
    at += 1
    text = ""
    while at < size and header[at] != '"':
        if header[at] == "\\" and at + 1 < size:
            at += 1
        text += header[at]
        at += 1
    return text, at + 1


def _tls(endpoint: Endpoint) -> ssl.SSLContext:
    import ssl  # takes as long as a small copy

    if endpoint.plain or not endpoint.verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the system's authorities takes 40 ms
    else:
        context = ssl.create_default_context()
    try:
        for path in endpoint.authorities:
            context.load_verify_locations(path)
        if endpoint.client:
            context.load_cert_chain(*endpoint.client)
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(
            f"TLS for {endpoint.url}", cause=str(error), remedy="look at its certificate files"
        ) from error
    if not endpoint.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def proxy_of(url: str) -> str:
    """The proxy that the environment names for an address (``HTTPS_PROXY``, ``NO_PROXY``), or ""."""
    scheme, netloc, _ = split(url)
    if is_loopback(netloc) or not any(name.lower().endswith("_proxy") for name in os.environ):
        return ""
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    proxies = getproxies_environment()
    proxy: str = proxies.get(scheme, "")
    if not proxy or proxy_bypass_environment(netloc, proxies):
        return ""
    return proxy if "://" in proxy else "http://" + proxy
