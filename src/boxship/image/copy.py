"""Copying an image from a source to a destination: the order of a copy on one screen is `copy`.

What the destination takes and what is asked for decide a `Change` for each layer and a format for the manifest. Where
neither asks for anything, bytes pass: the digests at the destination are the source's.
Blobs go several at once, each streamed; memory does not grow with them. The first failure ends the others.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import msgspec

from boxship.errors import InvalidArgument, NotFound, Unimplemented
from boxship.image import manifests
from boxship.image.manifests import Document, Format
from boxship.image.parallel import Pool, Watched
from boxship.image.streams import Compression, Reader
from boxship.image.transforms import Change, Made, check_level
from boxship.image.transports.base import Access, Blob, Destination, Name, Source
from boxship.image.trust.signatures import Signature
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci import platform as platforms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object

Images = Literal["system", "all", "index-only"]
AT_ONCE = 6


class Report(Protocol):
    """Told what a copy does; ``moved`` comes from several threads, with the bytes that have passed."""

    def say(self, text: str, /) -> None: ...
    def blob(self, descriptor: oci.Descriptor, what: str, /) -> None: ...
    def moved(self, descriptor: oci.Descriptor, count: int, /) -> None: ...


class Silent:
    """A ``Report`` for those who do not watch."""

    def say(self, text: str, /) -> None: ...
    def blob(self, descriptor: oci.Descriptor, what: str, /) -> None: ...
    def moved(self, descriptor: oci.Descriptor, count: int, /) -> None: ...


class Judge(Protocol):
    """`boxship.image.trust.policy.Policy` is one: raises when an image may not be used."""

    def check(self, name: Name, document: Document, signatures: "Callable[[], Sequence[Signature]]") -> None: ...


class Signer(Protocol):
    """Makes a signature of a manifest for a destination, or says why it cannot."""

    def sign(self, document: Document, identity: str) -> Signature: ...


class Cipher(Protocol):
    """`boxship.image.encryption` has them: a ``seal`` is made for one layer and knows its annotations at the end."""

    def seal(self) -> "Seal": ...


class Seal(Protocol):
    def __call__(self, source: Reader) -> Reader: ...
    def annotations(self) -> "dict[str, str]": ...


class Opener(Protocol):
    """Decrypts a layer by what its annotations say."""

    def __call__(self, descriptor: oci.Descriptor) -> "Callable[[Reader], Reader]": ...


class Options(msgspec.Struct, frozen=True):
    """What a copy is asked for beyond copying.

    ``encrypt_layers`` counts from 0, negative numbers from the end; empty means all.
    """

    images: Images = "system"
    format: "Format | None" = None
    preserve_digests: bool = False
    compression: "Compression | None" = None
    level: "int | None" = None
    remove_signatures: bool = False
    signers: "tuple[Signer, ...]" = ()
    identity: str = ""
    cipher: "Cipher | None" = None
    encrypt_layers: "tuple[int, ...]" = ()
    opener: "Opener | None" = None
    at_once: int = AT_ONCE
    judge: "Judge | None" = None
    access: Access = msgspec.field(default_factory=Access)
    """The source's: its platform chooses from an index."""


def copy(source: Source, destination: Destination, options: Options, report: "Report | None" = None) -> Document:
    """Copy the image and show it at the destination; gives the document that the name stands for there.

    Raises what source and destination raise, and InvalidArgument where what is asked for cannot be done.
    """
    return _Copy(source, destination, options, report or Silent()).run()


