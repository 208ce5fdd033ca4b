"""What a copy does to a layer on its way: inflate, compress, decrypt, encrypt; each a reader over a reader.

`Change` says what; `Made` is the chain, which also sees to it that the source's bytes were all read and were the
promised ones, since an inflater may be content before the end.
"""

from collections.abc import Callable
from typing import BinaryIO, cast

import msgspec

from boxship.errors import InvalidArgument
from boxship.image.streams import CHUNK, Compression, Reader
from boxship.image.transports.base import Blob, verifier_of
from boxship.oci import image as oci
from boxship.oci.digest import VerifyingReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boxship.image.packing import Packer

GZIP_LEVEL = 2
"""Without a level: half of level 6's time for a twelfth more bytes."""
LEVELS: "dict[str, range]" = {"gzip": range(10), "zstd": range(1, 23)}


def check_level(compression: str, level: "int | None") -> None:
    """Raises InvalidArgument."""
    levels = LEVELS[compression]
    if level is not None and level not in levels:
        raise InvalidArgument(
            f"compression level {level} is none of {compression}'s", remedy=f"{levels.start} to {levels.stop - 1}"
        )


class Compressing:
    """``source`` compressed, by `packer`: equal input gives equal bytes."""

    def __init__(self, source: Reader, compression: Compression, level: "int | None" = None) -> None:
        from boxship.image.packing import packer  # zlib, zstandard and threads: only where a layer is compressed

        self._source = source
        usual = GZIP_LEVEL if compression == "gzip" else None
        self._packer: Packer | None = packer(compression, usual if level is None else level)
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        while self._packer is not None and (size < 0 or not self._rest):
            data = self._source.read(CHUNK)
            if data:
                self._rest += self._packer.compress(data)
            else:
                self._rest += self._packer.flush()
                self._packer = None
        if size < 0:
            data, self._rest = self._rest, b""
        else:
            data, self._rest = self._rest[:size], self._rest[size:]
        return data


class Change(msgspec.Struct, frozen=True):
    """What is done to a layer. ``compression`` None leaves it as it is; "" inflates it.

    ``open`` decrypts the bytes as they come, ``seal`` encrypts them as they go.
    """

    compression: "Compression | None" = None
    level: "int | None" = None
    open: "Callable[[Reader], Reader] | None" = None
    seal: "Callable[[Reader], Reader] | None" = None

    @property
    def is_none(self) -> bool:
        return self.compression is None and self.open is None and self.seal is None


class Made:
    """A blob made from another; its digest is known when it has been read."""

    size = -1

    def __init__(self, blob: Blob, descriptor: oci.Descriptor, change: Change) -> None:
        verifier = verifier_of(descriptor, f"blob {descriptor.digest}")
        self._source = VerifyingReader(cast(BinaryIO, blob), verifier)
        stream: Reader = self._source
        if change.open is not None:
            stream = change.open(stream)
        if change.compression is not None:
            from boxship.image.compression import inflate

            stream = inflate(stream)
            if change.compression:
                stream = Compressing(stream, change.compression, change.level)
        if change.seal is not None:
            stream = change.seal(stream)
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        if not data and size:
            self._source.drain()
        return data

    def close(self) -> None:
        self._source.close()
