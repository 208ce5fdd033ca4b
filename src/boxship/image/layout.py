"""An OCI image layout as a directory (image-spec, image-layout.md): a content store with names.

``oci-layout`` says the version, ``index.json`` the entry points, ``blobs/<algorithm>/<hex>`` the content. A *name* is
the annotation ``org.opencontainers.image.ref.name`` of an entry of the index; several entries may share one, as
the spec allows, and an entry may have none.

A `Layout` is a `boxship.image.store.Store`, so whatever pulls, loads or saves works on it. Blobs and the index appear
by rename; whoever changes the index holds the directory's lock (flock), so that two programs do not lose each other's
names. Nothing but what the spec names is left in the directory.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import msgspec

from boxship.errors import AlreadyExists, DataLoss, InvalidArgument, NotFound
from boxship.image.durable import describe, fsync_directory
from boxship.image.streams import CHUNK, Reader
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci.digest import Digest, Verifier

VERSION = "1.0.0"
LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
TEMPORARY = ".boxship-"
"""How files that are not finished begin; `Layout.sweep` removes those that a crash left."""


class _Version(msgspec.Struct, rename="camel"):
    image_layout_version: str


class Entry(msgspec.Struct, frozen=True):
    """One entry of the index: its ``name`` ("" when it has none), and the descriptor with its annotations."""

    name: str
    descriptor: oci.Descriptor


def name_of(descriptor: oci.Descriptor) -> str:
    return (descriptor.annotations or {}).get(oci.ANNOTATION_REF_NAME, "")


class Layout:
    """The layout in the directory ``path``, which must be one: raises NotFound, InvalidArgument (another version).

    ``shared`` is a directory that has the blobs in the place of the layout's own, for several layouts at once.
    """

    def __init__(self, path: str, shared: str = "") -> None:
        self.path = path
        self._blobs = shared or os.path.join(path, "blobs")
        self._unfinished = shared or path
        try:
            with open(os.path.join(path, "oci-layout"), "rb") as file:
                data = file.read(oci.DOCUMENT_LIMIT + 1)
        except FileNotFoundError:
            raise NotFound(f"{path} is not an OCI image layout", cause="it has no oci-layout file") from None
        except OSError as error:
            raise describe(error, f"cannot open the image layout {path}") from error
        version = oci.decode(_Version, data, f"{path}/oci-layout").image_layout_version
        if version != VERSION:
            raise InvalidArgument(f"{path}: image layout version {version!r} is not supported")

    @classmethod
    def create(cls, path: str) -> "Layout":
        """Make an empty layout; the directory may exist when it is empty. Raises AlreadyExists."""
        try:
            os.makedirs(path, mode=0o755, exist_ok=True)
            if os.listdir(path):
                raise AlreadyExists(f"cannot make an image layout in {path}", cause="the directory is not empty")
            os.makedirs(os.path.join(path, "blobs", "sha256"), mode=0o755)
            _write_whole(os.path.join(path, "index.json"), oci.encode(oci.Index(2, [], media_type=oci.MEDIA_INDEX)))
            _write_whole(os.path.join(path, "oci-layout"), LAYOUT_FILE)
        except OSError as error:
            raise describe(error, f"cannot make an image layout in {path}") from error
        return cls(path)

    @classmethod
    def open_or_create(cls, path: str, shared: str = "") -> "Layout":
        if not os.path.exists(os.path.join(path, "oci-layout")):
            cls.create(path)
            if shared:
                os.rmdir(os.path.join(path, "blobs", "sha256"))
        return cls(path, shared)

    # ── Names ──

    def index(self) -> oci.Index:
        """Raises InvalidArgument (damaged), NotFound."""
        try:
            with open(os.path.join(self.path, "index.json"), "rb") as file:
                data = file.read(oci.DOCUMENT_LIMIT + 1)
        except FileNotFoundError:
            raise NotFound(f"the image layout {self.path} has no index.json") from None
        return oci.decode(oci.Index, data, f"{self.path}/index.json")

    def entries(self) -> "list[Entry]":
        return [Entry(name_of(one), one) for one in self.index().manifests or []]

    def find(self, name: str) -> "list[oci.Descriptor]":
        """The entries of that name, in the index's order; possibly none."""
        return [entry.descriptor for entry in self.entries() if entry.name == name]

    def change(self, edit: "Callable[[list[oci.Descriptor]], list[oci.Descriptor]]") -> None:
        """Replace the index's entries by what ``edit`` makes of them, while nobody else can."""
        with self._locked():
            index = self.index()
            entries = edit(list(index.manifests or []))
            _write_whole(
                os.path.join(self.path, "index.json"), oci.encode(msgspec.structs.replace(index, manifests=entries))
            )

    def tag(self, name: str, descriptor: oci.Descriptor) -> None:
        """Let ``name`` mean ``descriptor`` and nothing else; ``""`` adds an entry without a name, once."""
        annotations = dict(descriptor.annotations or {})
        annotations.pop(oci.ANNOTATION_REF_NAME, None)
        if name:
            annotations[oci.ANNOTATION_REF_NAME] = name
        fresh = msgspec.structs.replace(descriptor, annotations=annotations or None)

        def edit(entries: "list[oci.Descriptor]") -> "list[oci.Descriptor]":
            if name:
                kept = [one for one in entries if name_of(one) != name]
            else:
                kept = [one for one in entries if name_of(one) or one.digest != descriptor.digest]
            return [*kept, fresh]

        self.change(edit)

    def untag(self, name: str) -> int:
        """Remove the entries of that name; says how many there were. Their content stays until it is collected."""
        removed = 0

        def edit(entries: "list[oci.Descriptor]") -> "list[oci.Descriptor]":
            nonlocal removed
            kept = [one for one in entries if name_of(one) != name]
            removed = len(entries) - len(kept)
            return kept

        self.change(edit)
        return removed

    # ── Content: a Store ──

    def blob_path(self, digest: str) -> str:
        algorithm, _, encoded = digests.parse(digest).partition(":")
        return os.path.join(self._blobs, algorithm, encoded)

    def exists(self, digest: str) -> bool:
        return os.path.exists(self.blob_path(digest))

    def open(self, digest: str) -> BinaryIO:
        """The blob, to be read and closed by the caller; raises NotFound. Nothing is verified here."""
        try:
            return open(self.blob_path(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"content {digest}: not found in {self.path}") from None

    def read(self, digest: str) -> bytes:
        """A document whole, verified; raises NotFound, DataLoss, InvalidArgument (too large for a document)."""
        with self.open(digest) as blob:
            data = blob.read(oci.DOCUMENT_LIMIT + 1)
        if len(data) > oci.DOCUMENT_LIMIT:
            raise InvalidArgument(f"content {digest} is larger than {oci.DOCUMENT_LIMIT} bytes")
        found = digests.of(data, digests.algorithm(digests.parse(digest)))
        if found != digest:
            raise DataLoss(f"content {digest} in {self.path} has digest {found}")
        return data

    def add(self, source: "Reader | bytes", *, expected: str = "", size: int = -1) -> "tuple[Digest, bool]":
        """Write a whole blob; says its digest and whether it is new. Raises DataLoss; then nothing is left."""
        name = digests.parse(expected) if expected else None
        with self.writing(Verifier(name, size, f"content {expected}" if expected else "content")) as blob:
            if isinstance(source, bytes):
                blob.write(source)
            else:
                while data := source.read(CHUNK):
                    blob.write(data)
            return blob.commit()

    @contextmanager
    def writing(self, verifier: "Verifier | None" = None) -> "Iterator[BlobWriter]":
        """A blob that is written piece by piece; it is there when its `BlobWriter.commit` returns, or nothing is."""
        temporary = os.path.join(self._unfinished, f"{TEMPORARY}{os.urandom(8).hex()}")
        try:
            os.makedirs(self._unfinished, mode=0o755, exist_ok=True)
            with open(temporary, "xb", buffering=0) as file:
                yield BlobWriter(self, file, temporary, verifier or Verifier())
        except OSError as error:
            raise describe(error, f"cannot write content to {self.path}") from error
        finally:
            try:
                os.unlink(temporary)
            except FileNotFoundError:
                pass  # it was never made, or has become the blob

    def delete(self, digest: str) -> None:
        """Idempotent."""
        try:
            os.unlink(self.blob_path(digest))
        except FileNotFoundError:
            pass  # it is gone, which is what was asked for

    def blobs(self) -> "Iterator[tuple[Digest, int]]":
        """Every blob's digest and size; what is not named by a digest is passed over."""
        root = self._blobs
        for algorithm in sorted(os.listdir(root)):
            for name in sorted(os.listdir(os.path.join(root, algorithm))):
                try:
                    digest = digests.parse(f"{algorithm}:{name}")
                except InvalidArgument:
                    continue
                yield digest, os.stat(os.path.join(root, algorithm, name)).st_size

    def sweep(self) -> "list[str]":
        """Remove unfinished files that a crash left; says their names. Nobody else may be writing."""
        left = [name for name in os.listdir(self.path) if name.startswith(TEMPORARY)]
        for name in left:
            os.unlink(os.path.join(self.path, name))
        return left

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # a network file system without locks
                    raise
            yield
        finally:
            os.close(fd)


class BlobWriter:
    """Made by `Layout.writing`."""

    def __init__(self, layout: Layout, file: BinaryIO, temporary: str, verifier: Verifier) -> None:
        self._layout = layout
        self._file = file
        self._temporary = temporary
        self._verifier = verifier

    def write(self, data: bytes) -> None:
        self._verifier.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    @property
    def size(self) -> int:
        return self._verifier.count

    def commit(self) -> "tuple[Digest, bool]":
        """The blob's digest, and whether it is new; raises DataLoss when it is not what was promised."""
        digest = self._verifier.finish()
        target = self._layout.blob_path(digest)
        directory = os.path.dirname(target)
        if os.path.exists(target):
            return digest, False
        os.fchmod(self._file.fileno(), 0o644)
        _give(self._file.fileno(), self._layout.path)
        os.fsync(self._file.fileno())
        if not os.path.isdir(directory):
            os.makedirs(directory, mode=0o755, exist_ok=True)
        os.rename(self._temporary, target)
        fsync_directory(directory)
        return digest, True


def _give(fd: int, layout: str) -> None:
    """Root's files in somebody's layout are that person's, or they could not change it any more."""
    owner = os.stat(layout)
    if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (0, 0):
        os.fchown(fd, owner.st_uid, owner.st_gid)


def _write_whole(path: str, data: bytes) -> None:
    temporary = os.path.join(os.path.dirname(path), f"{TEMPORARY}{os.urandom(8).hex()}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            _give(file.fileno(), os.path.dirname(path))
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass  # it was never made
        raise
    fsync_directory(os.path.dirname(path))
