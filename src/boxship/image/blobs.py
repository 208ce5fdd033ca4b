"""What a descriptor names, read from a layout and verified as it passes.

A descriptor promises a digest and a size. `BlobReader` takes exactly that many bytes and judges them at the last one,
before anything behind it (an inflater, a parser) can stumble over damage; bytes beyond the size are a fault, too.
A small document may be embedded in its descriptor (image-spec, descriptor.md, ``data``).
"""

import base64
import binascii
from typing import BinaryIO

from boxship.errors import DataLoss, InvalidArgument
from boxship.image.layout import Layout
from boxship.oci import digest as digests
from boxship.oci import image as oci

DIGEST_MISMATCH, SIZE_MISMATCH = "digest mismatch", "size mismatch"
"""The causes of the two DataLoss errors."""


class BlobReader:
    """A reader of ``file``, which must hold what ``descriptor`` names; a context manager that closes it."""

    def __init__(self, file: BinaryIO, descriptor: oci.Descriptor) -> None:
        self._file = file
        self._descriptor = descriptor
        self._left = descriptor.size
        self._hash = digests.new_hash(digests.algorithm(digests.parse(descriptor.digest)))
        self._judged = False

    def __enter__(self) -> "BlobReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left)) if self._left else b""
        self._hash.update(data)
        self._left -= len(data)
        if not self._judged and (not self._left or (not data and size)):
            self._judge()
        return data

    def drain(self) -> None:
        """Read what the consumer left, so that all of it has been judged."""
        while self.read(1 << 18):
            pass

    def _judge(self) -> None:
        self._judged = True
        wanted = self._descriptor.digest
        found = f"{wanted.partition(':')[0]}:{self._hash.hexdigest()}"
        if found != wanted:
            raise DataLoss(f"blob {wanted} has digest {found}", cause=DIGEST_MISMATCH)
        if self._left or self._file.read(1):
            raise DataLoss(f"blob {wanted} does not have its {self._descriptor.size} bytes", cause=SIZE_MISMATCH)


def open_blob(layout: Layout, descriptor: oci.Descriptor) -> BlobReader:
    """Raises NotFound."""
    return BlobReader(layout.open(descriptor.digest), descriptor)


def read_document(layout: Layout, descriptor: oci.Descriptor) -> bytes:
    """A small blob whole; raises NotFound, DataLoss, InvalidArgument (too large, or damaged embedded data)."""
    if descriptor.size > oci.DOCUMENT_LIMIT:
        raise InvalidArgument(f"blob {descriptor.digest} is larger than {oci.DOCUMENT_LIMIT} bytes")
    if descriptor.data is not None:
        return embedded(descriptor)
    parts = []
    with open_blob(layout, descriptor) as blob:
        while data := blob.read(1 << 18):
            parts.append(data)
    return b"".join(parts)


def embedded(descriptor: oci.Descriptor) -> bytes:
    """The ``data`` of a descriptor, checked against its digest and size."""
    try:
        data = base64.b64decode(descriptor.data or "", validate=True)
    except binascii.Error as error:
        raise InvalidArgument(f"the data embedded for {descriptor.digest} is no base64", cause=str(error)) from error
    algorithm = digests.algorithm(digests.parse(descriptor.digest))
    if digests.of(data, algorithm) != descriptor.digest or len(data) != descriptor.size:
        raise DataLoss(f"the data embedded for {descriptor.digest} is something else", cause=DIGEST_MISMATCH)
    return data
