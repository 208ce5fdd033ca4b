"""Documents of every kind, good and bad, with the place that the validator must name; and whole layouts."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boxship.errors import BoxshipError, DataLoss, InvalidArgument, NotFound
from boxship.image import validate
from boxship.image.layout import Layout
from boxship.oci import digest as digests
from boxship.oci import documents, shapes
from boxship.oci import image as oci
from boxship.tools.main import main

BLOB = digests.of(b"hello")
GOOD = "good"

DESCRIPTOR: dict[str, Any] = {"mediaType": oci.MEDIA_LAYER_GZIP, "digest": BLOB, "size": 5}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "descriptor": DESCRIPTOR,
    "manifest": {
        "schemaVersion": 2,
        "mediaType": oci.MEDIA_MANIFEST,
        "config": {"mediaType": oci.MEDIA_CONFIG, "digest": digests.of(b"{}"), "size": 2},
        "layers": [DESCRIPTOR],
    },
    "index": {
        "schemaVersion": 2,
        "manifests": [
            {**DESCRIPTOR, "mediaType": oci.MEDIA_MANIFEST, "platform": {"os": "linux", "architecture": "amd64"}}
        ],
    },
    "config": {
        "architecture": "amd64",
        "os": "linux",
        "created": "2015-10-31T22:22:56.015925234Z",
        "config": {"User": "1", "Env": ["A=b"], "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}}, "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [BLOB]},
        "history": [{"created": "2015-10-31T22:22:54+02:00", "created_by": "sh", "empty_layer": True}],
    },
    "layout": {"imageLayoutVersion": "1.0.0"},
}
GONE = object()


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy with what is at ``a.b[0].c`` replaced, or removed (GONE)."""
    copy: Any = json.loads(json.dumps(document))
    if not path:
        return dict(copy, **value) if isinstance(value, dict) else value  # type: ignore[return-value]
    *way, last = path.replace("[", ".[").split(".")
    at = copy
    for step in way:
        at = at[int(step[1:-1])] if step.startswith("[") else at[step]
    key: Any = int(last[1:-1]) if last.startswith("[") else last
    if value is GONE:
        del at[key]
    else:
        at[key] = value
    return copy  # type: ignore[no-any-return]


