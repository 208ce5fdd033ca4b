"""Reading for everybody, writing for those who have a password.

Basic authentication alone cannot say that: docker and skopeo ask ``/v2/`` once and go by its answer for reading and
writing alike. Told 200 there, they send no password when they push; told "Basic", they pull nothing without one.
What they do understand is Docker Hub's way, tokens (distribution-spec's "token authentication", RFC 6750):

    GET /v2/                 ► 401, Bearer realm="…/v2/_token"
    GET /v2/_token           ► a token that may read; with a password (Basic) one that may write, too
    GET /v2/a/blobs/…        ► with that token

Whoever never asks ``/v2/`` needs none of it: a read without credentials is answered, a write is told "Basic" (which
containerd and curl take up), and a password may be sent with any request.

A token is signed, not stored: its user, its end, and a key that this process has. The user's password is part of what
is signed, so a token ends with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from .auth import Passwords
from .errors import SpecError

TOKEN_PATH = "/v2/_token"  # no repository's name begins with _
LIFETIME = 300
SERVICE = "Boxship registry"
READING = frozenset({"GET", "HEAD"})

_UPLOAD = re.compile(r"/v2/.+/blobs/uploads/[^/]*")
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
_TOKEN = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]*)\.([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request decides whether it is let in. ``scheme`` is "" where no proxy says another than ours."""

    method: str
    path: str
    authorization: str
    host: str = ""
    scheme: str = ""


class AnonymousPull:
    """Decides over requests; for worker threads, because a password takes its time."""

    def __init__(self, passwords: Passwords, *, tls: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._passwords = passwords
        self._scheme = "https" if tls else "http"
        self._clock = clock
        self._key = os.urandom(32)

    def admit(self, asked: Asked) -> None:
        """Raises SpecError (UNAUTHORIZED) with the challenge that the client can answer."""
        reads = asked.method in READING and not _UPLOAD.fullmatch(asked.path)
        scheme, _, credentials = asked.authorization.partition(" ")
        if scheme.lower() == "bearer":
            user = self._user(credentials.strip())
            if user is None:
                raise self._challenge(asked, "the token is not valid (any more)", "invalid_token")
            if not user and not reads:
                raise self._challenge(asked, "authentication required", "insufficient_scope")
        elif asked.authorization:
            self._passwords.check(asked.authorization)
        elif asked.path in ("/v2", "/v2/"):
            raise self._challenge(asked, "authentication required")
        elif not reads:
            raise self._passwords.unauthorised("authentication required")

    def token(self, asked: Asked) -> dict[str, object]:
        """A token for whoever the request's password says, or for nobody. Raises SpecError (UNAUTHORIZED)."""
        user = self._passwords.check(asked.authorization) if asked.authorization else ""
        token = self.issue(user)
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        return {"token": token, "access_token": token, "expires_in": LIFETIME, "issued_at": issued}

    def issue(self, user: str) -> str:
        """``user`` "" is anybody."""
        name = base64.urlsafe_b64encode(user.encode()).decode().rstrip("=")
        end = int(self._clock()) + LIFETIME
        return f"{end}.{name}.{self._signature(end, user, self._passwords.fingerprint(user) or b'')}"

    def _user(self, token: str) -> str | None:
        match = _TOKEN.fullmatch(token)
        if match is None or int(match[1]) < self._clock():
            return None
        try:
            user = base64.urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4)).decode()
        except (binascii.Error, ValueError):
            return None
        known = self._passwords.fingerprint(user) if user else b""
        if known is None or not hmac.compare_digest(match[3], self._signature(int(match[1]), user, known)):
            return None
        return user

    def _signature(self, end: int, user: str, fingerprint: bytes) -> str:
        signed = b"%d\0%b\0%b" % (end, user.encode(), fingerprint)
        return hmac.new(self._key, signed, hashlib.sha256).hexdigest()

    def _challenge(self, asked: Asked, message: str, error: str = "") -> SpecError:
        if not _HOST.fullmatch(asked.host):
            return SpecError("UNSUPPORTED", "the request has no Host that a token could be fetched from", status=400)
        scheme = asked.scheme if asked.scheme in ("http", "https") else self._scheme
        words = f'Bearer realm="{scheme}://{asked.host}{TOKEN_PATH}",service="{SERVICE}"'
        return SpecError(
            "UNAUTHORIZED", message, headers={"WWW-Authenticate": words + (f',error="{error}"' if error else "")}
        )
