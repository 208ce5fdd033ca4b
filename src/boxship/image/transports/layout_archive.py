"""``oci-archive:PATH[:NAME]``: an OCI layout in a tar.

It is read where it is; what is written is a layout in a temporary directory, packed when it is committed.
An archive holds one image: writing replaces the file.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile

from boxship.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound
from boxship.image.manifests import Document, read
from boxship.image.trust.signatures import Signature
from boxship.oci import digest as digests
from boxship.oci import image as oci

from .base import Access, Blob, Name, unsupported
from .layout import LayoutDestination, choose, split
from .tarfiles import TarFiles


def check(details: str) -> None:
    if not split(details)[0]:
        raise InvalidArgument(f"oci-archive:{details}: it names no file")


def source(name: Name, access: Access) -> LayoutArchiveSource:
    return LayoutArchiveSource(name, access)


def destination(name: Name, access: Access) -> LayoutArchiveDestination:
    return LayoutArchiveDestination(name, access)


def delete(name: Name, access: Access) -> None:
    raise unsupported(name, "images in an archive cannot be deleted", "remove the file")


class LayoutArchiveSource:
    def __init__(self, name: Name, access: Access) -> None:
        self.name = name
        path, self._wanted = split(name.details)
        self._files = TarFiles(path, access.tmpdir)

    def manifest(self, digest: str = "") -> Document:
        if not digest:
            try:
                index = oci.decode(oci.Index, self._files.read("index.json"), f"index.json of {self.name}")
            except NotFound as error:
                raise InvalidArgument(f"{self.name} is no OCI archive", cause="it has no index.json") from error
            digest = choose(list(index.manifests or []), self._wanted, self.name).digest
        data = self._files.read(_path(digest))
        if digests.of(data, digests.algorithm(digests.parse(digest))) != digest:
            raise DataLoss(f"manifest {digest} in {self.name} has another digest")
        return read(data, f"manifest {digest}")

    def blob(self, descriptor: oci.Descriptor) -> Blob:
        return self._files.open(_path(descriptor.digest))

    def signatures(self, digest: str = "") -> list[Signature]:
        return []

    def close(self) -> None:
        self._files.close()


def _path(digest: str) -> str:
    return "blobs/" + digests.parse(digest).replace(":", "/", 1)


class LayoutArchiveDestination(LayoutDestination):
    def __init__(self, name: Name, access: Access) -> None:
        self._path, _ = split(name.details)
        if not os.path.isdir(os.path.dirname(os.path.abspath(self._path))):
            raise FailedPrecondition(f"{name}: no such directory", remedy="make it first")
        self._directory = tempfile.mkdtemp(prefix="boxship-oci-", dir=access.tmpdir or None)
        super().__init__(name, access, self._directory)

    def commit(self) -> None:
        super().commit()
        temporary = f"{self._path}.{os.getpid()}"
        try:
            with (
                open(temporary, "wb") as out,
                tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive,
            ):
                for member in sorted(_below(self._directory)):
                    archive.add(os.path.join(self._directory, member), member, recursive=False, filter=_bare)
            os.rename(temporary, self._path)
        except OSError as error:
            raise FailedPrecondition(f"cannot write {self._path}", cause=error.strerror or str(error)) from error

    def close(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


def _below(directory: str) -> list[str]:
    found = []
    for root, directories, files in os.walk(directory):
        found += [os.path.relpath(os.path.join(root, one), directory) for one in (*directories, *files)]
    return found


def _bare(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """No times and owners: equal images give equal archives."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    return info
