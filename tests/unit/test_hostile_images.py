"""Broken and malicious layouts and archives: one clear error each, and nothing is left in the store.

Each case is a change to a good image; it is read as a directory, as a tar and, where it can be, from a registry's
answers.  What comes over the wire alone is in test_hostile_registries.py, layers in test_layer_applier.py.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from boxship.errors import BoxshipError
from boxship.image.content import ContentStore
from boxship.image.load import load_archive, load_layout
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci import platform as platforms

ABSENT = "sha256:" + "a" * 64


def descriptor(content: bytes, media_type: str = oci.MEDIA_LAYER, **more: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digests.of(content), "size": len(content), **more}


class Parts:
    """A good image in parts: each may be replaced before `files` puts them together."""

    def __init__(self) -> None:
        self.layer: bytes = _tar({"file": b"x"})
        self.config: Any = {
            "os": "linux",
            "architecture": platforms.host().architecture,
            "rootfs": {"type": "layers", "diff_ids": [digests.of(self.layer)]},
        }
        self.manifest: Any = {}  # what is different
        self.entry: Any = {}
        self.index: Any = {}
        self.more: dict[str, bytes] = {}  # files beside it

    def files(self) -> dict[str, bytes]:
        config = _bytes(self.config)
        manifest = self.manifest
        if isinstance(manifest, dict):
            manifest = {
                "schemaVersion": 2,
                "mediaType": oci.MEDIA_MANIFEST,
                "config": descriptor(config, oci.MEDIA_CONFIG),
                "layers": [descriptor(self.layer)],
                **manifest,
            }
        data = _bytes(manifest)
        entry = {**descriptor(data, oci.MEDIA_MANIFEST), **self.entry}
        index = self.index
        if isinstance(index, dict):
            index = {"schemaVersion": 2, "manifests": [entry], **index}
        found = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": _bytes(index)}
        for blob in (self.layer, config, data):
            found[blob_name(blob)] = blob
        return {name: data for name, data in (found | self.more).items() if data is not GONE}


GONE = b"(gone)"


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def blob_name(data: bytes) -> str:
    return "blobs/" + digests.of(data).replace(":", "/")


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


Change = Callable[[Parts], None]


def of(part: str, value: object) -> Change:
    """Replace a part, or with a dict some of its keys."""

    def change(parts: Parts) -> None:
        current = getattr(parts, part)
        merged = {**current, **value} if isinstance(current, dict) and isinstance(value, dict) else value
        setattr(parts, part, merged)

    return change


def nested_indexes(depth: int) -> Change:
    def change(parts: Parts) -> None:
        inner = json.loads(parts.files()["index.json"])["manifests"][0]
        for _ in range(depth):
            data = _bytes({"schemaVersion": 2, "mediaType": oci.MEDIA_INDEX, "manifests": [inner]})
            parts.more[blob_name(data)] = data
            inner = descriptor(data, oci.MEDIA_INDEX)
        parts.index = {"manifests": [inner]}

    return change


def child(media_type: str, data: bytes) -> Change:
    """The index's only entry is that document."""

    def change(parts: Parts) -> None:
        parts.more[blob_name(data)] = data
        parts.index = {"manifests": [descriptor(data, media_type)]}

    return change


def damaged(which: str) -> Change:
    """A blob whose bytes are not what its name says."""

    def change(parts: Parts) -> None:
        files = parts.files()
        entry = json.loads(files["index.json"])["manifests"][0]
        manifest = json.loads(files["blobs/" + entry["digest"].replace(":", "/")])
        digest = {"manifest": entry, "config": manifest["config"], "layer": manifest["layers"][0]}[which]["digest"]
        name = "blobs/" + digest.replace(":", "/")
        parts.more[name] = files[name][:-1] + b"!"

    return change


def missing(which: str) -> Change:
    def change(parts: Parts) -> None:
        damaged(which)(parts)
        (name,) = parts.more
        parts.more[name] = GONE

    return change


