"""``oci:PATH[:NAME]``: an OCI layout in a directory; ``oci:PATH:@N`` is its N-th entry, for entries without a name.

Without a name, a layout with one entry gives that, and a copy to it adds an entry without a name.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from boxship.errors import InvalidArgument, NotFound
from boxship.image.layout import Layout
from boxship.image.manifests import Document, read
from boxship.image.trust.signatures import Signature
from boxship.oci import image as oci

from .base import Access, Blob, FileBlob, ImageNotFound, Layers, Name, made, no_signatures

__all__ = ["LayoutDestination", "LayoutSource", "check", "choose", "delete", "destination", "source", "split"]


def split(details: str) -> tuple[str, str]:
    """Path and name; names may have colons, paths may not."""
    path, _, name = details.partition(":")
    return path, name


def check(details: str) -> None:
    if not split(details)[0]:
        raise InvalidArgument(f"oci:{details}: it names no directory", remedy="write oci:PATH or oci:PATH:NAME")


def source(name: Name, access: Access) -> LayoutSource:
    return LayoutSource(name, access)


def destination(name: Name, access: Access) -> LayoutDestination:
    return LayoutDestination(name, access)


def delete(name: Name, access: Access) -> None:
    """Remove the name, and the blobs that nothing else needs."""
    path, entry = split(name.details)
    layout = Layout(path, access.shared_blobs)
    descriptor = choose([one.descriptor for one in layout.entries()], entry, name)

    def without(entries: list[oci.Descriptor]) -> list[oci.Descriptor]:
        return [one for one in entries if one != descriptor]

    layout.change(without)
    if access.shared_blobs:
        return  # other layouts may need them
    needed: set[str] = set()
    for one in layout.entries():
        needed |= set(_reached(layout, one.descriptor))
    for digest in _reached(layout, descriptor):
        if digest not in needed:
            layout.delete(digest)


def _reached(layout: Layout, descriptor: oci.Descriptor) -> list[str]:
    from boxship.image.store import tree

    return [one.digest for one in tree(layout, descriptor)]


def choose(entries: list[oci.Descriptor], wanted: str, name: Name) -> oci.Descriptor:
    """The entry that a name means. Raises ImageNotFound, InvalidArgument (several)."""
    if wanted.startswith("@") and wanted[1:].isdigit():
        if int(wanted[1:]) < len(entries):
            return entries[int(wanted[1:])]
        raise ImageNotFound(f"{name}: index {wanted[1:]}", cause=f"the layout has {len(entries)} entries")
    if wanted:
        found = [one for one in entries if (one.annotations or {}).get(oci.ANNOTATION_REF_NAME) == wanted]
        if not found:
            names = sorted({(one.annotations or {}).get(oci.ANNOTATION_REF_NAME, "") for one in entries} - {""})
            there = f"there are {', '.join(names)}" if names else "it has no names"
            raise ImageNotFound(f'{name}: no descriptor found for reference "{wanted}"', cause=there)
        return found[0]
    if len(entries) != 1:
        raise ImageNotFound(
            f"{name}: which image?", cause=f"the layout has {len(entries)}", remedy="add :NAME, or :@N by number"
        )
    return entries[0]


class LayoutSource:
    def __init__(self, name: Name, access: Access, path: str = "") -> None:
        self.name = name
        where, self._wanted = split(name.details)
        try:
            self._layout = Layout(path or where, access.shared_blobs)
        except NotFound as error:
            raise ImageNotFound(error.message, cause=error.cause) from error
        self._top: oci.Descriptor | None = None

    def manifest(self, digest: str = "") -> Document:
        if not digest:
            if self._top is None:
                self._top = choose([one.descriptor for one in self._layout.entries()], self._wanted, self.name)
            digest = self._top.digest
        try:
            data = self._layout.read(digest)
        except NotFound as error:
            raise ImageNotFound(error.message) from error
        return read(data, f"manifest {digest}")

    def blob(self, descriptor: oci.Descriptor) -> Blob:
        file = self._layout.open(descriptor.digest)
        return FileBlob(file, os.fstat(file.fileno()).st_size)

    def signatures(self, digest: str = "") -> list[Signature]:
        return []

    def close(self) -> None:
        """Nothing is held open."""


class LayoutDestination:
    formats: tuple[str, ...] = (oci.MEDIA_MANIFEST,)
    takes_indexes = True
    foreign = True
    at_once = 6

    def __init__(self, name: Name, access: Access, path: str = "") -> None:
        self.name = name
        where, self._entry = split(name.details)
        if self._entry.startswith("@"):
            raise InvalidArgument(f"{name}: a number names nothing that is new", remedy="give it a name")
        self.layers: Layers = "as-is" if access.accept_uncompressed else "compress"
        self.layout = Layout.open_or_create(path or where, access.shared_blobs)
        self._document: Document | None = None

    def has(self, descriptor: oci.Descriptor, source: Name) -> bool:
        return self.layout.exists(descriptor.digest)

    def put(self, source: Callable[[], Blob], descriptor: oci.Descriptor) -> oci.Descriptor:
        blob = source()
        try:
            if descriptor.digest:
                self.layout.add(blob, expected=descriptor.digest, size=descriptor.size)
                return descriptor
            counted = _Counted(blob)
            digest, _ = self.layout.add(counted)
            return made(descriptor, digest, counted.count)
        finally:
            blob.close()

    def put_manifest(self, document: Document, *, instance: bool) -> None:
        self.layout.add(document.data, expected=document.digest)
        if not instance:
            self._document = document

    def put_signatures(self, signatures: list[Signature], digest: str, *, instance: bool) -> None:
        no_signatures(signatures, self.name)

    def commit(self) -> None:
        assert self._document is not None
        self.layout.tag(self._entry, self._document.descriptor)

    def close(self) -> None:
        """Nothing is held open."""


class _Counted:
    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self.count = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._blob.read(size)
        self.count += len(data)
        return data
