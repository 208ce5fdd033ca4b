"""Judging images against the image-spec: documents one by one, and layouts and archives whole.

A `Finding` says where (a file of the layout, or a blob's digest) and what, with the JSON path. Everything that can be
found is, so that a writer of images sees all faults at once; what stands below something that is not there, or is not
what its descriptor says, is not looked at.

A whole image is judged as a reader meets it: ``oci-layout`` and ``index.json``, then along the descriptors. Each blob
is hashed once; layers are inflated, hashed for their diff IDs and read as tar archives, as a stream. Loops cannot be:
a descriptor whose blob has another digest is not followed.
"""

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from boxship.errors import BoxshipError, DataLoss, InvalidArgument, NotFound
from boxship.image import tar
from boxship.image.apply import clean_name
from boxship.image.compression import CHUNK, Reader, inflate
from boxship.image.rooted import describe
from boxship.image.tar import TarReader
from boxship.oci import digest as digests
from boxship.oci import documents, shapes, strict_json
from boxship.oci import image as oci
from boxship.oci.shapes import Complaint

INDEX_FILE, LAYOUT_FILE = "index.json", "oci-layout"
RATIO, RATIO_FROM = 1100, 64 << 20
"""A layer that inflates to more than RATIO times its size (gzip's most is 1032), and RATIO_FROM bytes, is a bomb."""
NESTING = 16


@dataclass(frozen=True, slots=True)
class Finding:
    """``where`` is a file of the layout, a blob's digest, or a file that was judged alone."""

    where: str
    complaint: Complaint

    def __str__(self) -> str:
        return f"{self.where}: {self.complaint}"


# ── Documents ──


def document(kind: str, data: bytes, where: str) -> "list[Finding]":
    """Judge the bytes of one document; ``kind`` is a key of `documents.KINDS`."""
    return _read(kind, data, where)[1]


def kind_of(data: bytes) -> str:
    """Which kind of document it seems to be, by the fields that only that kind has. Raises InvalidArgument."""
    value = strict_json.load(data, oci.DOCUMENT_LIMIT)
    if isinstance(value, dict):
        for kind, fields in _TELLING:
            if fields & value.keys():
                return kind
    raise InvalidArgument(
        "it is no document of an image", cause="none of their fields is in it", remedy="say which with --type"
    )


_TELLING = (
    ("layout", {"imageLayoutVersion"}),
    ("index", {"manifests"}),
    ("manifest", {"layers"}),
    ("config", {"rootfs", "architecture"}),
    ("descriptor", {"digest", "size"}),
    ("manifest", {"config"}),
)


def _read(kind: str, data: bytes, where: str) -> "tuple[Any, list[Finding]]":
    """The value (None when it is not what its kind is) and what is wrong with it."""
    try:
        value = strict_json.load(data, oci.DOCUMENT_LIMIT)
    except InvalidArgument as error:
        return None, [Finding(where, Complaint("", str(error)))]
    found = [Finding(where, one) for one in shapes.complaints(documents.KINDS[kind], value)]
    return (None if found else value), found


# ── Whole images ──


def layout(path: str, wanted: "Callable[[dict[str, Any]], bool] | None" = None) -> "list[Finding]":
    """Judge the image layout in the directory ``path``, or those entries of its index that ``wanted`` takes.

    Raises NotFound (no such directory; ``wanted`` takes none), InvalidArgument (cannot be read).
    """
    if not os.path.isdir(path):
        raise NotFound(f"there is no directory {path}")
    judge = _Judge(path)
    judge.files(wanted)
    return judge.findings


def archive(path: str, wanted: "Callable[[dict[str, Any]], bool] | None" = None) -> "list[Finding]":
    """Judge an image layout in a tar archive, compressed or not; raises as `layout`, and DataLoss (cut short)."""
    with unpacked(path) as directory:
        return layout(directory, wanted)


@contextmanager
def unpacked(path: str) -> Iterator[str]:
    """The layout of an archive as a directory, until the block ends; its bytes are as they are, judged by nobody.

    Raises NotFound, InvalidArgument (no tar, members that no layout has), DataLoss (cut short), ResourceExhausted.
    """
    with tempfile.TemporaryDirectory(prefix="boxship-layout-") as directory:
        try:
            with open(path, "rb") as file:
                _unpack(inflate(file), directory)
        except FileNotFoundError:
            raise NotFound(f"there is no file {path}") from None
        except OSError as error:
            raise describe(error, f"cannot read the archive {path}") from error
        yield directory


