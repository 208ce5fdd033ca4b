"""``docker-archive:PATH[:REFERENCE]``: what ``docker save`` writes; ``PATH:@N`` is its N-th image.

A manifest is not in it: one of docker's schema 2 is made from ``manifest.json`` and the config, with the layers
inflated, because the config names them by their diff IDs.
Written are the config, one tar for each layer, and ``manifest.json`` last; the header of a layer is filled in when
its digest and size are known. The file appears by rename.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Callable

import msgspec

from boxship.errors import FailedPrecondition, InvalidArgument, NotFound
from boxship.image.compression import CHUNK, Inflating, detect, inflate
from boxship.image.load import DockerImage
from boxship.image.manifests import Document
from boxship.image.trust.signatures import Signature
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci import reference as references

from .base import (
    Access,
    Blob,
    FileBlob,
    ImageNotFound,
    Layers,
    Name,
    made,
    no_signatures,
    pass_on,
    unsupported,
    verifier_of,
)  # fmt: skip
from .layout import split
from .tarfiles import TarFiles

BLOCK = tarfile.BLOCKSIZE


def check(details: str) -> None:
    path, wanted = split(details)
    if not path:
        raise InvalidArgument(f'docker archive reference "{details}" isn\'t of the form <path>[:<reference>]')
    if wanted and not wanted.startswith("@"):
        references.parse(wanted)


def source(name: Name, access: Access) -> DockerArchiveSource:
    return DockerArchiveSource(name, access)


def destination(name: Name, access: Access) -> DockerArchiveDestination:
    return DockerArchiveDestination(name, access)


def delete(name: Name, access: Access) -> None:
    raise unsupported(name, "images in an archive cannot be deleted", "remove the file")


def images_of(files: TarFiles) -> list[DockerImage]:
    """What ``manifest.json`` lists. Raises InvalidArgument."""
    try:
        data = files.read("manifest.json")
    except NotFound as error:
        raise InvalidArgument(f"{files.path} is no docker archive", cause="it has no manifest.json") from error
    return oci.decode(list[DockerImage], data, f"manifest.json of {files.path}")


def tags_of(path: str, tmpdir: str = "") -> list[str]:
    """Every reference in an archive. Raises NotFound, InvalidArgument."""
    files = TarFiles(path, tmpdir)
    try:
        return [tag for image in images_of(files) for tag in image.repo_tags or []]
    finally:
        files.close()


class DockerArchiveSource:
    def __init__(self, name: Name, access: Access, path: str = "", wanted: str | None = None) -> None:
        self.name = name
        where, reference = split(name.details)
        self._files = TarFiles(path or where, access.tmpdir)
        try:
            image = _choose(images_of(self._files), reference if wanted is None else wanted, name)
            self._config_name = image.config
            self._document = self._describe(image)
        except BaseException:
            self._files.close()
            raise

    def _describe(self, image: DockerImage) -> Document:
        data = self._config()
        config = oci.decode(oci.ImageConfig, data, f"image config {image.config}")
        if len(config.diff_ids) != len(image.layers):
            raise InvalidArgument(
                f"{self.name}: the config has {len(config.diff_ids)} diff IDs but {len(image.layers)} layers"
            )
        self._layers = dict(zip(config.diff_ids, image.layers, strict=True))
        self._digest = digests.of(data)
        layers = [
            oci.Descriptor(oci.DOCKER_LAYER, digests.parse(diff_id), self._size(path))
            for diff_id, path in zip(config.diff_ids, image.layers, strict=True)
        ]
        manifest = oci.Manifest(
            2, oci.Descriptor(oci.DOCKER_CONFIG, self._digest, len(data)), layers, media_type=oci.DOCKER_MANIFEST
        )
        return Document(oci.encode(manifest), oci.DOCKER_MANIFEST)

    def _config(self) -> bytes:
        return self._files.read(self._config_name)

    def _size(self, path: str) -> int:
        """Of the layer, inflated: then it has to be read once for that."""
        _, size = self._files.find(path)
        blob = self._files.open(path)
        try:
            if not detect(blob.read(6)):
                return size
        finally:
            blob.close()
        inflated, count = _InflatedBlob(self._files.open(path)), 0
        try:
            while data := inflated.read(CHUNK):
                count += len(data)
        finally:
            inflated.close()
        return count

    def manifest(self, digest: str = "") -> Document:
        if digest and digest != self._document.digest:
            raise NotFound(f"{self.name} has no manifest {digest}")
        return self._document

    def blob(self, descriptor: oci.Descriptor) -> Blob:
        if descriptor.digest == self._digest:
            return self._files.open(self._config_name)
        if descriptor.digest not in self._layers:
            raise NotFound(f"{self.name} has no layer {descriptor.digest}")
        return _InflatedBlob(self._files.open(self._layers[descriptor.digest]))

    def signatures(self, digest: str = "") -> list[Signature]:
        return []

    def close(self) -> None:
        self._files.close()


class _InflatedBlob:
    def __init__(self, blob: FileBlob) -> None:
        self._blob = blob
        self._stream: Inflating = inflate(blob)
        self.size = -1 if self._stream.compression else blob.size

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(size)

    def close(self) -> None:
        self._blob.close()


def _choose(images: list[DockerImage], wanted: str, name: Name) -> DockerImage:
    if wanted.startswith("@"):
        if wanted[1:].isdigit() and int(wanted[1:]) < len(images):
            return images[int(wanted[1:])]
        raise ImageNotFound(f"{name}: no image number {wanted[1:]!r}", cause=f"the archive has {len(images)}")
    if wanted:
        full = references.normalise(wanted)
        for image in images:
            if any(references.normalise(tag) == full for tag in image.repo_tags or []):
                return image
        there = ", ".join(tag for image in images for tag in image.repo_tags or []) or "none"
        raise ImageNotFound(f'{name}: Tag "{wanted}" not found', cause=f"the archive has {there}")
    if len(images) != 1:
        raise ImageNotFound(
            f"{name}: which image?", cause=f"the archive has {len(images)}", remedy="add :REFERENCE, or :@N by number"
        )
    return images[0]


class DockerArchiveDestination:
    formats: tuple[str, ...] = (oci.DOCKER_MANIFEST,)
    takes_indexes = False
    layers: Layers = "inflate"
    foreign = False
    at_once = 1

    def __init__(self, name: Name, access: Access, path: str = "", tags: tuple[str, ...] | None = None) -> None:
        self.name = name
        where, reference = split(name.details)
        if path == "" and reference.startswith("@"):
            raise InvalidArgument(f"{name}: a number names nothing that is new", remedy="give it a reference")
        self.path = path or where
        named = (reference,) if reference else ()
        self._tags = (
            [references.normalise(one) for one in (*named, *access.additional_tags)] if tags is None else tags
        )
        self._document: Document | None = None
        self._entries: set[str] = set()
        self._lock = threading.Lock()
        if not path and os.path.isfile(self.path) and os.path.getsize(self.path):
            raise FailedPrecondition(
                f"{name}: docker-archive doesn't support modifying existing images", remedy="remove the file first"
            )
        self._in_place = not os.path.exists(self.path) or os.path.isfile(self.path)
        try:
            directory = os.path.dirname(os.path.abspath(self.path)) if self._in_place else access.tmpdir or None
            fd, self._temporary = tempfile.mkstemp(prefix=".boxship-", dir=directory)
        except OSError as error:
            raise FailedPrecondition(f"cannot write {self.path}", cause=error.strerror or str(error)) from error
        self._file = os.fdopen(fd, "wb")

    def has(self, descriptor: oci.Descriptor, source: Name) -> bool:
        return _file_of(descriptor) in self._entries

    def put(self, source: Callable[[], Blob], descriptor: oci.Descriptor) -> oci.Descriptor:
        with self._lock:
            blob = source()
            start = self._file.tell()
            try:
                self._file.write(bytes(BLOCK))  # the header's place
                verifier = verifier_of(descriptor, f"blob {descriptor.digest or 'made here'}")
                digest, size = pass_on(blob, self._file.write, verifier)
                found = made(descriptor, digest, size)
                name = _file_of(found)
                if name in self._entries:
                    self._file.seek(start)
                    self._file.truncate()
                    return found
                self._file.write(bytes(-size % BLOCK))
                end = self._file.tell()
                self._file.seek(start)
                self._file.write(_header(name, size))
                self._file.seek(end)
                self._entries.add(name)
            except OSError as error:
                raise FailedPrecondition(f"cannot write {self.path}", cause=error.strerror or str(error)) from error
            finally:
                blob.close()
        return found

    def put_manifest(self, document: Document, *, instance: bool) -> None:
        self._document = document

    def put_signatures(self, signatures: list[Signature], digest: str, *, instance: bool) -> None:
        no_signatures(signatures, self.name)

    def commit(self) -> None:
        self.finish()
        try:
            if self._in_place:
                os.chmod(self._temporary, 0o644)
                os.rename(self._temporary, self.path)
            else:
                with open(self._temporary, "rb") as made_here, open(self.path, "wb") as out:
                    shutil.copyfileobj(made_here, out, CHUNK)
        except OSError as error:
            raise FailedPrecondition(f"cannot write {self.path}", cause=error.strerror or str(error)) from error

    def finish(self) -> str:
        """Write what comes last; says where the whole archive is."""
        assert self._document is not None
        manifest = self._document.manifest()
        image = DockerImage(
            _file_of(manifest.config),
            [_file_of(layer) for layer in manifest.layers],
            [references.familiar(tag) for tag in self._tags] or None,
        )
        data = msgspec.json.encode([image])
        try:
            self._file.write(
                _header("manifest.json", len(data)) + data + bytes(-len(data) % BLOCK) + bytes(2 * BLOCK)
            )
            self._file.flush()
        except OSError as error:
            raise FailedPrecondition(f"cannot write {self.path}", cause=error.strerror or str(error)) from error
        return self._temporary

    def close(self) -> None:
        self._file.close()
        try:
            os.unlink(self._temporary)
        except FileNotFoundError:
            pass  # it has become the archive


def _file_of(descriptor: oci.Descriptor) -> str:
    if not descriptor.digest:
        return ""
    suffix = "json" if descriptor.media_type in oci.CONFIG_TYPES else "tar"
    return f"{digests.encoded(digests.parse(descriptor.digest))}.{suffix}"


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    return info.tobuf(tarfile.GNU_FORMAT)
