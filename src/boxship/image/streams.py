"""What every reader and writer of blobs shares, and nothing that has to be loaded for it."""

from __future__ import annotations

from typing import Literal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object

Compression = Literal["", "gzip", "zstd"]
CHUNK = 1 << 18
"""Bytes that are read at once."""


class Reader(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...
