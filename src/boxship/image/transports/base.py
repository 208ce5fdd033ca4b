"""What transports promise: a source gives, a destination takes, and neither decodes what nobody asks for.

The life of a copy::

    source.manifest() ─► for each blob: destination.has(blob)? else destination.put(source.blob(...))
                      ─► destination.put_manifest(...) (instances of an index first) ─► put_signatures ─► commit

Nothing is seen at a destination before `commit` returns, apart from a registry's blobs and manifests without a tag.
Both are closed by who opened them, also after a failure; closing twice is fine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Literal

import msgspec

from boxship.errors import BoxshipError, InvalidArgument, NotFound
from boxship.image.manifests import Document
from boxship.image.registry.credentials import Credential
from boxship.image.streams import CHUNK, Reader
from boxship.image.trust.signatures import Signature
from boxship.oci import image as oci
from boxship.oci import platform as platforms
from boxship.oci.digest import Digest, Verifier, parse
from boxship.oci.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object


class ImageNotFound(NotFound):
    """The transport works, and has no such image: skopeo's exit code 2."""

    exit_code = 2


class Name(msgspec.Struct, frozen=True):
    """An image's name as a person writes it."""

    transport: str
    details: str

    def __str__(self) -> str:
        return f"{self.transport}:{self.details}"


class Access(msgspec.Struct, frozen=True):
    """How to reach one end of a copy: what skopeo's ``--src-...`` or ``--dest-...`` flags say.

    ``credential`` None looks into the auth files, an empty one asks nobody. ``tls_verify`` None verifies, but not on
    loopback, where plain HTTP is taken as well.
    """

    credential: "Credential | None" = None
    authfile: str = ""
    registry_token: str = ""
    cert_dir: str = ""
    tls_verify: "bool | None" = None
    daemon_host: str = ""
    shared_blobs: str = ""
    registries_conf: str = ""
    registries_d: str = ""
    tmpdir: str = ""
    agent: str = ""
    """What stands before our name in requests."""
    platform: Platform = msgspec.field(default_factory=platforms.host)
    compress: bool = False
    """``dir:`` compresses what is not (--dest-compress)."""
    decompress: bool = False
    """``dir:`` inflates what is compressed (--dest-decompress)."""
    accept_uncompressed: bool = False
    """``oci:`` takes plain layers as they are."""
    additional_tags: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Access({self.credential!r}, {self.platform})"  # the token is nobody's business


class Blob(Protocol):
    """Bytes on their way; ``size`` -1 when nobody said it. Close it."""

    size: int

    def read(self, size: int = -1, /) -> bytes: ...
    def close(self) -> None: ...


class FileBlob:
    """A blob in a file, or a stretch of one: ``size`` bytes from ``offset``."""

    def __init__(self, file: BinaryIO, size: int, offset: int = -1) -> None:
        self._file = file
        self.size = size
        self._left = size
        if offset >= 0:
            file.seek(offset)

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted) if wanted else b""
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


class Source(Protocol):
    """One image, or an index of several. Its methods may be called from several threads."""

    name: Name

    def manifest(self, digest: str = "") -> Document:
        """The document that the name stands for, or an index's instance by its digest. Raises ImageNotFound."""

    def blob(self, descriptor: oci.Descriptor) -> Blob:
        """Its bytes, not yet verified; may be asked for more than once. Raises NotFound."""

    def signatures(self, digest: str = "") -> "list[Signature]":
        """Of the named document, or of an instance; possibly none."""

    def close(self) -> None: ...


Layers = Literal["compress", "inflate", "as-is"]


class Destination(Protocol):
    """Where one image goes. ``has`` and ``put`` may be called from ``at_once`` threads."""

    name: Name
    formats: "tuple[str, ...]"
    """Media types of manifests that it takes, the preferred first; () takes any."""
    takes_indexes: bool
    layers: Layers
    """Whether plain layers are to be compressed, compressed ones inflated, or all left alone."""
    foreign: bool
    """Whether layers that live at URLs of their own may stay there."""
    at_once: int

    def has(self, descriptor: oci.Descriptor, source: Name) -> bool:
        """Whether the blob is there, or could be brought there without being sent."""

    def put(self, source: "Callable[[], Blob]", descriptor: oci.Descriptor) -> oci.Descriptor:
        """Take a blob; says its digest and size. ``source`` gives it from the start, each time that it is called.

        A descriptor with digest "" is of bytes that are being made; else they are verified. Raises DataLoss.
        """

    def put_manifest(self, document: Document, *, instance: bool) -> None:
        """Take a manifest or index; ``instance`` for one that an index names, which must come before its index."""

    def put_signatures(self, signatures: "list[Signature]", digest: str, *, instance: bool) -> None:
        """Raises Unimplemented where signatures have no place; an empty list is fine everywhere."""

    def commit(self) -> None:
        """Show the image under its name."""

    def close(self) -> None: ...


def verifier_of(descriptor: oci.Descriptor, what: str) -> Verifier:
    """For a blob that is verified, or (no digest yet) only counted and hashed."""
    if not descriptor.digest:
        return Verifier(None, -1, what)
    return Verifier(parse(descriptor.digest), descriptor.size, what)


def pass_on(source: Reader, write: "Callable[[bytes], object]", verifier: Verifier) -> "tuple[Digest, int]":
    """Write all of ``source``, verified; says digest and size. Raises DataLoss."""
    while data := source.read(CHUNK):
        verifier.update(data)
        write(data)
    return verifier.finish(), verifier.count


def made(descriptor: oci.Descriptor, digest: str, size: int) -> oci.Descriptor:
    """The descriptor with the digest and size that were found."""
    if (descriptor.digest, descriptor.size) == (digest, size):
        return descriptor
    return oci.Descriptor(descriptor.media_type, digest, size, descriptor.urls, descriptor.annotations)


def no_signatures(signatures: "list[Signature]", name: Name) -> None:
    """For destinations where signatures have no place. Raises InvalidArgument."""
    if signatures:
        raise InvalidArgument(
            f"Can not copy signatures to {name}",
            cause=f"{name.transport}: does not keep signatures",
            remedy="use --remove-signatures",
        )


def unsupported(name: Name, what: str, remedy: str = "") -> BoxshipError:
    from boxship.errors import Unimplemented

    return Unimplemented(f"{name.transport}: {what}", remedy=remedy)