DEEP = b"[" * 100_000
WRONG: dict[str, tuple[Change, str]] = {
    # the layout's own files
    "no version file": (of("more", {"oci-layout": GONE}), "not an image archive"),
    "version file that is no JSON": (of("more", {"oci-layout": b"1.0.0"}), "invalid oci-layout"),
    "version of tomorrow": (of("more", {"oci-layout": b'{"imageLayoutVersion":"9"}'}), "'9' is not supported"),
    "version that is a number": (of("more", {"oci-layout": b'{"imageLayoutVersion":1}'}), "imageLayoutVersion"),
    "no index": (of("more", {"index.json": GONE}), "not an image archive"),
    "index that is no JSON": (of("index", b"{"), "invalid index.json"),
    "index that is not UTF-8": (of("index", b'{"schemaVersion":2,"mediaType":"\xff"}'), "invalid index.json"),
    "index that is a list": (of("index", b"[]"), "invalid index.json"),
    "index that is nested deep": (of("index", b'{"manifests":' + DEEP), "invalid index.json"),
    "index that is too large": (of("index", b" " * (oci.DOCUMENT_LIMIT + 1)), "is larger than"),
    "index without entries": (of("index", {"manifests": []}), "contains no image"),
    "index with null": (of("index", {"manifests": None}), "contains no image"),
    "index with a map of entries": (of("index", {"manifests": {"a": 1}}), "manifests"),
    "index with a string for an entry": (of("index", {"manifests": ["x"]}), "$.manifests[0]"),
    "index with fields of a manifest": (of("index", {"layers": [], "config": {}}), "both an index and a manifest"),
    "index of another schema": (of("index", {"schemaVersion": 1}), "schemaVersion"),
    # its entries
    "entry without a digest": (of("entry", {"digest": None}), "digest"),
    "entry with a path for a digest": (of("entry", {"digest": "sha256:../../../etc/passwd"}), "invalid digest"),
    "entry with an unknown algorithm": (of("entry", {"digest": "md5:" + "0" * 32}), "invalid digest"),
    "entry with an upper-case digest": (of("entry", {"digest": "sha256:" + "A" * 64}), "invalid digest"),
    "entry with a negative size": (of("entry", {"size": -1}), "size"),
    "entry with a wrong size": (of("entry", {"size": 7}), "size"),
    "entry with a huge size": (of("entry", {"size": 10**30}), "ize"),
    "entry with a size in words": (of("entry", {"size": "7"}), "$.manifests[0].size"),
    "entry that is not there": (of("entry", {"digest": ABSENT}), ABSENT),
    "entry of another media type": (of("entry", {"mediaType": oci.MEDIA_INDEX}), "mediaType"),
    "entry with a name that is none": (
        of("entry", {"annotations": {oci.ANNOTATION_IMAGE_NAME: "UPPER/../x"}}), "invalid reference"),
    "entry with annotations that are numbers": (of("entry", {"annotations": {"a": 1}}), "annotations"),
    "entry for another platform only": (
        child(oci.MEDIA_INDEX, _bytes({"schemaVersion": 2, "mediaType": oci.MEDIA_INDEX, "manifests": []})),
        "no manifest for"),
    "indexes in indexes": (nested_indexes(9), "nested too deep"),
    "index that is a manifest inside": (
        child(oci.MEDIA_INDEX, b'{"schemaVersion":2,"config":1,"layers":2}'), "its descriptor's mediaType"),
    "manifest that is a config": (child(oci.MEDIA_MANIFEST, b'{"os":"linux","rootfs":{}}'), "manifest"),
    # manifests
    "manifest damaged": (damaged("manifest"), "has digest"),
    "manifest missing": (missing("manifest"), "not found"),
    "manifest that is empty": (of("manifest", b""), "invalid manifest"),
    "manifest that is no object": (of("manifest", b'"x"'), "invalid manifest"),
    "manifest that is nested deep": (of("manifest", DEEP), "invalid manifest"),
    "manifest that is too large": (of("manifest", {"annotations": {"a": "x" * oci.DOCUMENT_LIMIT}}), "larger th"),
    "manifest that is also an index": (of("manifest", {"manifests": []}), "both an index and a manifest"),
    "manifest of schema 1": (of("manifest", {"fsLayers": []}), "schema 1 manifests are not supported"),
    "manifest with schema version 1": (of("manifest", {"schemaVersion": 1}), "schemaVersion"),
    "manifest of an unknown type": (of("manifest", {"mediaType": "a/b"}), "media type"),
    "manifest that says it is an index": (of("manifest", {"mediaType": oci.MEDIA_INDEX}), "ndex"),
    "manifest without a config": (of("manifest", {"config": None}), "config"),
    "manifest without layers": (of("manifest", {"layers": None}), "layers"),
    "manifest with two configs": (
        of("manifest", b'{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"%b","size":1},'
                       b'"config":null,"layers":[]}' % ABSENT.encode()), "config"),
    "manifest with a config twice, both good": (
        of("manifest", b'{"schemaVersion":2,"layers":[],"layers":[],"config":{}}'), "stands twice"),
    "manifest with a field in other letters": (of("manifest", {"Manifests": []}), "may be taken for 'manifests'"),
    "manifest with a bad layer digest": (
        of("manifest", {"layers": [{"mediaType": oci.MEDIA_LAYER, "digest": "sha256:/", "size": 1}]}), "invalid dig"),
    "manifest with another layer": (of("manifest", {"layers": [descriptor(b"other")]}), "lacks the layer"),
    "manifest with more layers than diff IDs": (
        of("manifest", {"layers": [descriptor(b"a"), descriptor(b"b")]}), "2 layers but 1 diff IDs"),
    "manifest with a negative layer size": (
        of("manifest", {"layers": [{"mediaType": oci.MEDIA_LAYER, "digest": ABSENT, "size": -4}]}), "size"),
    "manifest with data that is other content": (
        lambda parts: of("manifest", {"layers": [descriptor(parts.layer, data="aGVsbG8=")]})(parts), "data"),
    "manifest with data that is not base64": (
        lambda parts: of("manifest", {"layers": [descriptor(parts.layer, data="!")]})(parts), "data"),
    # configs
    "config damaged": (damaged("config"), "has digest"),
    "config missing": (missing("config"), "not found"),
    "config that is no JSON": (of("config", b"{"), "invalid image config"),
    "config that is a list": (of("config", b"[]"), "invalid image config"),
    "config that is nested deep": (of("config", b'{"config":' + DEEP), "invalid image config"),
    "config that is too large": (of("config", {"author": "x" * oci.DOCUMENT_LIMIT}), "larger than"),
    "config without rootfs": (of("config", {"rootfs": None}), "rootfs"),
    "config with a bad diff ID": (of("config", {"rootfs": {"type": "layers", "diff_ids": ["x"]}}), "invalid dig"),
    "config with diff IDs in words": (of("config", {"rootfs": {"type": "layers", "diff_ids": "x"}}), "diff_ids"),
    "config of an unknown root file system": (
        of("config", {"rootfs": {"type": "magic", "diff_ids": [ABSENT]}}), "rootfs"),
    "config with huge numbers": (of("config", {"history": 10**400}), "invalid image config"),
    "config whose size is another": (
        lambda parts: of("manifest", {"config": {**descriptor(_bytes(parts.config)), "size": 3}})(parts), "is 3"),
    # layers
    "layer damaged": (damaged("layer"), "has digest"),
    "layer missing": (missing("layer"), "lacks the layer"),
    "layer whose size is another": (
        lambda parts: of("manifest", {"layers": [{**descriptor(parts.layer), "size": 3}]})(parts), "size"),
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path / "store"))


