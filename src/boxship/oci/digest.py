"""Digests: ``algorithm:hex``, the name of finished content (image-spec, descriptor.md, section Digests).

A digest is a ``str`` that went through `parse` once; past that door nothing checks it again.
Streams are verified as they pass: `Verifier` counts and hashes what it is fed and judges at the end,
`VerifyingReader` does so for a reader, so that a consumer cannot forget to.
"""

import hashlib
import re
from typing import BinaryIO, NewType, Protocol

from boxship.errors import DataLoss, InvalidArgument

Digest = NewType("Digest", str)

# Hex lengths of the registered algorithms; image-spec lets others be unknown, and unknown cannot be verified.
ALGORITHMS = {"sha256": 64, "sha384": 96, "sha512": 128}

_SHAPE = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_HEX = re.compile(r"[a-f0-9]+")


class Hash(Protocol):
    """What hashlib's objects offer of it."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def parse(text: str) -> Digest:
    """Check ``text`` and return it as a Digest; raises InvalidArgument, never returns a path-like string.

    Content is stored under the digest's parts, so this check is also what keeps ``..`` out of paths.
    """
    if not _SHAPE.fullmatch(text):
        raise InvalidArgument(f"invalid digest {text!r}", cause="not of the form algorithm:hex")
    algorithm, _, encoded = text.partition(":")
    length = ALGORITHMS.get(algorithm)
    if length is None:
        raise InvalidArgument(f"invalid digest {text!r}", cause=f"unsupported algorithm {algorithm}")
    if len(encoded) != length or not _HEX.fullmatch(encoded):
        raise InvalidArgument(f"invalid digest {text!r}", cause=f"{algorithm} takes {length} hex digits")
    return Digest(text)


def of(data: bytes, algorithm: str = "sha256") -> Digest:
    """The digest of ``data``."""
    return Digest(f"{algorithm}:{new_hash(algorithm, data).hexdigest()}")


def new_hash(algorithm: str, data: bytes = b"") -> Hash:
    """A running hash; ``algorithm`` comes from a parsed digest or is one of ALGORITHMS."""
    return hashlib.new(algorithm, data, usedforsecurity=False)


def algorithm(digest: Digest) -> str:
    return digest.partition(":")[0]


def encoded(digest: Digest) -> str:
    return digest.partition(":")[2]


class Verifier:
    """Feed it every byte, then call `finish` once: DataLoss unless size and digest are the promised ones.

    ``size`` -1 means unknown. Feeding more than ``size`` raises at once, so that a liar cannot fill a disk.
    """

    def __init__(self, expected: "Digest | None" = None, size: int = -1, what: str = "content") -> None:
        self._expected = expected
        self._size = size
        self._what = what
        self._algorithm = algorithm(expected) if expected else "sha256"
        self._hash = new_hash(self._algorithm)
        self.count = 0

    def update(self, data: bytes) -> None:
        self.count += len(data)
        if 0 <= self._size < self.count:
            raise DataLoss(f"{self._what} is longer than its size of {self._size} bytes")
        self._hash.update(data)

    @property
    def digest(self) -> Digest:
        """The digest of what has passed so far."""
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")

    def finish(self) -> Digest:
        if self._size >= 0 and self.count != self._size:
            raise DataLoss(f"{self._what} has {self.count} bytes, expected {self._size}", cause="cut short")
        found = self.digest
        if self._expected and found != self._expected:
            raise DataLoss(f"{self._what} has digest {found}, expected {self._expected}")
        return found


class VerifyingReader:
    """A reader that raises DataLoss at its own end when the bytes were not the promised ones.

    A consumer that stops early calls `drain`, or has verified nothing.
    """

    def __init__(self, source: BinaryIO, verifier: Verifier) -> None:
        self._source = source
        self.verifier = verifier
        self._ended = False

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        if data:
            self.verifier.update(data)
        if (not data and size != 0) or size < 0:
            self._finish()
        return data

    def drain(self, chunk: int = 1 << 18) -> None:
        """Read to the end, so that everything has been judged."""
        while self.read(chunk):
            pass

    def close(self) -> None:
        self._source.close()

    def _finish(self) -> None:
        if not self._ended:
            self._ended = True
            self.verifier.finish()
