"""Changing an image: its config, its annotations, a new layer on top; the image that was there stays what it is.

A `Mutation` holds an image's manifest and config as the documents they are, so that fields which we do not know
survive. `Mutation.commit` writes the new config, the new manifest and each index on the way to it, and answers with
the way to the new manifest; giving that a name is for the caller (`Layout.tag`).

Documents are written as Go's tools write them (the specs' order of fields, no empty ones), so that the same change
gives the same digest as umoci's would.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from boxship.errors import InvalidArgument
from boxship.image import named
from boxship.image.blobs import read_document
from boxship.image.compression import Compression
from boxship.image.layout import BlobWriter, Layout
from boxship.image.named import DescriptorPath
from boxship.image.packing import Packer, packer
from boxship.oci import image as oci
from boxship.oci import platform as platforms
from boxship.oci.digest import Verifier
from boxship.oci.platform import Platform

ANNOTATION_PLAIN_SIZE = "ci.umo.uncompressed_blob_size"
"""umoci's annotation on a layer: the bytes of its tar."""

_MEDIA: "dict[Compression, str]" = {
    "": oci.MEDIA_LAYER,
    "gzip": oci.MEDIA_LAYER_GZIP,
    "zstd": oci.MEDIA_LAYER_ZSTD,
}
_ORDER = {
    "config": (
        *("created", "author", "architecture", "os", "os.version", "os.features", "variant"),
        *("config", "rootfs", "history"),
    ),
    "settings": (
        *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"),
        "ArgsEscaped",
    ),
    "manifest": ("schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations"),
}
_SETS = ("ExposedPorts", "Volumes", "Labels")  # maps, which Go sorts
_HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True, slots=True)
class History:
    """An entry of an image's history; ``created`` is RFC 3339."""

    created: str
    created_by: str
    author: str = ""
    comment: str = ""

    def to_json(self, *, empty: bool) -> "dict[str, Any]":
        entry: dict[str, Any] = {"created": self.created, "created_by": self.created_by}
        entry |= {key: value for key, value in (("author", self.author), ("comment", self.comment)) if value}
        return entry | ({"empty_layer": True} if empty else {})


def source_date_epoch() -> "int | None":
    """What reproducible-builds.org's SOURCE_DATE_EPOCH says; raises InvalidArgument when it is no number."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(
            f"SOURCE_DATE_EPOCH is {text!r}", cause="not a number", remedy="set it to seconds since 1970, or unset it"
        ) from None


def now() -> str:
    """RFC 3339 for the present, or for SOURCE_DATE_EPOCH when it is set."""
    epoch = source_date_epoch()
    if epoch is not None:
        return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{nanoseconds:09d}".rstrip("0").rstrip(".") + "Z"


def parse_time(text: str, flag: str) -> str:
    """Check an RFC 3339 time and put it in the form that Go gives it; raises InvalidArgument."""
    shown = text.removesuffix("Z").removesuffix("z")
    try:
        datetime.fromisoformat(text)
        date, clock = shown[:10], shown[11:]
        if len(text) < 20 or text[10] not in "Tt" or (shown == text and text[-6] not in "+-") or "T" in clock.upper():
            raise ValueError
    except (ValueError, IndexError):
        raise InvalidArgument(
            f"invalid {flag} {text!r}", remedy="give an RFC 3339 time, such as 2026-01-31T13:00:00Z"
        ) from None
    zone = "Z" if shown != text or clock[-6:] in ("+00:00", "-00:00") else clock[-6:]
    clock = clock if shown != text else clock[:-6]
    if "." in clock:
        clock = clock.rstrip("0").rstrip(".")
    return f"{date}T{clock}{zone}"


class Mutation:
    """``config`` is the image's config document, ``manifest`` its manifest; both may be changed in place."""

    def __init__(self, layout: Layout, path: DescriptorPath) -> None:
        self.layout = layout
        self._path = path
        manifest = named.read_manifest(layout, path.manifest)
        named.read_config(layout, manifest)  # both are images, and agree
        self.manifest: dict[str, Any] = json.loads(read_document(layout, path.manifest))
        self.config: dict[str, Any] = json.loads(read_document(layout, manifest.config))

    @property
    def settings(self) -> "dict[str, Any]":
        """The config's ``config``: User, Env, Cmd, ..."""
        found = self.config.get("config")
        if found is None:
            found = self.config["config"] = {}
        settings: dict[str, Any] = found
        return settings

    @property
    def annotations(self) -> "dict[str, str]":
        found: dict[str, str] = self.manifest.get("annotations") or {}
        self.manifest["annotations"] = found
        return found

    def add_history(self, history: "History | None") -> None:
        """The step changed no file."""
        if history is not None:
            self._append_history(history.to_json(empty=True))

    @contextmanager
    def layer(self, history: "History | None", compression: "Compression | None" = None) -> "Iterator[NewLayer]":
        """A layer that is written (as a plain tar) inside the ``with`` and is on top of the image after it.

        ``compression`` None takes that of the topmost compressed layer, else gzip.
        """
        chosen = self._usual_compression() if compression is None else compression
        with self.layout.writing() as blob:
            new = NewLayer(blob, packer(chosen))
            yield new
            digest, size = new.finish()
        descriptor: dict[str, Any] = {"mediaType": _MEDIA[chosen], "digest": digest, "size": size}
        if new.size != size:
            descriptor["annotations"] = {ANNOTATION_PLAIN_SIZE: str(new.size)}
        self.manifest["layers"] = [*(self.manifest.get("layers") or []), descriptor]
        rootfs = self.config.setdefault("rootfs", {"type": "layers"})
        rootfs["diff_ids"] = [*(rootfs.get("diff_ids") or []), new.diff_id]
        if history is not None:
            self._append_history(history.to_json(empty=False))

    def commit(self) -> DescriptorPath:
        """Write the changed image; the way to its manifest. Names still mean what they meant."""
        config = encode_config(self.config)
        descriptor = self.manifest["config"]
        kept = {key: value for key, value in descriptor.items() if key != "data"}
        self.manifest["config"] = kept | {"digest": self.layout.add(config)[0], "size": len(config)}
        self.manifest.setdefault("mediaType", self._path.manifest.media_type)
        steps = list(self._path.steps)
        steps[-1] = self._renewed(steps[-1], encode_manifest(self.manifest))
        for at in range(len(steps) - 2, -1, -1):
            steps[at] = self._renewed(steps[at], self._index_with(at, self._path.steps[at + 1], steps[at + 1]))
        return DescriptorPath(tuple(steps))

    def _renewed(self, old: oci.Descriptor, document: bytes) -> oci.Descriptor:
        import msgspec

        digest, _ = self.layout.add(document)
        return msgspec.structs.replace(old, digest=digest, size=len(document), data=None)

    def _index_with(self, at: int, old: oci.Descriptor, new: oci.Descriptor) -> bytes:
        index: dict[str, Any] = json.loads(read_document(self.layout, self._path.steps[at]))
        for entry in index["manifests"]:
            if entry["digest"] == old.digest:
                entry |= {"digest": new.digest, "size": new.size}
                entry.pop("data", None)
        return _encode(index)

    def _append_history(self, entry: "dict[str, Any]") -> None:
        self.config["history"] = [*(self.config.get("history") or []), entry]

    def _usual_compression(self) -> Compression:
        for layer in reversed(self.manifest.get("layers") or []):
            media_type = str(layer.get("mediaType", ""))
            if media_type.endswith("zstd"):
                return "zstd"
            if media_type.endswith("gzip"):
                return "gzip"
        return "gzip"


