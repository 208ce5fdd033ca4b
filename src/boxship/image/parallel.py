"""Several blobs at once: jobs in threads, of which the first that fails ends the others.

A job ends early where it reads: what passes is `Watched`, and its next read raises when the copy has failed.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

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
        self._pool = ThreadPoolExecutor(max(at_once, 1), thread_name_prefix="copy")
        self._stop = stop
        self._running: list[Future[None]] = []

    def __enter__(self) -> "Pool":
        return self

    def run(self, job: "Callable[[], None]") -> None:
        self._running.append(self._pool.submit(self._do, job))

    def _do(self, job: "Callable[[], None]") -> None:
        if self._stop.is_set():
            raise Stopped("not needed any more")
        try:
            job()
        except BaseException:
            self._stop.set()
            raise

    def join(self) -> None:
        failure: BaseException | None = None
        for future in self._running:
            try:
                future.result()
            except BoxshipError as error:
                if _from_outside(error):
                    raise
                failure = failure if failure is not None and not isinstance(failure, Stopped) else error
        if failure is not None:
            raise failure

    def __exit__(self, kind: object, error: "BaseException | None", *_: object) -> None:
        if error is not None:
            self._stop.set()
        # Whoever gave up from outside does not wait for a peer that does not answer.
        patient = error is None or (isinstance(error, BoxshipError) and not _from_outside(error))
        self._pool.shutdown(wait=patient, cancel_futures=True)