def _unpack(source: Reader, directory: str) -> None:
    reader = TarReader(source)
    for entry in reader:
        name = clean_name(entry.name, "archive")
        parts = name.split("/")
        ours = name in (INDEX_FILE, LAYOUT_FILE) or (len(parts) == 3 and parts[0] == "blobs")
        if entry.type != tar.REGULAR or not ours or ".." in parts:
            continue  # the spec allows other files; they mean nothing
        target = os.path.join(directory, *parts)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            for piece in reader.data():
                file.write(piece)


class _Judge:
    """One layout being judged."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._blobs: dict[str, tuple[int, str]] = {}  # digest -> size, digest that the bytes have
        self._seen: set[str] = set()
        self.findings: list[Finding] = []

    def files(self, wanted: "Callable[[dict[str, Any]], bool] | None") -> None:
        for name, kind in ((LAYOUT_FILE, "layout"), (INDEX_FILE, "index")):
            try:
                with open(os.path.join(self._path, name), "rb") as file:
                    data = file.read(oci.DOCUMENT_LIMIT + 1)
            except FileNotFoundError:
                self._complain(name, "", "it is missing")
                continue
            except OSError as error:
                raise describe(error, f"cannot read {self._path}/{name}") from error
            value, found = _read(kind, data, name)
            self.findings += found
            if kind == "index" and value is not None:
                chosen = [
                    (number, one) for number, one in enumerate(value["manifests"]) if wanted is None or wanted(one)
                ]
                if wanted is not None and not chosen:
                    raise NotFound(f"{self._path} has no such image", cause="no entry of index.json fits")
                for number, one in chosen:
                    self._descriptor(one, name, f"manifests[{number}]", 0)

    def _complain(self, where: str, path: str, text: str) -> None:
        self.findings.append(Finding(where, Complaint(path, text)))

    def _descriptor(self, descriptor: "dict[str, Any]", where: str, path: str, depth: int) -> None:
        """A descriptor of ``where`` at ``path``: its blob, and what the blob says."""
        if not self._matches(descriptor, where, path):
            return
        digest, media_type = descriptor["digest"], descriptor["mediaType"]
        kind = "index" if media_type in oci.INDEX_TYPES else "manifest" if media_type in oci.MANIFEST_TYPES else ""
        if not kind or digest in self._seen:
            return
        self._seen.add(digest)
        if depth > NESTING:
            self._complain(where, path, f"it is nested more than {NESTING} deep")
            return
        value = self._document(kind, digest)
        if value is None:
            return
        if value.get("mediaType", media_type) != media_type:
            self._complain(digest, "mediaType", f"it is {value['mediaType']}, its descriptor says {media_type}")
        if kind == "index":
            for number, one in enumerate(value["manifests"]):
                self._descriptor(one, digest, f"manifests[{number}]", depth + 1)
        else:
            self._manifest(value, digest, descriptor.get("platform"), where, path)

    def _manifest(
        self, manifest: "dict[str, Any]", digest: str, platform: "dict[str, Any] | None", where: str, path: str
    ) -> None:
        config: Any = None
        described = manifest["config"]
        if self._matches(described, digest, "config") and described["mediaType"] in oci.CONFIG_TYPES:
            config = self._document("config", described["digest"])
        layers = manifest["layers"]
        diff_ids: list[str] = []
        if config is not None:
            diff_ids = config["rootfs"]["diff_ids"]
            if len(diff_ids) != len(layers):
                self._complain(
                    manifest["config"]["digest"], "rootfs.diff_ids",
                    f"there are {len(diff_ids)}, for {len(layers)} layers",
                )  # fmt: skip
                diff_ids = []
            for key in ("os", "architecture"):
                if platform and platform[key] != config[key]:
                    text = f"it is {platform[key]}, the config's {config[key]}"
                    self._complain(where, f"{path}.platform.{key}", text)
        for number, layer in enumerate(layers):
            elsewhere = "nondistributable" in layer["mediaType"]
            if not self._matches(layer, digest, f"layers[{number}]", elsewhere=elsewhere):
                continue
            if layer["mediaType"] in oci.LAYER_TYPES:
                diff_id = diff_ids[number] if diff_ids else ""
                self._layer(layer, digest, number, diff_id, manifest["config"]["digest"])

    def _layer(self, layer: "dict[str, Any]", digest: str, number: int, diff_id: str, config: str) -> None:
        """The blob's bytes are good; are they a layer, and the one that the config means?"""
        path = f"layers[{number}]"
        said = next((name for name in ("gzip", "zstd") if layer["mediaType"].endswith(name)), "")
        with self._open(layer["digest"]) as blob:
            try:
                inflating = inflate(blob)
                if inflating.compression != said:
                    found = inflating.compression or "not compressed"
                    self._complain(digest, f"{path}.mediaType", f"it is {layer['mediaType']}, the blob is {found}")
                hashing = _Hashing(inflating, diff_id, max(RATIO * layer["size"], RATIO_FROM))
                reader = TarReader(hashing, "the layer")
                for _ in reader:
                    for _ in reader.data():
                        pass
            except BoxshipError as error:
                self._complain(digest, f"{path}.digest", f"the blob is no layer: {error}")
                return
        if diff_id and hashing.digest != diff_id:
            self._complain(config, f"rootfs.diff_ids[{number}]", f"it is {diff_id}, the layer's is {hashing.digest}")

    # ── Blobs ──

    def _matches(self, descriptor: "dict[str, Any]", where: str, path: str, *, elsewhere: bool = False) -> bool:
        """Whether the blob is what its descriptor says; complains when not (``elsewhere``: it need not be here)."""
        digest = descriptor["digest"]
        try:
            digests.parse(digest)
        except InvalidArgument as error:
            self._complain(where, f"{path}.digest", f"{digest} cannot be verified: {error.cause}")
            return False
        try:
            size, found = self._blob(digest)
        except FileNotFoundError:
            if not elsewhere:
                self._complain(where, f"{path}.digest", f"there is no blob {digest}")
            return False
        if size != descriptor["size"]:
            self._complain(where, f"{path}.size", f"it is {descriptor['size']}, the blob has {size} bytes")
            return False
        if found != digest:
            self._complain(where, f"{path}.digest", f"it is {digest}, the blob's is {found}")
            return False
        return True

    def _blob(self, digest: str) -> "tuple[int, str]":
        """Size and digest of the bytes; raises FileNotFoundError."""
        if digest not in self._blobs:
            hashing = digests.new_hash(digest.partition(":")[0])
            size = 0
            with self._open(digest) as file:
                while data := file.read(CHUNK):
                    hashing.update(data)
                    size += len(data)
            self._blobs[digest] = size, f"{digest.partition(':')[0]}:{hashing.hexdigest()}"
        return self._blobs[digest]

    def _open(self, digest: str) -> BinaryIO:
        algorithm, _, encoded = digest.partition(":")
        path = os.path.join(self._path, "blobs", algorithm, encoded)
        try:
            file = open(path, "rb")  # noqa: SIM115 - the caller closes it
        except FileNotFoundError:
            raise
        except OSError as error:
            raise describe(error, f"cannot read {path}") from error
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise FileNotFoundError(path)
        return file

    def _document(self, kind: str, digest: str) -> Any:
        with self._open(digest) as file:
            value, found = _read(kind, file.read(oci.DOCUMENT_LIMIT + 1), digest)
        self.findings += found
        return value


class _Hashing:
    """What passes through, hashed; raises DataLoss past ``limit`` bytes."""

    def __init__(self, source: Reader, diff_id: str, limit: int) -> None:
        self._source = source
        self._left = limit
        self._algorithm = diff_id.partition(":")[0] if diff_id.partition(":")[0] in digests.ALGORITHMS else "sha256"
        self._hash = digests.new_hash(self._algorithm)

    @property
    def digest(self) -> str:
        return f"{self._algorithm}:{self._hash.hexdigest()}"

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise DataLoss(f"it inflates to more than {RATIO} times its size", cause="an archive bomb")
        self._hash.update(data)
        return data