class NewLayer:
    """Takes a layer's tar: hashes it for the diff ID, compresses it into a blob."""

    def __init__(self, blob: BlobWriter, packing: Packer) -> None:
        self._blob = blob
        self._packing = packing
        self._plain = Verifier(what="layer")

    def write(self, data: bytes) -> None:
        self._plain.update(data)
        packed = self._packing.compress(data)
        if packed:
            self._blob.write(packed)

    def finish(self) -> "tuple[str, int]":
        """The blob's digest and size."""
        self._blob.write(self._packing.flush())
        digest, _ = self._blob.commit()
        return digest, self._blob.size

    @property
    def size(self) -> int:
        return self._plain.count

    @property
    def diff_id(self) -> str:
        return self._plain.digest


def new_image(layout: Layout, name: str, platform: "Platform | None" = None) -> oci.Descriptor:
    """An image without layers, for this host or ``platform``, under ``name``."""
    here = platform or platforms.host()
    config: dict[str, Any] = {
        "created": now(),
        "architecture": here.architecture,
        "os": here.os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    if here.variant:
        config["variant"] = here.variant
    document = encode_config(config)
    manifest = encode_manifest(
        {
            "schemaVersion": 2,
            "mediaType": oci.MEDIA_MANIFEST,
            "config": {
                "mediaType": oci.MEDIA_CONFIG,
                "digest": layout.add(document)[0],
                "size": len(document),
            },
            "layers": [],
        }
    )
    descriptor = oci.Descriptor(oci.MEDIA_MANIFEST, layout.add(manifest)[0], len(manifest))
    layout.tag(name, descriptor)
    return descriptor


# ── Documents ──


def encode_config(config: "dict[str, Any]") -> bytes:
    ordered = _ordered(config, "config", keep=("architecture", "os", "config", "rootfs"))
    settings = {key: _sorted(key, value) for key, value in (ordered.get("config") or {}).items()}
    ordered["config"] = _ordered(settings, "settings")
    return _encode(ordered)


def encode_manifest(manifest: "dict[str, Any]") -> bytes:
    ordered = _ordered(manifest, "manifest", keep=("schemaVersion", "config", "layers"))
    if ordered.get("annotations"):
        ordered["annotations"] = dict(sorted(ordered["annotations"].items()))
    return _encode(ordered)


def _ordered(document: "dict[str, Any]", kind: str, keep: "tuple[str, ...]" = ()) -> "dict[str, Any]":
    """Known fields in their order, then the others; empty ones are left out unless the spec requires them."""
    known = _ORDER[kind]
    keys = [*(key for key in known if key in document), *(key for key in document if key not in known)]
    return {key: document[key] for key in keys if key in keep or document[key] not in (None, "", [], {}, False)}


def _sorted(key: str, value: Any) -> Any:
    return dict(sorted(value.items())) if key in _SETS and isinstance(value, dict) else value


def _encode(document: "dict[str, Any]") -> bytes:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    for character, escape in _HTML.items():
        text = text.replace(character, escape)
    return text.encode("utf-8", "surrogateescape") + b"\n"
