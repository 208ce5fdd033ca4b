"""The files in a tar, in any order: where each begins is noted once, and then it is read from there.

A compressed archive (gzip, zstd, bzip2, xz) is inflated into a temporary file first, because nothing in it can be
found otherwise. Links are followed inside the archive; nothing is ever unpacked.
"""

from __future__ import annotations

import bz2
import lzma
import os
import tarfile
import tempfile
from typing import IO, BinaryIO, cast

from boxship.errors import BoxshipError, DataLoss, InvalidArgument, NotFound
from boxship.image.compression import CHUNK, Peekable, Reader, inflate
from boxship.oci import image as oci

from .base import FileBlob

LINKS = 8


class TarFiles:
    """Close it. Raises NotFound (no such archive), InvalidArgument (no archive), DataLoss (cut short)."""

    def __init__(self, path: str, tmpdir: str = "") -> None:
        self.path = path
        try:
            self._file: IO[bytes] = open(path, "rb")  # noqa: SIM115 - close() closes it
        except FileNotFoundError:
            raise NotFound(f"{path}: no such file or directory") from None
        except OSError as error:
            raise InvalidArgument(f"cannot read {path}", cause=error.strerror or str(error)) from error
        try:
            plain = _plain(self._file, path, tmpdir)
            if plain is not self._file:
                self._file.close()
                self._file = plain
            self._members, self._links = _index(self._file, path)
        except BaseException:
            self._file.close()
            raise

    def find(self, name: str) -> tuple[int, int]:
        """Where a file begins, and its size. Raises NotFound."""
        wanted = _clean(name)
        for _ in range(LINKS):
            if wanted in self._members:
                return self._members[wanted]
            if wanted not in self._links:
                break
            wanted = self._links[wanted]
        raise NotFound(f"{self.path} has no file {name!r}")

    def has(self, name: str) -> bool:
        try:
            self.find(name)
        except NotFound:
            return False
        return True

    def open(self, name: str) -> FileBlob:
        """Its bytes; several may be read at once. Raises NotFound."""
        offset, size = self.find(name)
        return FileBlob(open(f"/proc/self/fd/{self._file.fileno()}", "rb", buffering=0), size, offset)

    def read(self, name: str) -> bytes:
        """A document whole. Raises NotFound, InvalidArgument (too large for one), DataLoss."""
        _, size = self.find(name)
        if size > oci.DOCUMENT_LIMIT:
            raise InvalidArgument(f"{self.path}: {name!r} is larger than {oci.DOCUMENT_LIMIT} bytes")
        blob = self.open(name)
        try:
            data = b""
            while part := blob.read():
                data += part
        finally:
            blob.close()
        if len(data) != size:
            raise DataLoss(f"{self.path}: {name!r} is cut short")
        return data

    def close(self) -> None:
        self._file.close()


def _clean(name: str) -> str:
    return os.path.normpath("/" + name)[1:]


def _index(file: IO[bytes], path: str) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    members: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    file.seek(0)
    end = os.fstat(file.fileno()).st_size
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                name = _clean(member.name)
                if member.issym():
                    links[name] = _clean(f"{os.path.dirname(name)}/{member.linkname}")
                elif member.islnk():
                    links[name] = _clean(member.linkname)
                elif member.isreg():
                    if member.offset_data + member.size > end:
                        raise DataLoss(f"{path} is cut short", cause=f"{member.name!r} does not end")
                    members[name] = (member.offset_data, member.size)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise InvalidArgument(f"{path} is no tar archive", cause=str(error)) from error
    return members, links


def _plain(file: IO[bytes], path: str, tmpdir: str) -> IO[bytes]:
    """The file, or a temporary one with what it inflates to."""
    head = file.read(6)
    if os.path.isfile(path):
        file.seek(0)
        source: Reader = cast(BinaryIO, file)
    else:
        source = _Joined(head, file)  # a pipe
    stream: Reader
    if head.startswith(b"BZh"):
        stream = bz2.BZ2File(cast(BinaryIO, source))
    elif head.startswith(b"\xfd7zXZ\0"):
        stream = lzma.LZMAFile(cast(BinaryIO, source))  # noqa: SIM115 - the file below it is the owner
    else:
        inflated = inflate(Peekable(source))
        if not inflated.compression and os.path.isfile(path):
            return file
        stream = inflated
    plain = tempfile.TemporaryFile(dir=tmpdir or None)  # noqa: SIM115 - it is what is returned
    try:
        while data := stream.read(CHUNK):
            plain.write(data)
        plain.flush()
    except (EOFError, lzma.LZMAError, OSError) as error:
        plain.close()
        raise DataLoss(f"{path} cannot be inflated", cause=str(error)) from error
    except BoxshipError:
        plain.close()
        raise
    return cast("IO[bytes]", plain)


class _Joined:
    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int = -1, /) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        return self._rest.read(size)
