"""A signature as it travels beside an image (containers-signature(5)).

*Simple* signatures are OpenPGP messages whose content names a manifest and a reference. *Sigstore* signatures sign
the same kind of content with a plain key and carry the rest in annotations, as cosign writes them.
A directory or a lookaside server keeps either in one file: a simple signature as it is, a sigstore one behind a mark.
"""

import base64
from typing import Any

import msgspec

from boxship.errors import InvalidArgument
from boxship.oci import image as oci

SIGSTORE_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGSTORE_KEY = "dev.cosignproject.cosign/signature"
"""The annotation that has a sigstore signature's own bytes, in base64."""
_MARK = b"\0sigstore-json\n"


class Simple(msgspec.Struct, frozen=True):
    """An OpenPGP signed message."""

    data: bytes


class Sigstore(msgspec.Struct, frozen=True):
    """``payload`` is what was signed."""

    payload: bytes
    annotations: "dict[str, str]" = msgspec.field(default_factory=dict)
    media_type: str = SIGSTORE_PAYLOAD


Signature = Simple | Sigstore


def to_bytes(signature: Signature) -> bytes:
    if isinstance(signature, Simple):
        return signature.data
    document = {
        "mimeType": signature.media_type,
        "payload": base64.b64encode(signature.payload).decode(),
        "annotations": signature.annotations,
    }
    return _MARK + msgspec.json.encode(document)


def from_bytes(data: bytes, what: str) -> Signature:
    """Raises InvalidArgument."""
    if not data.startswith(b"\0"):
        return Simple(data)
    if not data.startswith(_MARK):
        raise InvalidArgument(f"{what} is a signature of an unknown kind")
    document = oci.decode(dict[str, Any], data[len(_MARK) :], what)
    try:
        return Sigstore(
            base64.b64decode(document["payload"]), dict(document.get("annotations") or {}), document["mimeType"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(f"{what} is damaged", cause=str(error)) from error
