"""Several blobs at once: jobs in threads, of which the first that fails ends the others.

A job ends early where it reads: what passes is `Watched`, and its next read raises when the copy has failed.
"""

import threading
from collections import deque
from collections.abc import Callable

from boxship.errors import BoxshipError, Cancelled
from boxship.image.transports.base import Blob
from boxship.oci import image as oci

Moved = Callable[[oci.Descriptor, int], None]
"""Told how many bytes of a blob have passed."""


class Stopped(Cancelled):
    """Another blob of the same copy failed."""


def _from_outside(error: BaseException) -> bool:
    return isinstance(error, Cancelled) and not isinstance(error, Stopped)


class Watched:
    """A blob whose passing is told, and which ends when the copy does."""

    def __init__(self, blob: Blob, descriptor: oci.Descriptor, stop: threading.Event, moved: Moved) -> None:
        self._blob = blob
        self._descriptor = descriptor
        self._stop = stop
        self._moved = moved
        self._count = 0
        self.size = blob.size

    def read(self, size: int = -1, /) -> bytes:
        if self._stop.is_set():
            raise Stopped(f"blob {self._descriptor.digest}: not needed any more")
        data = self._blob.read(size)
        self._count += len(data)
        self._moved(self._descriptor, self._count)
        return data

    def close(self) -> None:
        self._blob.close()


class Pool:
    """Jobs in threads; the first that fails ends the others, and its error is raised by `join`."""

    def __init__(self, at_once: int, stop: threading.Event) -> None:
        self._at_once = max(at_once, 1)
        self._stop = stop
        self._jobs: deque[Callable[[], None]] = deque()
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def __enter__(self) -> "Pool":
        return self

    def add(self, job: "Callable[[], None]") -> None:
        """One more for `join`, behind those that it has."""
        self._jobs.append(job)

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                job = self._jobs.popleft()
            except IndexError:
                return
            try:
                job()
            except BaseException as error:
                self._failures.append(error)
                self._stop.set()

    def join(self) -> None:
        """Do all jobs, so many at once. Raises what the first that failed raised."""
        for number in range(min(self._at_once, len(self._jobs))):
            # A daemon: who does not wait for a peer that does not answer can end all the same.
            thread = threading.Thread(target=self._work, name=f"copy-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        for thread in self._threads:
            thread.join()
        failures = [one for one in self._failures if not isinstance(one, Stopped)] or self._failures
        if failures:
            raise failures[0]

    def __exit__(self, kind: object, error: "BaseException | None", *_: object) -> None:
        if error is None:
            return
        self._stop.set()
        self._jobs.clear()
        # Whoever gave up from outside does not wait for a peer that does not answer.
        if isinstance(error, BoxshipError) and not _from_outside(error):
            for thread in self._threads:
                thread.join()
