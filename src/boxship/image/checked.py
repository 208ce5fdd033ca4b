"""A layer's bytes on their way from a blob to the tar reader: inflated, hashed for the diff ID, bounded."""

from boxship.image.compression import Reader, inflate
from boxship.image.limits import Limits
from boxship.oci.digest import Verifier


class _Counting:
    """Counts the compressed bytes as they are taken."""

    def __init__(self, source: Reader) -> None:
        self._source = source
        self.count = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self.count += len(data)
        return data


class CheckedStream:
    """``source`` inflated; ``verifier`` sees every byte, ``limits`` are checked before anybody else does."""

    def __init__(self, source: Reader, verifier: Verifier, limits: Limits, what: str) -> None:
        self._packed = _Counting(source)
        self._source = inflate(self._packed)
        self._verifier = verifier
        self._limits = limits
        self._what = what

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._verifier.update(data)
        self._limits.check_size(self._verifier.count, self._packed.count, self._what)
        return data