# (kind, what is changed, to what, the path that must be named or GOOD)
CASES: list[tuple[str, str, object, str]] = [
    *((kind, "", {}, GOOD) for kind in DOCUMENTS),
    # descriptors
    ("descriptor", "mediaType", GONE, "mediaType"),
    ("descriptor", "mediaType", "text", "mediaType"),
    ("descriptor", "mediaType", ".a/b", "mediaType"),
    ("descriptor", "mediaType", "a/.b", "mediaType"),
    ("descriptor", "mediaType", "a/b; c=d", "mediaType"),
    ("descriptor", "mediaType", "a" * 127 + "/" + "b" * 127, GOOD),
    ("descriptor", "mediaType", "a" * 128 + "/b", "mediaType"),
    ("descriptor", "mediaType", "a/" + "b" * 128, "mediaType"),
    ("descriptor", "mediaType", 7, "mediaType"),
    ("descriptor", "size", GONE, "size"),
    ("descriptor", "size", 0, GOOD),
    ("descriptor", "size", (1 << 63) - 1, GOOD),
    ("descriptor", "size", 1 << 63, "size"),
    ("descriptor", "size", -1, "size"),
    ("descriptor", "size", "5", "size"),
    ("descriptor", "size", 5.5, "size"),
    ("descriptor", "size", True, "size"),
    ("descriptor", "size", None, "size"),
    ("descriptor", "digest", GONE, "digest"),
    ("descriptor", "digest", "", "digest"),
    ("descriptor", "digest", ":" + "a" * 64, "digest"),
    ("descriptor", "digest", "sha256", "digest"),
    ("descriptor", "digest", "sha256:", "digest"),
    ("descriptor", "digest", "sha256:abc", "digest"),
    ("descriptor", "digest", "sha256:" + "A" * 64, "digest"),
    ("descriptor", "digest", "SHA256:" + "a" * 64, "digest"),
    ("descriptor", "digest", digests.of(b"", "sha512"), GOOD),
    ("descriptor", "digest", "sha512:" + "a" * 64, "digest"),
    ("descriptor", "digest", "unknown+b64u.x:Abc-_=", GOOD),
    ("descriptor", "digest", "a++b:c", "digest"),
    ("descriptor", "digest", "+a:c", "digest"),
    ("descriptor", "digest", "a:c!", "digest"),
    ("descriptor", "urls", ["https://example.com/a", "ftp://example.com/b"], GOOD),
    ("descriptor", "urls", ["example"], "urls[0]"),
    ("descriptor", "urls", ["https://a/b", "http://[::1"], "urls[1]"),
    ("descriptor", "urls", "https://a/b", "urls"),
    ("descriptor", "annotations", {"a": "b"}, GOOD),
    ("descriptor", "annotations", {"a": 1}, 'annotations["a"]'),
    ("descriptor", "annotations", {"": "b"}, "annotations"),
    ("descriptor", "annotations", [], "annotations"),
    ("descriptor", "data", "aGVsbG8=", GOOD),
    ("descriptor", "data", "aGVsbG8", "data"),
    ("descriptor", "data", "not base64!", "data"),
    ("descriptor", "data", "aGVsbG9v", "data"),  # other bytes
    ("descriptor", "artifactType", "x", "artifactType"),
    ("descriptor", "platform", {"os": "linux"}, "platform.architecture"),
    # manifests
    ("manifest", "schemaVersion", GONE, "schemaVersion"),
    ("manifest", "schemaVersion", 1, "schemaVersion"),
    ("manifest", "schemaVersion", "2", "schemaVersion"),
    ("manifest", "mediaType", GONE, GOOD),
    ("manifest", "mediaType", "manifest", "mediaType"),
    ("manifest", "mediaType", oci.MEDIA_INDEX, "mediaType"),
    ("manifest", "config", GONE, "config"),
    ("manifest", "config", [], "config"),
    ("manifest", "config.digest", "sha256:x", "config.digest"),
    ("manifest", "config.mediaType", oci.MEDIA_EMPTY, "artifactType"),
    ("manifest", "layers", GONE, "layers"),
    ("manifest", "layers", [], "layers"),
    ("manifest", "layers", None, "layers"),
    ("manifest", "layers[0].size", -5, "layers[0].size"),
    ("manifest", "layers", [DESCRIPTOR, "x"], "layers[1]"),
    ("manifest", "subject", DESCRIPTOR, GOOD),
    ("manifest", "subject", {"digest": BLOB}, "subject.mediaType"),
    ("manifest", "annotations", {"a": None}, 'annotations["a"]'),
    ("manifest", "manifests", [], "manifests"),
    ("manifest", "unknown", {"x": [1]}, GOOD),
    # indexes
    ("index", "manifests", [], GOOD),
    ("index", "manifests", GONE, "manifests"),
    ("index", "manifests", None, "manifests"),
    ("index", "manifests[0].mediaType", "x", "manifests[0].mediaType"),
    ("index", "manifests[0].mediaType", "text/plain", GOOD),
    ("index", "manifests[0].digest", GONE, "manifests[0].digest"),
    ("index", "manifests[0].platform.os", GONE, "manifests[0].platform.os"),
    ("index", "manifests[0].platform.architecture", 64, "manifests[0].platform.architecture"),
    ("index", "manifests[0].platform.os", [], "manifests[0].platform.os"),
    ("index", "manifests[0].platform", "linux/amd64", "manifests[0].platform"),
    ("index", "mediaType", oci.MEDIA_MANIFEST, "mediaType"),
    ("index", "layers", [], "layers"),
    ("index", "schemaVersion", 3, "schemaVersion"),
    # configs
    ("config", "architecture", GONE, "architecture"),
    ("config", "os", None, "os"),
    ("config", "rootfs", GONE, "rootfs"),
    ("config", "rootfs.type", "tar", "rootfs.type"),
    ("config", "rootfs.diff_ids", GONE, "rootfs.diff_ids"),
    ("config", "rootfs.diff_ids", ["x"], "rootfs.diff_ids[0]"),
    ("config", "created", "yesterday", "created"),
    ("config", "created", "2015-13-31T22:22:56Z", "created"),
    ("config", "created", "2015-10-31", "created"),
    ("config", "author", 1, "author"),
    ("config", "config.Env", ["A"], "config.Env[0]"),
    ("config", "config.Env", ["=b"], "config.Env[0]"),
    ("config", "config.Env", ["A=b=c", "B="], GOOD),
    ("config", "config.Cmd", None, GOOD),
    ("config", "config.Cmd", "sh", "config.Cmd"),
    ("config", "config.Entrypoint", [1], "config.Entrypoint[0]"),
    ("config", "config.User", 1, "config.User"),
    ("config", "config.ExposedPorts", ["80"], "config.ExposedPorts"),
    ("config", "config.ExposedPorts", {"80": None}, 'config.ExposedPorts["80"]'),
    ("config", "config.Volumes", ["/v"], "config.Volumes"),
    ("config", "config.Labels", {"a": True}, 'config.Labels["a"]'),
    ("config", "config.ArgsEscaped", "no", "config.ArgsEscaped"),
    ("config", "history", {}, "history"),
    ("config", "history[0].created", 0, "history[0].created"),
    ("config", "history[0].empty_layer", 1, "history[0].empty_layer"),
    # layouts
    ("layout", "imageLayoutVersion", GONE, "imageLayoutVersion"),
    ("layout", "imageLayoutVersion", "2.0.0", "imageLayoutVersion"),
    ("layout", "imageLayoutVersion", 1, "imageLayoutVersion"),
]


