"""Pull and push: an image between a registry and a content store, several blobs at once.

Nothing of a pull that failed stays in the store (``load.undo``), and a blob is there only once it was verified.
``Progress`` is told about every blob by worker threads; the words of a status are docker's.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from typing import Protocol

from boxship.errors import AlreadyExists, DataLoss, InvalidArgument, NotFound, PeerError
from boxship.image.load import Put, undo
from boxship.image.store import Image, Store, children, resolve
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci import platform as platforms
from boxship.oci.platform import Platform

from .client import Repository
from .resumed import CHUNK, TOLD_EVERY, Resumed, Stopped

AT_ONCE = 4
DEPTH = 4


class Progress(Protocol):
    """Told from several threads. ``current`` and ``total`` are bytes, 0 where they do not matter."""

    def __call__(self, descriptor: oci.Descriptor, status: str, current: int = 0, total: int = 0, /) -> None: ...


def silent(descriptor: oci.Descriptor, status: str, current: int = 0, total: int = 0) -> None:
    """A ``Progress`` for those who do not watch."""


def pull(
    repository: Repository,
    reference: str,
    store: Store,
    *,
    platform: "Platform | None" = None,
    all_platforms: bool = False,
    progress: Progress = silent,
    known: "Callable[[Image], object] | None" = None,
    stop: "threading.Event | None" = None,
) -> Image:
    """Bring an image into ``store``: ``reference`` is a tag or a digest.

    Of an index only the manifest for ``platform`` (default: this host) comes, with ``all_platforms`` all of them; the
    image's target is the index all the same, so that its digest is the registry's.
    ``known`` is told the image when its manifest and config are there, before the layers.
    ``stop`` may be set by another thread to give it up (Cancelled).
    Raises NotFound (no such image, none for the platform), DataLoss, InvalidArgument, PermissionDenied, Unavailable,
    ResourceExhausted; the store is as before then.
    """
    with undo(store) as put:
        pulling = _Pull(repository, store, put, progress, stop or threading.Event())
        target, data = repository.manifest(reference)
        wanted = platform or platforms.host()
        pulling.keep(target, data)
        pulling.below(target, data, None if all_platforms else wanted, 0)
        if known is not None and not all_platforms:
            pulling.fetch_configs()
            known(resolve(store, target, wanted))
        pulling.fetch()
        if all_platforms:
            return _any(store, target, wanted)
        image = resolve(store, target, wanted)
        if platform is not None and target.media_type in oci.MANIFEST_TYPES:
            _runs_on(image, wanted)
        return image


def _any(store: Store, target: oci.Descriptor, wanted: Platform) -> Image:
    try:
        return resolve(store, target, wanted)
    except NotFound:
        # Complete, but nothing of it is for this host: any of its images stands for it.
        for child in children(store, target):
            if child.media_type in oci.MANIFEST_TYPES:
                return replace(resolve(store, child, wanted), target=target)
        raise


def _runs_on(image: Image, wanted: Platform) -> None:
    """A single manifest says its platform in its config only."""
    config = image.config
    if config.architecture:
        offered = platforms.normalise(config.os or "linux", config.architecture, config.variant)
        if not wanted.matches(offered):
            raise NotFound(f"image {image.target.digest} has no manifest for {wanted}", cause=f"it is for {offered}")


class _Pull:
    """One pull: what has to come, and what came."""

    def __init__(
        self, repository: Repository, store: Store, put: Put, progress: Progress, stop: threading.Event
    ) -> None:
        self._repository = repository
        self._store = store
        self._put = put
        self._progress = progress
        self._blobs: dict[str, oci.Descriptor] = {}
        self._layers: set[str] = set()
        self._stop = stop

    def keep(self, descriptor: oci.Descriptor, data: bytes) -> None:
        if not self._store.exists(descriptor.digest):
            self._put(data, descriptor.digest)

    def below(self, descriptor: oci.Descriptor, data: bytes, wanted: "Platform | None", depth: int) -> None:
        """Note the blobs of a manifest, or follow an index to those for ``wanted`` (None: all)."""
        what = f"manifest {descriptor.digest}"
        if depth > DEPTH:
            raise InvalidArgument(f"index {descriptor.digest} is nested too deep")
        if descriptor.media_type in oci.INDEX_TYPES:
            index = oci.decode(oci.Index, data, what)
            for child in _choose(index, wanted, descriptor.digest):
                found, document = self._repository.manifest(child.digest)
                if found.size != child.size:
                    raise DataLoss(f"manifest {child.digest} has {found.size} bytes, the index says {child.size}")
                self.keep(found, document)
                self.below(found, document, wanted, depth + 1)
            return
        if descriptor.media_type not in oci.MANIFEST_TYPES:
            raise InvalidArgument(f"{what} has the unknown media type {descriptor.media_type}")
        manifest = oci.decode(oci.Manifest, data, what)
        for blob in (manifest.config, *manifest.layers):
            digests.parse(blob.digest)
            if blob.size < 0:
                raise InvalidArgument(f"{what} says that {blob.digest} has {blob.size} bytes")
            known = self._blobs.setdefault(blob.digest, blob)
            if known.size != blob.size:
                raise InvalidArgument(f"{what} gives {blob.digest} two sizes, {known.size} and {blob.size}")
        for layer in manifest.layers:
            if layer.digest not in self._layers:
                self._layers.add(layer.digest)
                self._progress(layer, "Pulling fs layer")

    def fetch_configs(self) -> None:
        """What says what the layers are."""
        for blob in [blob for digest, blob in self._blobs.items() if digest not in self._layers]:
            self._bring(blob)
            del self._blobs[blob.digest]

    def fetch(self) -> None:
        """Bring all blobs, AT_ONCE at a time; the first error ends the others."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pull") as pool:
            running = [pool.submit(copy_context().run, self._bring, blob) for blob in self._blobs.values()]
            failure: BaseException | None = None
            for future in running:
                try:
                    future.result()
                except BaseException as error:
                    self._stop.set()
                    # What ended the others is no news.
                    failure = failure if failure is not None and not isinstance(failure, Stopped) else error
            if failure is not None:
                raise failure

    def _bring(self, blob: oci.Descriptor) -> None:
        if self._store.exists(blob.digest):
            self._tell(blob, "Already exists")
            return
        data = oci.embedded(blob, "manifest")
        if data is not None:
            self._put(data, blob.digest)  # the manifest carries it
            return
        reader = Resumed(self._repository, blob, self._stop, self._tell)
        try:
            self._put(reader, blob.digest)
        finally:
            reader.close()
        self._tell(blob, "Download complete", blob.size, blob.size)

    def _tell(self, blob: oci.Descriptor, status: str, current: int = 0, total: int = 0) -> None:
        if blob.digest in self._layers:
            self._progress(blob, status, current, total)


