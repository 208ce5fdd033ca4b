"""``docker://HOST/PATH[:TAG|@DIGEST]``: a registry.

Where it is and how it is spoken to is `boxship.image.registry`'s business, mirrors and other addresses come from
``registries.conf``. Simple signatures are kept beside the registry (`boxship.image.trust.lookaside`), sigstore
ones in it, as the manifest ``sha256-HEX.sig`` of cosign.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from boxship.errors import AlreadyExists, BoxshipError, InvalidArgument, NotFound, PeerError
from boxship.image.manifests import Document
from boxship.image.registry import containers_conf
from boxship.image.registry.auth import AuthFiles
from boxship.image.registry.client import Repository
from boxship.image.registry.containers_conf import Address
from boxship.image.registry.hosts import DIRECTORIES, Settings
from boxship.image.registry.resumed import Resumed
from boxship.image.streams import CHUNK
from boxship.image.trust import attached, lookaside
from boxship.image.trust.signatures import Signature, Sigstore, Simple
from boxship.oci import image as oci
from boxship.oci import reference as references
from boxship.oci.reference import Reference

from .base import Access, Blob, ImageNotFound, Layers, Name, made, verifier_of

CERTIFICATES = ("/etc/containers/certs.d", *DIRECTORIES)


def check(details: str) -> None:
    reference_of(details)


def source(name: Name, access: Access) -> Registry:
    return Registry(name, access)


def destination(name: Name, access: Access) -> RegistryDestination:
    return RegistryDestination(name, access)


def delete(name: Name, access: Access) -> None:
    """Delete the manifest, and with it its tags and its simple signatures."""
    reference = reference_of(name.details)
    repository = repository_at(containers_conf.address(reference, access.registries_conf), access)
    try:
        found = repository.head(reference.digest or reference.tag)
        if found is None:
            raise ImageNotFound(
                f"Unable to delete {name}", cause="Image may not exist or is not stored with a v2 Schema"
            )
        repository.delete("manifests", found.digest)
    finally:
        repository.close()
    lookaside.find(reference, access.registries_d).remove(reference, found.digest)


def reference_of(details: str) -> Reference:
    """Raises InvalidArgument."""
    if not details.startswith("//"):
        raise InvalidArgument(f"docker: image reference {details} does not start with //")
    return references.parse(details[2:]).with_default_tag()


def repository_at(address: Address, access: Access) -> Repository:
    verify = access.tls_verify
    if verify is None and address.insecure:
        verify = False
    return Repository(
        address.reference,
        settings=Settings(directories=CERTIFICATES, verify=verify, certificates=access.cert_dir, agent=access.agent),
        credential=access.credential,
        credentials=AuthFiles(address.reference, access.authfile),
        registry_token=access.registry_token,
    )


class Registry:
    """A source. The first of its addresses that has the manifest gives everything else, too."""

    def __init__(self, name: Name, access: Access) -> None:
        self.name = name
        self.reference = reference_of(name.details)
        self._access = access
        self._addresses = containers_conf.addresses(self.reference, access.registries_conf)
        self._chosen: Repository | None = None
        self._top: Document | None = None
        self._lock = threading.Lock()

    def manifest(self, digest: str = "") -> Document:
        if digest:
            return self._read(self.repository(), digest)
        self.repository()
        assert self._top is not None
        return self._top

    def repository(self) -> Repository:
        """Where it was found. Raises ImageNotFound, Unavailable, PermissionDenied."""
        with self._lock:
            if self._chosen is None:
                self._choose()
            assert self._chosen is not None
            return self._chosen

    def _choose(self) -> None:
        for number, address in enumerate(self._addresses):
            repository = repository_at(address, self._access)
            try:
                self._top = self._read(repository, address.reference.digest or address.reference.tag)
            except BoxshipError:
                repository.close()
                if number + 1 == len(self._addresses):
                    raise
                continue  # a mirror may lack it, or be away
            self._chosen = repository
            return

    def _read(self, repository: Repository, reference: str) -> Document:
        try:
            descriptor, data = repository.manifest(reference)
        except NotFound as error:
            raise ImageNotFound(
                f"reading {error.message} in {repository.reference.name}", cause=error.cause
            ) from error
        return Document(data, descriptor.media_type)

    def blob(self, descriptor: oci.Descriptor) -> Blob:
        return Resumed(self.repository(), descriptor, threading.Event(), lambda *_: None)

    def signatures(self, digest: str = "") -> list[Signature]:
        wanted = digest or self.manifest().digest
        store = lookaside.find(self.reference, self._access.registries_d)
        found: list[Signature] = list(store.read(self.reference, wanted))
        if store.attachments:
            found += attached.read(self.repository(), wanted)
        return found

    def tags(self) -> list[str]:
        """Every tag of the repository. Raises NotFound, PermissionDenied."""
        failure: BoxshipError | None = None
        for address in self._addresses:
            repository = repository_at(address, self._access)
            try:
                return repository.tags()
            except BoxshipError as error:
                failure = error
            finally:
                repository.close()
        assert failure is not None
        raise failure

    def close(self) -> None:
        if self._chosen is not None:
            self._chosen.close()


class RegistryDestination:
    formats: tuple[str, ...] = ()
    takes_indexes = True
    layers: Layers = "compress"
    foreign = True
    at_once = 6

    def __init__(self, name: Name, access: Access) -> None:
        self.name = name
        self.reference = reference_of(name.details)
        self._access = access
        self._repository = repository_at(containers_conf.address(self.reference, access.registries_conf), access)
        self._document: Document | None = None

    def has(self, descriptor: oci.Descriptor, source: Name) -> bool:
        if self._repository.has_blob(descriptor.digest):
            return True
        if source.transport != "docker":
            return False
        other = reference_of(source.details)
        if other.domain != self.reference.domain or other.path == self.reference.path:
            return False
        try:
            return self._repository.mount(descriptor.digest, other.path)
        except (PeerError, NotFound, AlreadyExists):
            return False  # mounting saves time, nothing more

    def put(self, source: Callable[[], Blob], descriptor: oci.Descriptor) -> oci.Descriptor:
        verifier = verifier_of(descriptor, f"blob {descriptor.digest or 'made here'}")

        def pieces(offset: int) -> Iterator[bytes]:
            nonlocal verifier
            verifier = verifier_of(descriptor, f"blob {descriptor.digest or 'made here'}")
            blob = source()
            try:
                while data := blob.read(CHUNK):
                    verifier.update(data)
                    yield data
                verifier.finish()
            finally:
                blob.close()

        if descriptor.digest:
            self._repository.upload(descriptor.digest, descriptor.size, pieces)
            return descriptor
        self._repository.upload_stream(pieces(0), lambda: verifier.digest)
        return made(descriptor, verifier.digest, verifier.count)

    def put_manifest(self, document: Document, *, instance: bool) -> None:
        if instance:
            self._repository.put_manifest(document.digest, document.data, document.media_type)
        else:
            self._document = document

    def put_signatures(self, signatures: list[Signature], digest: str, *, instance: bool) -> None:
        store = lookaside.find(self.reference, self._access.registries_d)
        simple = [one for one in signatures if isinstance(one, Simple)]
        sigstore = [one for one in signatures if isinstance(one, Sigstore)]
        if simple:
            store.write(self.reference, digest, simple)
        if sigstore:
            if not store.attachments:
                raise InvalidArgument(
                    f"Cannot determine where to put a sigstore signature of {self.reference}",
                    cause="registries.d does not say use-sigstore-attachments: true for it",
                    remedy="say so there, or use --remove-signatures",
                )
            attached.write(self._repository, digest, sigstore)

    def commit(self) -> None:
        assert self._document is not None
        reference = self.reference.digest or self.reference.tag
        if self.reference.digest and self.reference.digest != self._document.digest:
            raise InvalidArgument(
                f"cannot write {self.name}",
                cause=f"the manifest has digest {self._document.digest}",
                remedy="copy to a tag, or use --preserve-digests",
            )
        self._repository.put_manifest(reference, self._document.data, self._document.media_type)

    def close(self) -> None:
        self._repository.close()
