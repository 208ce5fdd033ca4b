"""Who may: HTTP Basic against an htpasswd file of bcrypt hashes (RFC 7617; Apache's htpasswd -B writes it).

bcrypt is slow on purpose, a tenth of a second and more, and a pull sends the password with every request: what was
right once is remembered, as a keyed hash, while the file is the same.  A wrong password always costs a bcrypt.
The file is read again when it changes; nobody need restart the registry.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import threading

from boxship.errors import InvalidArgument

from .errors import SpecError

BCRYPT = ("$2a$", "$2b$", "$2y$")
NOBODY = b"$2b$10$" + b"." * 53
"""What an unknown user's password is compared with, so that the time does not tell who exists."""
LIMIT = 1 << 20


class Passwords:
    """The file at ``path``; raises InvalidArgument that names file and line when it cannot be used."""

    def __init__(self, path: str, realm: str = "Boxship registry") -> None:
        self._path = path
        self._realm = realm
        self._key = os.urandom(32)
        self._lock = threading.Lock()
        self._read_at = (0, 0)
        self._users: dict[str, bytes] = {}
        self._right: dict[str, bytes] = {}
        self._refresh()

    def check(self, header: str) -> str:
        """The user whose password the Authorization header has. For worker threads: it takes its time.

        Raises SpecError (UNAUTHORIZED).
        """
        import bcrypt

        user, password = _credentials(header)
        if not user:
            raise self.unauthorised("authentication required")
        self._refresh()
        with self._lock:
            expected, right = self._users.get(user, NOBODY), self._right.get(user, b"")
        seal = hmac.new(self._key, expected + b"\0" + password, hashlib.sha256).digest()
        if hmac.compare_digest(seal, right):
            return user
        # bcrypt looks at 72 bytes, and newer versions of the library refuse more: as htpasswd, cut.
        if bcrypt.checkpw(password[:72], expected) and expected is not NOBODY:
            with self._lock:
                self._right[user] = seal
            return user
        raise self.unauthorised(f"wrong user name or password (user {user[:64]!r})")

    def fingerprint(self, user: str) -> bytes | None:
        """What changes when the user's password does; None when there is no such user."""
        self._refresh()
        with self._lock:
            return self._users.get(user)

    def unauthorised(self, message: str) -> SpecError:
        return SpecError("UNAUTHORIZED", message, headers={"WWW-Authenticate": f'Basic realm="{self._realm}"'})

    def _refresh(self) -> None:
        """Read the file when it is another one; what is wrong with a new one leaves the old users."""
        try:
            found = os.stat(self._path)
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp == self._read_at:
                return
            with open(self._path, "rb") as file:
                users = parse(file.read(LIMIT + 1), self._path)
        except OSError as error:
            if self._read_at != (0, 0):
                return  # being replaced
            raise InvalidArgument(f"cannot read {self._path}", cause=error.strerror or str(error)) from error
        except InvalidArgument:
            if self._read_at != (0, 0):
                return
            raise
        with self._lock:
            self._users, self._right, self._read_at = users, {}, stamp


def parse(data: bytes, path: str) -> dict[str, bytes]:
    """User to hash. Raises InvalidArgument with the line at fault."""
    if len(data) > LIMIT:
        raise InvalidArgument(f"{path} is larger than {LIMIT} bytes")
    users: dict[str, bytes] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        user, colon, hashed = text.partition(":")
        if not user or not colon:
            raise InvalidArgument(f"{path}: line {number} is not USER:HASH")
        if not hashed.startswith(BCRYPT) or len(hashed) != 60:
            raise InvalidArgument(
                f"{path}: line {number}: the password of {user!r} is not hashed with bcrypt",
                remedy=f"htpasswd -B {path} {user}",
            )
        users[user] = hashed.encode()
    return users


def _credentials(header: str) -> tuple[str, bytes]:
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return "", b""
    try:
        user, colon, password = base64.b64decode(text.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon and b"\0" not in password else ("", b"")
    except (binascii.Error, ValueError):
        return "", b""
