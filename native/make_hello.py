"""Makes the OCI layout of the built-in ``hello`` image from its one program (image-spec 1.1).

Times are fixed, so that the same program gives the same digests.
"""

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

CREATED = "2026-01-01T00:00:00Z"
SOURCE_DATE = 1767225600  # the same in seconds


def _layer(program: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("hello")
        data = program.read_bytes()
        entry.size, entry.mode, entry.mtime = len(data), 0o755, SOURCE_DATE
        tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def make_layout(program: Path, directory: Path, machine: str) -> None:
    """Write the layout of a program for ``machine`` (uname's word), replacing one that is there."""
    temporary = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    blobs = temporary / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    layer = _layer(program)
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[machine]
    config = {
        "created": CREATED,
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Cmd": ["/hello"],
            "Env": ["PATH=/"],
            "Labels": {"org.opencontainers.image.title": "hello", "org.opencontainers.image.vendor": "Boxship"},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": CREATED, "created_by": "COPY hello /", "comment": "Boxship's built-in image"}],
    }
    prefix = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{prefix}.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), f"{prefix}.config.v1+json"),
        "layers": [blob(layer, f"{prefix}.layer.v1.tar")],
    }
    entry = blob(json.dumps(manifest).encode(), f"{prefix}.manifest.v1+json")
    entry["annotations"] = {
        "io.containerd.image.name": "docker.io/library/hello:latest",
        "org.opencontainers.image.ref.name": "latest",
    }
    index = {"schemaVersion": 2, "mediaType": f"{prefix}.index.v1+json", "manifests": [entry]}
    (temporary / "index.json").write_text(json.dumps(index))
    (temporary / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary.rename(directory)