class _Copy:
    def __init__(self, source: Source, destination: Destination, options: Options, report: Report) -> None:
        self._source = source
        self._destination = destination
        self._options = options
        self._report = report
        self._stop = threading.Event()
        if options.compression:
            check_level(options.compression, options.level)

    def run(self) -> Document:
        top = self._source.manifest()
        if self._options.signers:
            self._identity()  # refused now, and not when everything has been copied
        if not top.is_index:
            if self._options.images == "index-only":
                raise InvalidArgument(
                    f"{self._source.name} is a single image, no index", remedy="leave --multi-arch index-only out"
                )
            done = self._image(top, instance=False)
        elif self._options.images == "system":
            digest = choose(top, self._options.access.platform)
            done = self._image(self._source.manifest(digest), instance=False, digest=digest)
        else:
            done = self._index(top)
        self._destination.commit()
        return done

    # ── One image ──

    def _image(self, document: Document, *, instance: bool, digest: str = "") -> Document:
        """``digest`` names it at the source when the name there means an index."""
        options = self._options
        signatures: Sequence[Signature] = ()
        if options.judge is not None:
            options.judge.check(self._source.name, document, lambda: self._source.signatures(digest))
        if not options.remove_signatures:
            self._report.say("Getting image source signatures")
            signatures = self._source.signatures(digest)
        format = self._format(document)
        written = self._blobs(document, format)
        if format is not None and written.media_type != manifests.MANIFEST_OF[format]:
            written = manifests.convert(written, format)
        if options.preserve_digests and written.digest != document.digest:
            raise InvalidArgument(
                f"{self._destination.name}: the manifest must be changed, and its digest is to be preserved",
                remedy="leave --preserve-digests out, or copy to a transport that takes the image as it is",
            )
        if signatures and written.digest != document.digest:
            raise InvalidArgument(
                f"{self._destination.name}: the manifest must be changed, and its signatures would be worth nothing",
                remedy="use --remove-signatures",
            )
        self._finish(written, list(signatures), instance=instance)
        return written

    def _finish(self, document: Document, signatures: "list[Signature]", *, instance: bool) -> None:
        for signer in self._options.signers:
            self._report.say("Signing manifest")
            signatures.append(signer.sign(document, self._identity()))
        self._report.say("Writing manifest to image destination")
        self._destination.put_manifest(document, instance=instance)
        if signatures:
            self._report.say("Storing signatures")
            self._destination.put_signatures(signatures, document.digest, instance=instance)

    def _identity(self) -> str:
        """The reference that a signature is for."""
        if self._options.identity:
            return self._options.identity
        name = self._destination.name
        if name.transport != "docker":
            raise InvalidArgument(
                f"Cannot determine canonical Docker reference for destination {name}",
                remedy="name the image with --sign-identity",
            )
        from boxship.image.transports.docker import reference_of

        return str(reference_of(name.details))

    def _format(self, document: Document) -> "Format | None":
        """The format to write; None leaves it alone. Raises InvalidArgument for one that the destination refuses."""
        options, takes = self._options, self._destination.formats
        if document.media_type not in oci.MANIFEST_TYPES:
            return None
        wanted: Format | None = options.format
        if wanted is None and (options.compression == "zstd" or options.cipher is not None):
            wanted = "oci"  # docker's format has no words for these
        if wanted is None:
            wanted = document.format
            if takes and manifests.MANIFEST_OF[wanted] not in takes:
                wanted = next(one for one in manifests.FORMATS if manifests.MANIFEST_OF[one] in takes)
        elif takes and manifests.MANIFEST_OF[wanted] not in takes:
            raise InvalidArgument(f"{self._destination.name} takes no manifests of format {wanted}")
        return wanted

    # ── Blobs ──

    def _blobs(self, document: Document, format: "Format | None") -> Document:
        """Bring config and layers over; gives the manifest with what they became."""
        manifest = document.manifest()
        self._check(manifest, document)
        changes = self._changes(manifest, format)
        done: dict[tuple[str, Change], oci.Descriptor] = {}
        wanted = [(layer, change) for layer, change in zip(manifest.layers, changes, strict=True)]
        jobs = {(layer.digest, change): layer for layer, change in wanted if not self._stays(layer, change)}
        with Pool(min(self._options.at_once, self._destination.at_once), self._stop) as pool:
            for (digest, change), layer in jobs.items():
                pool.add(partial(self._bring, done, digest, layer, change))
            pool.add(partial(self._config, manifest.config))
            pool.join()
        layers = [done.get((layer.digest, change), layer) for layer, change in wanted]
        return manifests.with_layers(
            document, [replace_found(layer, found) for layer, found in zip(manifest.layers, layers, strict=True)]
        )

    def _check(self, manifest: oci.Manifest, document: Document) -> None:
        for blob in (manifest.config, *manifest.layers):
            digests.parse(blob.digest)
            if blob.size < 0:
                raise InvalidArgument(f"manifest {document.digest} says that {blob.digest} has {blob.size} bytes")

    def _stays(self, layer: oci.Descriptor, change: Change) -> bool:
        """A layer that lives elsewhere, and may."""
        return bool(layer.urls) and self._destination.foreign and change.is_none

    def _changes(self, manifest: oci.Manifest, format: "Format | None") -> "list[Change]":
        count = len(manifest.layers)
        sealed = {number % count for number in self._options.encrypt_layers if -count <= number < count}
        if self._options.encrypt_layers and len(sealed) != len(set(self._options.encrypt_layers)):
            raise InvalidArgument(f"--encrypt-layer names a layer that is not there: the image has {count}")
        return [
            self._change(layer, format, seal=self._options.cipher is not None and (not sealed or number in sealed))
            for number, layer in enumerate(manifest.layers)
        ]

    def _change(self, layer: oci.Descriptor, format: "Format | None", *, seal: bool) -> Change:
        options = self._options
        found = manifests.compression_of(layer.media_type)
        if found is None or layer.urls:
            return Change()  # no layer of an image, or one that is not ours to change
        encrypted = layer.media_type.endswith(manifests.ENCRYPTED)
        if encrypted and options.opener is None:
            return Change()
        opener = options.opener(layer) if encrypted and options.opener is not None else None
        return Change(
            self._compression(found[0], format),
            options.level,
            opener,
            options.cipher.seal() if seal and options.cipher is not None else None,
        )

    def _compression(self, now: Compression, format: "Format | None") -> "Compression | None":
        """What a layer is compressed by afterwards; None: as now."""
        options = self._options
        if options.preserve_digests:
            if self._destination.layers == "inflate" and now:
                raise InvalidArgument(
                    f"{self._destination.name}: layers must be inflated, and their digest is to be preserved",
                    remedy="leave --preserve-digests out, or copy to a transport that takes layers as they are",
                )
            return None
        match self._destination.layers:
            case "inflate":
                return "" if now else None
            case "compress" if not now or (options.compression and options.compression != now):
                return options.compression or "gzip"
        return "gzip" if now == "zstd" and format == "v2s2" else None

    def _bring(
        self, done: "dict[tuple[str, Change], oci.Descriptor]", digest: str, layer: oci.Descriptor, change: Change
    ) -> None:
        done[digest, change] = self._layer(layer, change)

    def _layer(self, layer: oci.Descriptor, change: Change) -> oci.Descriptor:
        if change.is_none:
            self._pass(layer, "blob")
            return layer
        self._report.blob(layer, "blob")
        start = oci.Descriptor(layer.media_type, "", -1)
        found = self._destination.put(lambda: self._watched(layer, Made(self._open(layer), layer, change)), start)
        return _described(layer, found, change)

    def _config(self, config: oci.Descriptor) -> None:
        self._pass(config, "config")

    def _pass(self, descriptor: oci.Descriptor, what: str) -> None:
        """Bring a blob over as it is, unless it is there."""
        if self._destination.has(descriptor, self._source.name):
            self._report.blob(descriptor, f"{what} (already exists)")
            return
        self._report.blob(descriptor, what)
        self._destination.put(lambda: self._watched(descriptor, self._open(descriptor)), descriptor)

    def _open(self, descriptor: oci.Descriptor) -> Blob:
        return self._source.blob(descriptor)

    def _watched(self, descriptor: oci.Descriptor, blob: Blob) -> Blob:
        return Watched(blob, descriptor, self._stop, self._report.moved)

    # ── An index ──

    def _index(self, top: Document) -> Document:
        options = self._options
        if not self._destination.takes_indexes:
            raise InvalidArgument(
                f"{self._destination.name} takes one image, not an index",
                remedy="leave --all out, or choose oci: or dir:",
            )
        signatures = [] if options.remove_signatures else self._list_signatures()
        index = top.index()
        found: list[oci.Descriptor] = []
        instances = index.manifests or []
        for number, instance in enumerate(instances if options.images == "all" else [], 1):
            self._report.say(f"Copying image {instance.digest} ({number}/{len(instances)})")
            document = self._source.manifest(instance.digest)
            if document.is_index:
                raise Unimplemented(f"index {top.digest} names the index {instance.digest}", remedy="copy that alone")
            done = self._image(document, instance=True, digest=instance.digest)
            found.append(replace_found(instance, done.descriptor))
        written = manifests.with_instances(top, found or instances)
        format = options.format or (written.format if self._takes_index(written.format) else "oci")
        written = manifests.convert(written, format)
        if written.digest != top.digest:
            if options.preserve_digests:
                raise InvalidArgument(
                    f"{self._destination.name}: the index must be changed, and its digest is to be preserved",
                    remedy="leave --preserve-digests out",
                )
            if signatures:
                raise InvalidArgument(
                    f"{self._destination.name}: the index must be changed, and its signatures would be worth nothing",
                    remedy="use --remove-signatures",
                )
        self._report.say("Writing manifest list to image destination")
        self._finish(written, signatures, instance=False)
        return written

    def _list_signatures(self) -> "list[Signature]":
        self._report.say("Getting image list signatures")
        return self._source.signatures()

    def _takes_index(self, format: Format) -> bool:
        takes = self._destination.formats
        return not takes or manifests.MANIFEST_OF[format] in takes