def _name(case: object) -> str:
    return "gone" if case is GONE else str(case)[:40]


@pytest.mark.parametrize(("kind", "path", "value", "named"), CASES, ids=_name)
def test_documents(kind: str, path: str, value: object, named: str) -> None:
    document = changed(DOCUMENTS[kind], path, value)
    found = shapes.complaints(documents.KINDS[kind], document)
    if named == GOOD:
        assert not found
    else:
        assert named in [complaint.path for complaint in found], [str(one) for one in found]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "it is not JSON: line 1, column 1"),
        (b'{"a": 1,\n "b" 2}', "it is not JSON: line 2, column 6"),
        (b"\xff", "it is not UTF-8: byte 0"),
        (b'{"size": 1, "size": 2}', 'the key "size" stands twice'),
        (b'{"a": {"b": 1, "b": 1}}', 'the key "b" stands twice'),
        (b"[" * 100_000, "nested more than 64 deep"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "nested more than 64 deep"),
        (b'"' + b"[" * 1000 + b'"', "it must be an object, not a string"),
        (b'{"size": NaN}', "NaN is no number"),
        (b'{"size": ' + b"9" * 5000 + b"}", "a number has too many digits"),
        (b"null", "it must be an object, not null"),
        (b" " * (oci.DOCUMENT_LIMIT + 1), "it is larger than"),
    ],
)
def test_what_is_no_document(data: bytes, complaint: str) -> None:
    assert complaint in str(validate.document("descriptor", data, "x")[0])


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_the_kind_is_found_out(kind: str) -> None:
    assert validate.kind_of(json.dumps(DOCUMENTS[kind]).encode()) == kind


# ── Whole layouts ──


def tarball(content: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("file")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Image:
    """A layout with one image, to be broken before it is written."""

    def __init__(self, path: Path) -> None:
        self.layout = Layout.create(str(path))
        self.path = path
        self.tar = tarball()
        self.layer = gzip.compress(self.tar)
        self.layer_type = oci.MEDIA_LAYER_GZIP
        self.diff_ids = [digests.of(self.tar)]
        self.config: dict[str, Any] = {}
        self.manifest: dict[str, Any] = {}
        self.entry: dict[str, Any] = {}

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        digest, _ = self.layout.add(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def document(self, value: dict[str, Any], media_type: str) -> dict[str, Any]:
        return self.blob(json.dumps(value).encode(), media_type)

    def write(self) -> None:
        config = {
            "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
            **self.config,
        }  # fmt: skip
        manifest = {
            "schemaVersion": 2,
            "config": self.document(config, oci.MEDIA_CONFIG),
            "layers": [self.blob(self.layer, self.layer_type)],
            **self.manifest,
        }
        annotations = {oci.ANNOTATION_REF_NAME: "v1"}
        entry = {**self.document(manifest, oci.MEDIA_MANIFEST), "annotations": annotations, **self.entry}
        self.index([entry])

    def index(self, entries: list[dict[str, Any]]) -> None:
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))


def _bomb(image: Image) -> None:
    image.tar = tarball(bytes(70 << 20))
    image.layer, image.layer_type = _zstd(image.tar), oci.MEDIA_LAYER_ZSTD


def _zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.compress(data)


def _set(**values: object) -> Callable[[Image], None]:
    def change(image: Image) -> None:
        for name, value in values.items():
            setattr(image, name, value)

    return change