def left(store: ContentStore) -> list[str]:
    return [blob.digest for blob in store.walk()] + os.listdir(os.path.join(store.root, "ingest"))


@pytest.mark.parametrize("form", ["directory", "archive"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_layout_is_refused_and_leaves_nothing(
    name: str, form: str, store: ContentStore, tmp_path: Path
) -> None:
    change, complaint = WRONG[name]
    parts = Parts()
    change(parts)
    files = parts.files()
    read: Callable[[], object]
    if form == "archive":
        read = partial(load_archive, io.BytesIO(_tar(files)), store)
    else:
        for path, data in files.items():
            (tmp_path / "layout" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "layout" / path).write_bytes(data)
        read = partial(load_layout, str(tmp_path / "layout"), store)
    with pytest.raises(BoxshipError) as refused:
        read()
    assert complaint in str(refused.value)
    assert left(store) == []


def test_the_image_that_all_this_is_done_to_is_good(store: ContentStore) -> None:
    parts = Parts()
    assert len(load_archive(io.BytesIO(_tar(parts.files())), store)) == 1
    assert len(left(store)) == 3


# ── Archives of docker's form, and archives as such ──

LAYER = _tar({"file": b"x"})
CONFIG = _bytes(
    {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digests.of(LAYER)]}}
)
NAME = digests.of(CONFIG)[7:] + ".json"
ITEM = {"Config": NAME, "RepoTags": ["a:b"], "Layers": ["1/layer.tar"]}


def docker(item: object = ITEM, **more: bytes) -> bytes:
    """An archive of docker's form; ``more`` replaces members (``/`` as ``__``)."""
    members = {"manifest.json": _bytes([item]), NAME: CONFIG, "1/layer.tar": LAYER}
    members |= {name.replace("__", "/"): data for name, data in more.items()}
    return _tar({name: data for name, data in members.items() if data is not GONE})


def member(name: str = "x", data: bytes = b"", **fields: Any) -> bytes:
    """An archive with one more member, whatever it is."""
    out = io.BytesIO(docker())
    with tarfile.open(fileobj=out, mode="a") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for field, value in fields.items():
            setattr(info, field, value)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def item(**changes: object) -> bytes:
    return docker({**ITEM, **changes})


def blob(name: str, data: bytes) -> bytes:
    return member(f"blobs/{name}", data)


