"""One blob from a registry, taken up again where its connection broke."""

import threading
import time
from collections.abc import Callable

from boxship.errors import Cancelled, DataLoss, Unavailable
from boxship.oci import image as oci

from .client import Repository

CHUNK = 1 << 18
RESUMPTIONS = 8
"""Times that one blob is taken up again where its connection broke."""
TOLD_EVERY = 0.1
"""Seconds between two tellings of how far a blob is."""


class Stopped(Cancelled):
    """Another blob of the same transfer failed, or somebody gave up."""


class Resumed:
    """A blob as a reader that takes the connection up again where it broke, and refuses a wrong size."""

    def __init__(
        self, repository: Repository, blob: oci.Descriptor, stop: threading.Event, tell: "Callable[..., None]"
    ) -> None:
        self._repository = repository
        self._blob = blob
        self._stop = stop
        self._tell = tell
        self._told = 0.0
        self._offset = 0
        self._tries = 0
        self.size = blob.size
        self._source = repository.blob(blob.digest)
        if self._source.size not in (-1, blob.size):
            size = self._source.size
            self._source.close()
            raise DataLoss(f"blob {blob.digest} has {size} bytes, its manifest says {blob.size}")

    def read(self, size: int = -1, /) -> bytes:
        if self._stop.is_set():
            raise Stopped(f"blob {self._blob.digest}: not needed any more")
        while True:
            try:
                data = self._source.read(CHUNK if size < 0 else min(size, CHUNK))
            except Unavailable:
                data = b""
            if data or self._offset == self._blob.size:
                break
            self._again()
        self._offset += len(data)
        if self._offset > self._blob.size:
            raise DataLoss(f"blob {self._blob.digest} is longer than its {self._blob.size} bytes")
        now = time.monotonic()
        if data and now - self._told > TOLD_EVERY:
            self._told = now
            self._tell(self._blob, "Downloading", self._offset, self._blob.size)
        return data

    def _again(self) -> None:
        """Ended early: ask for the rest."""
        self._source.close()
        self._tries += 1
        if self._tries > RESUMPTIONS:
            raise DataLoss(
                f"blob {self._blob.digest} ends after {self._offset} of {self._blob.size} bytes",
                cause=f"also after asking {RESUMPTIONS} times for the rest",
            )
        time.sleep(min(0.1 * 2**self._tries, 5.0))
        self._source = self._repository.blob(self._blob.digest, self._offset)

    def close(self) -> None:
        self._source.close()