def choose(index: Document, wanted: platforms.Platform) -> str:
    """The digest of an index's manifest for a platform. Raises ImageNotFound."""
    there = [one for one in index.index().manifests or [] if one.media_type in oci.MANIFEST_TYPES]
    chosen, offered = oci.for_platform(there, wanted)
    if chosen is None:
        raise NotFound(
            f'choosing image instance: no image found in manifest list for architecture "{wanted.architecture}", '
            f'variant "{wanted.variant}", OS "{wanted.os}"',
            cause=f"it has {', '.join(sorted({str(one) for one in offered})) or 'none'}",
        )
    return chosen.digest


def replace_found(descriptor: oci.Descriptor, found: oci.Descriptor) -> oci.Descriptor:
    """An entry with what it became; nothing else of it changes."""
    import msgspec

    return msgspec.structs.replace(
        descriptor,
        media_type=found.media_type,
        digest=found.digest,
        size=found.size,
        annotations=found.annotations,
    ) if found is not descriptor and found != descriptor else descriptor  # fmt: skip


def _described(layer: oci.Descriptor, found: oci.Descriptor, change: Change) -> oci.Descriptor:
    """The descriptor of a changed layer: media type and annotations say what was done."""
    meaning = manifests.compression_of(layer.media_type)
    assert meaning is not None
    compression, foreign = meaning
    if change.compression is not None:
        compression = change.compression
    own: Format = "v2s2" if layer.media_type.startswith("application/vnd.docker.") else "oci"
    format: Format = own if (own, compression, foreign) in manifests.LAYER_MEDIA and change.seal is None else "oci"
    media = manifests.layer_media(format, compression, foreign)
    annotations = {
        k: v for k, v in (layer.annotations or {}).items() if not k.startswith("org.opencontainers.image.enc.")
    }
    if change.open is None and layer.media_type.endswith(manifests.ENCRYPTED):
        media += manifests.ENCRYPTED
    if change.seal is not None:
        media += manifests.ENCRYPTED
        annotations |= change.seal.annotations()  # type: ignore[attr-defined]  # a Seal, as Options.cipher made it
    return oci.Descriptor(media, found.digest, found.size, annotations=annotations or None)