ARCHIVES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "cut short"),
    "zeros": (bytes(1024), "not an image archive"),
    "text": (b"hello " * 200, "not a tar archive"),
    "another archive": (_tar({"etc/passwd": b"x"}), "not an image archive"),
    "cut in a header": (docker()[:300], "cut short"),
    "cut in a member": (docker()[:5000], "cut short"),
    "cut before its end": (docker()[:-10240], "cut short"),
    "gzip that is cut": (gzip.compress(docker())[:-20], "damaged or cut short"),
    "gzip that is damaged": (gzip.compress(docker())[:40] + b"x" * 400, "damaged or cut short"),
    "bzip2": (b"BZh91AY&SY" + bytes(600), "bzip2 compression is not supported"),
    "xz": (b"\xfd7zXZ\x00" + bytes(600), "xz compression is not supported"),
    "manifest.json that is no JSON": (docker(**{"manifest.json": b"["}), "invalid manifest.json"),
    "manifest.json that is an object": (docker(**{"manifest.json": b"{}"}), "invalid manifest.json"),
    "manifest.json with nothing": (docker(**{"manifest.json": b"[]"}), "not an image archive"),
    "manifest.json that is nested deep": (docker(**{"manifest.json": DEEP}), "invalid manifest.json"),
    "manifest.json that is too large": (
        docker(**{"manifest.json": b" " * (oci.DOCUMENT_LIMIT + 1)}), "is larger than"),
    "item without a config": (item(Config=None), "$[0].config".replace("c", "C", 1)),
    "item without layers": (item(Layers=None), "Layers"),
    "item with numbers for layers": (item(Layers=[1]), "Layers"),
    "item whose config is elsewhere": (item(Config="../../etc/passwd"), "etc/passwd"),
    "item whose config is missing": (docker(**{NAME: GONE}), "does not contain"),
    "item whose config is a layer": (item(Config="1/layer.tar"), "invalid image config"),
    "item whose layer is elsewhere": (item(Layers=["/etc/passwd"]), "does not contain"),
    "item whose layer is missing": (docker(**{"1/layer.tar": GONE}), "does not contain"),
    "item with a layer too many": (item(Layers=["1/layer.tar"] * 2), "1 diff IDs but 2 layers"),
    "item with a layer too few": (item(Layers=[]), "1 diff IDs but 0 layers"),
    "item with a name that is none": (item(RepoTags=["A B"]), "invalid reference"),
    "layer that is another": (docker(**{"1/layer.tar": _tar({"other": b""})}), "the image config expects"),
    "config that is another": (docker(**{NAME: CONFIG + b" "}), "has digest"),
    "config that is no JSON": (docker({**ITEM, "Config": "c.json"}, **{"c.json": b"{"}), "invalid image config"),
    "config with a number for a diff ID": (
        docker({**ITEM, "Config": "c.json"}, **{"c.json": b'{"rootfs":{"type":"layers","diff_ids":[1]}}'}), "diff_"),
    "a device": (member(type=tarfile.CHRTYPE), "neither file, link nor directory"),
    "a pipe": (member(type=tarfile.FIFOTYPE), "neither file, link nor directory"),
    "a member that climbs out": (member("../../x", b"y"), "x"),
    "a link that climbs out": (member(type=tarfile.SYMTYPE, linkname="../../etc/passwd"), "symlink"),
    "links in a circle": (
        member("2/layer.tar", type=tarfile.LNKTYPE, linkname="2/layer.tar").replace(b'1/layer.tar"', b'2/layer.tar"'),
        "does not contain"),
    "a blob under a name that is no digest": (blob("sha256/x", b"y"), "invalid digest"),
    "a blob of an unknown algorithm": (blob("md5/" + "0" * 32, b"y"), "unsupported algorithm"),
    "a blob below a blob": (blob("sha256/" + "0" * 64 + "/x", b"y"), "unexpected member"),
    "a blob with other bytes": (blob("sha256/" + "0" * 64, b"y"), "has digest"),
    "a member of minus one byte": (member("x", size=0).replace(b"00000000000\x00", b"-0000000001\x00", 1), ""),
}  # fmt: skip


COMPRESSED = (b"\x1f\x8b", b"BZ", b"\xfd7")


@pytest.mark.parametrize(
    ("name", "compressed"),
    [(name, also) for name, (data, _) in ARCHIVES.items() for also in (False, True)
     if not (also and data.startswith(COMPRESSED))],
)  # fmt: skip
def test_a_wrong_archive_is_refused_and_leaves_nothing(name: str, compressed: bool, store: ContentStore) -> None:
    data, complaint = ARCHIVES[name]
    with pytest.raises(BoxshipError) as refused:
        load_archive(io.BytesIO(gzip.compress(data, 1) if compressed else data), store)
    assert complaint in str(refused.value)
    assert left(store) == []


def test_docker_s_good_one(store: ContentStore) -> None:
    assert [image.names for image in load_archive(io.BytesIO(docker()), store)] == [["docker.io/library/a:b"]]