def _choose(index: oci.Index, wanted: "Platform | None", digest: str) -> "list[oci.Descriptor]":
    there = [one for one in index.manifests or [] if one.media_type in oci.MANIFEST_TYPES | oci.INDEX_TYPES]
    if wanted is None:
        return there
    chosen, offered = oci.for_platform(there, wanted)
    if chosen is None:
        names = ", ".join(sorted({str(one) for one in offered if "unknown" not in str(one)}))
        raise NotFound(
            f"no matching manifest for {wanted} in the manifest list entries", cause=f"it has {names or 'none'}"
        )
    return [chosen]


# ── The other way ──


def push(
    repository: Repository,
    reference: str,
    store: Store,
    target: oci.Descriptor,
    *,
    mount_from: "Iterable[str]" = (),
    progress: Progress = silent,
    stop: "threading.Event | None" = None,
) -> oci.Descriptor:
    """Bring ``target`` (a manifest, or an index with all that it names) to the registry under ``reference``.

    An index of which only some manifests are in the store cannot be pushed whole: then its one manifest is.
    ``mount_from`` are repositories of the same registry that may have the layers. Gives what was pushed.
    Raises NotFound (content is missing), PermissionDenied, Unavailable, PeerError.
    """
    if target.media_type in oci.INDEX_TYPES:
        there = [child for child in children(store, target) if store.exists(child.digest)]
        if len(there) < len(children(store, target)):
            if len(there) != 1:
                raise NotFound(
                    f"index {target.digest} names {len(children(store, target))} manifests, {len(there)} are here",
                    remedy="pull it with all its platforms first",
                )
            target = there[0]
    _push_below(repository, store, target, list(mount_from), progress, stop or threading.Event(), 0)
    data = store.read(target.digest)
    repository.put_manifest(reference, data, target.media_type)
    return oci.Descriptor(target.media_type, target.digest, len(data))


def _push_below(
    repository: Repository,
    store: Store,
    target: oci.Descriptor,
    mount_from: "list[str]",
    progress: Progress,
    stop: threading.Event,
    depth: int,
) -> None:
    if depth > DEPTH:
        raise InvalidArgument(f"index {target.digest} is nested too deep")
    if target.media_type in oci.INDEX_TYPES:
        for child in children(store, target):
            _push_below(repository, store, child, mount_from, progress, stop, depth + 1)
            repository.put_manifest(child.digest, store.read(child.digest), child.media_type)
        return
    blobs = {blob.digest: blob for blob in children(store, target)}
    manifest = oci.decode(oci.Manifest, store.read(target.digest), f"manifest {target.digest}")
    layers = {layer.digest for layer in manifest.layers}

    def tell(blob: oci.Descriptor, status: str, current: int = 0, total: int = 0) -> None:
        if blob.digest in layers:
            progress(blob, status, current, total)

    for blob in blobs.values():
        tell(blob, "Preparing")
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="push") as pool:
        running = [
            pool.submit(copy_context().run, _push_blob, repository, store, blob, mount_from, tell, stop)
            for blob in blobs.values()
        ]
        failure: BaseException | None = None
        for future in running:
            try:
                future.result()
            except BaseException as error:
                stop.set()
                failure = failure if failure is not None and not isinstance(failure, Stopped) else error
        if failure is not None:
            raise failure


def _push_blob(
    repository: Repository,
    store: Store,
    blob: oci.Descriptor,
    mount_from: "list[str]",
    tell: "Callable[..., None]",
    stop: threading.Event,
) -> None:
    if repository.has_blob(blob.digest):
        tell(blob, "Layer already exists")
        return
    for source in mount_from:
        try:
            if repository.mount(blob.digest, source):
                tell(blob, f"Mounted from {source}")
                return
        except (PeerError, NotFound, AlreadyExists):
            continue  # mounting saves time, nothing more

    def pieces(offset: int) -> "Iterator[bytes]":
        told = 0.0
        with store.open(blob.digest) as file:
            file.seek(offset)
            while data := file.read(CHUNK):
                if stop.is_set():
                    raise Stopped(f"blob {blob.digest}: not needed any more")
                yield data
                offset += len(data)
                if time.monotonic() - told > TOLD_EVERY:
                    told = time.monotonic()
                    tell(blob, "Pushing", offset, blob.size)

    repository.upload(blob.digest, blob.size, pieces)
    tell(blob, "Pushed")
