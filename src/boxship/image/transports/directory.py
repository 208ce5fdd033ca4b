"""``dir:PATH``: a directory with ``manifest.json``, ``version``, and blobs named by the hex of their digests.

Nothing is changed on the way, so it is the form to look at, and to keep signatures in (``signature-1``, ...).
An instance of an index is ``HEX.manifest.json``, its signatures ``HEX-signature-1``.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from boxship.errors import FailedPrecondition, InvalidArgument, NotFound
from boxship.image.manifests import Document, read
from boxship.image.trust.signatures import Signature, from_bytes, to_bytes
from boxship.oci import digest as digests
from boxship.oci import image as oci

from .base import Access, Blob, FileBlob, Layers, Name, made, pass_on, unsupported, verifier_of

VERSION = b"Directory Transport Version: 1.1\n"
_MARK = b"Directory Transport Version: "
SIGNATURES = 100


def check(details: str) -> None:
    if not details:
        raise InvalidArgument("dir: it names no directory")


def source(name: Name, access: Access) -> DirectorySource:
    return DirectorySource(name)


def destination(name: Name, access: Access) -> DirectoryDestination:
    return DirectoryDestination(name, access)


def delete(name: Name, access: Access) -> None:
    raise unsupported(name, "Deleting images not implemented for dir: images", "remove the directory")


def _stem(digest: str) -> str:
    return digests.encoded(digests.parse(digest))


class DirectorySource:
    def __init__(self, name: Name) -> None:
        self.name = name

    def _path(self, file: str) -> str:
        return os.path.join(self.name.details, file)

    def manifest(self, digest: str = "") -> Document:
        path = self._path(f"{_stem(digest)}.manifest.json" if digest else "manifest.json")
        try:
            with open(path, "rb") as file:
                data = file.read(oci.DOCUMENT_LIMIT + 1)
        except OSError as error:
            raise NotFound(f"open {path}", cause=(error.strerror or str(error)).lower()) from error
        return read(data, path)

    def blob(self, descriptor: oci.Descriptor) -> Blob:
        path = self._path(_stem(descriptor.digest))
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115 - the blob closes it
        except OSError as error:
            raise NotFound(f"open {path}", cause=(error.strerror or str(error)).lower()) from error
        return FileBlob(file, os.fstat(file.fileno()).st_size)

    def signatures(self, digest: str = "") -> list[Signature]:
        found: list[Signature] = []
        prefix = f"{_stem(digest)}-" if digest else ""
        while len(found) < SIGNATURES:
            path = self._path(f"{prefix}signature-{len(found) + 1}")
            try:
                with open(path, "rb") as file:
                    found.append(from_bytes(file.read(oci.DOCUMENT_LIMIT), path))
            except FileNotFoundError:
                break
        return found

    def close(self) -> None:
        """Nothing is held open."""


class DirectoryDestination:
    formats: tuple[str, ...] = ()
    takes_indexes = True
    foreign = False
    at_once = 6

    def __init__(self, name: Name, access: Access) -> None:
        self.name = name
        self.layers: Layers = "compress" if access.compress else "inflate" if access.decompress else "as-is"
        self._directory = name.details
        self._document: Document | None = None
        self._prepare()

    def _prepare(self) -> None:
        """An image that is there is replaced; what is no image is left alone."""
        try:
            os.makedirs(self._directory, mode=0o755, exist_ok=True)
            there = os.listdir(self._directory)
            if there:
                if not self._is_ours():
                    raise FailedPrecondition(
                        f"{self.name}: the directory is not empty, and is no image",
                        remedy="name another, or empty it",
                    )
                for one in there:
                    path = os.path.join(self._directory, one)
                    if not os.path.isdir(path):
                        os.unlink(path)
            self._write("version", VERSION)
        except OSError as error:
            raise FailedPrecondition(f"cannot write to {self.name}", cause=error.strerror or str(error)) from error

    def _is_ours(self) -> bool:
        try:
            with open(os.path.join(self._directory, "version"), "rb") as file:
                return file.read(len(_MARK)) == _MARK
        except OSError:
            return False

    def _write(self, file: str, data: bytes) -> None:
        path = os.path.join(self._directory, file)
        with open(path + ".new", "wb") as out:
            out.write(data)
        os.rename(path + ".new", path)

    def has(self, descriptor: oci.Descriptor, source: Name) -> bool:
        return os.path.exists(os.path.join(self._directory, _stem(descriptor.digest)))

    def put(self, source: Callable[[], Blob], descriptor: oci.Descriptor) -> oci.Descriptor:
        temporary = os.path.join(self._directory, f"dir-put-blob{os.urandom(6).hex()}")
        blob = source()
        try:
            with open(temporary, "wb", buffering=0) as out:
                verifier = verifier_of(descriptor, f"blob {descriptor.digest or 'made here'}")
                digest, size = pass_on(blob, lambda data: _all(out.write, data), verifier)
            os.rename(temporary, os.path.join(self._directory, _stem(digest)))
        except BaseException as error:
            try:
                os.unlink(temporary)
            except FileNotFoundError:
                pass  # it was never made
            if isinstance(error, OSError):
                raise FailedPrecondition(
                    f"cannot write to {self.name}", cause=error.strerror or str(error)
                ) from error
            raise
        finally:
            blob.close()
        return made(descriptor, digest, size)

    def put_manifest(self, document: Document, *, instance: bool) -> None:
        if instance:
            self._write(f"{_stem(document.digest)}.manifest.json", document.data)
        else:
            self._document = document

    def put_signatures(self, signatures: list[Signature], digest: str, *, instance: bool) -> None:
        prefix = f"{_stem(digest)}-" if instance else ""
        for number, signature in enumerate(signatures, 1):
            self._write(f"{prefix}signature-{number}", to_bytes(signature))

    def commit(self) -> None:
        assert self._document is not None
        self._write("manifest.json", self._document.data)

    def close(self) -> None:
        """Nothing is held open."""


def _all(write: Callable[[bytes | memoryview], int | None], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[write(view) or 0 :]