WRONG_LAYOUTS: dict[str, tuple[Callable[[Image], None], str]] = {
    "layer of another media type": (_set(layer_type=oci.MEDIA_LAYER_ZSTD), "layers[0].mediaType: it is"),
    "layer that is not compressed": (lambda image: setattr(image, "layer", image.tar), "the blob is not compressed"),
    "layer that is no tar": (_set(layer=gzip.compress(b"x" * 600)), "layers[0].digest: the blob is no layer"),
    "layer cut short": (lambda i: setattr(i, "layer", i.layer[:-9]), "damaged or cut short"),
    "tar without its end": (lambda i: setattr(i, "layer", gzip.compress(i.tar[:1024])), "is cut short"),
    "archive bomb": (_bomb, "it inflates to more than 1100 times its size"),
    "wrong diff ID": (_set(diff_ids=[BLOB]), "rootfs.diff_ids[0]: it is"),
    "too many diff IDs": (_set(diff_ids=[BLOB, BLOB]), "rootfs.diff_ids: there are 2, for 1 layers"),
    "config without os": (_set(config={"os": None}), "os: it must be a string, not null"),
    "missing layer": (_set(manifest={"layers": [DESCRIPTOR]}), f"layers[0].digest: there is no blob {BLOB}"),
    "missing config": (_set(manifest={"config": DESCRIPTOR}), f"config.digest: there is no blob {BLOB}"),
    "wrong size": (_set(entry={"size": 3}), "index.json: manifests[0].size: it is 3, the blob has"),
    "media type of another": (
        _set(manifest={"mediaType": oci.DOCKER_MANIFEST}), f"mediaType: it is {oci.DOCKER_MANIFEST}, its descriptor",
    ),
    "another platform": (
        _set(entry={"platform": {"os": "linux", "architecture": "arm64"}}),
        "index.json: manifests[0].platform.architecture: it is arm64, the config's amd64",
    ),
    "a digest that nobody knows": (_set(entry={"digest": "md9:abc"}), "manifests[0].digest: md9:abc cannot be"),
}  # fmt: skip


def test_a_good_layout_has_no_faults(tmp_path: Path) -> None:
    image = Image(tmp_path / "layout")
    image.write()
    assert validate.layout(str(image.path)) == []
    with tarfile.open(tmp_path / "image.tar.gz", "w:gz") as archive:
        archive.add(image.path, arcname=".")
    assert validate.archive(str(tmp_path / "image.tar.gz")) == []


@pytest.mark.parametrize("name", WRONG_LAYOUTS)
def test_a_wrong_layout(name: str, tmp_path: Path) -> None:
    change, complaint = WRONG_LAYOUTS[name]
    image = Image(tmp_path / "layout")
    change(image)
    image.write()
    found = [str(finding) for finding in validate.layout(str(image.path))]
    assert any(complaint in text for text in found), found


def test_a_damaged_blob_is_not_looked_into(tmp_path: Path) -> None:
    image = Image(tmp_path / "layout")
    image.write()
    entry = json.loads((image.path / "index.json").read_text())["manifests"][0]
    path = image.path / "blobs" / entry["digest"].replace(":", "/")
    path.write_bytes(path.read_bytes().replace(b"2", b"3", 1))
    found = [str(finding) for finding in validate.layout(str(image.path))]
    assert len(found) == 1
    assert f"index.json: manifests[0].digest: it is {entry['digest']}, the blob's is sha256:" in found[0]


def test_missing_files_of_a_layout(tmp_path: Path) -> None:
    assert [str(one) for one in validate.layout(str(tmp_path))] == [
        "oci-layout: it is missing", "index.json: it is missing",
    ]  # fmt: skip
    with pytest.raises(NotFound, match="there is no directory"):
        validate.layout(str(tmp_path / "nosuch"))


@pytest.mark.parametrize(
    ("data", "kind"), [(b"", DataLoss), (b"x" * 512, InvalidArgument), (tarball()[:700], DataLoss)]
)
def test_a_file_that_is_no_archive(data: bytes, kind: type[BoxshipError], tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(data)
    with pytest.raises(kind):
        validate.archive(str(tmp_path / "image.tar"))


# ── The command ──


def test_validate_from_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = Image(tmp_path / "layout")
    image.write()
    (tmp_path / "config.json").write_text(json.dumps(changed(DOCUMENTS["config"], "os", 1)))
    (tmp_path / "nothing.json").write_text("{}")
    assert main(["validate", str(image.path), "--ref", "name=v1"], "boxship-image") == 0
    assert capfd.readouterr().out == f"{image.path}: OK\n"
    assert main(["validate", str(tmp_path / "config.json")], "boxship-image") == 1
    out, err = capfd.readouterr()
    assert out == f"{tmp_path}/config.json: os: it must be a string, not a number\n"
    assert err == "boxship-image: 1 fault found\n"
    for words, complaint in (
        ([str(image.path), "--ref", "name=v2"], "has no such image"),
        ([str(image.path), "--ref", "v2"], "--ref 'v2' is not KEY=VALUE"),
        ([str(image.path), "--type", "thing"], "--type 'thing' is not one of"),
        ([str(tmp_path / "nosuch")], "there is no file"),
        ([str(tmp_path / "nothing.json")], "it is no document of an image"),
    ):
        assert main(["validate", *words], "boxship-image") == 1
        assert complaint in capfd.readouterr().err
