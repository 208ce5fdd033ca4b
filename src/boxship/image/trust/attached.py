"""Sigstore signatures in the registry, as cosign keeps them: the manifest ``sha256-HEX.sig`` beside what it signs.

Each of its layers is one signature: the blob is what was signed, the annotations have the rest.
"""

import base64

from boxship.errors import InvalidArgument, NotFound
from boxship.image.registry.client import Repository
from boxship.oci import digest as digests
from boxship.oci import image as oci

from .signatures import SIGSTORE_PAYLOAD, Signature, Sigstore


def tag_of(digest: str) -> str:
    return digest.replace(":", "-", 1) + ".sig"


def read(repository: Repository, digest: str) -> "list[Signature]":
    """Raises InvalidArgument (damaged)."""
    try:
        _, data = repository.manifest(tag_of(digest))
    except NotFound:
        return []
    return [
        Sigstore(_payload(repository, layer), dict(layer.annotations or {}), layer.media_type)
        for layer in oci.decode(oci.Manifest, data, f"signatures of {digest}").layers
    ]


def write(repository: Repository, digest: str, signatures: "list[Sigstore]") -> None:
    """Add what is not there yet; the others stay, as they may be somebody else's."""
    kept = [one for one in read(repository, digest) if isinstance(one, Sigstore)]
    layers, diff_ids = [], []
    for signature in [*kept, *(one for one in signatures if one not in kept)]:
        name = _put(repository, signature.payload)
        layers.append(
            oci.Descriptor(
                signature.media_type or SIGSTORE_PAYLOAD, name, len(signature.payload),
                annotations=signature.annotations,
            )
        )  # fmt: skip
        diff_ids.append(name)
    config = oci.encode(oci.ImageConfig(architecture="", os="", rootfs=oci.RootFS("layers", list(diff_ids))))
    manifest = oci.encode(
        oci.Manifest(
            2,
            oci.Descriptor(oci.MEDIA_CONFIG, _put(repository, config), len(config)),
            layers,
            media_type=oci.MEDIA_MANIFEST,
        )
    )
    repository.put_manifest(tag_of(digest), manifest, oci.MEDIA_MANIFEST)


def _payload(repository: Repository, layer: oci.Descriptor) -> bytes:
    if layer.size > oci.DOCUMENT_LIMIT:
        raise InvalidArgument(f"signature {layer.digest} is larger than {oci.DOCUMENT_LIMIT} bytes")
    if layer.data:
        return base64.b64decode(layer.data)
    verifier = digests.Verifier(digests.parse(layer.digest), layer.size, f"signature {layer.digest}")
    blob = repository.blob(layer.digest)
    data = b""
    try:
        while part := blob.read(1 << 16):
            verifier.update(part)
            data += part
    finally:
        blob.close()
    verifier.finish()
    return data


def _put(repository: Repository, data: bytes) -> str:
    digest = digests.of(data)
    if not repository.has_blob(digest):
        repository.upload(digest, len(data), lambda offset: [data])
    return digest
