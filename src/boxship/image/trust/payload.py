"""What a signature signs: a JSON document that names a manifest and a reference (containers-signature(5), atomic).

Readers take it strictly: unknown fields of ``critical`` are refused, because a signature that means more than we
understand must not be taken for one that we do.
"""

import time
from typing import Any

import msgspec

from boxship.errors import InvalidArgument
from boxship.oci import digest as digests

SIMPLE_TYPE = "atomic container signature"
SIGSTORE_TYPE = "cosign container image signature"
CREATOR = "boxship"


class Payload(msgspec.Struct, frozen=True):
    """``reference`` is what the signer says the image is; ``digest`` the manifest's."""

    reference: str
    digest: str


def make(reference: str, digest: str, kind: str) -> bytes:
    """``kind`` is SIMPLE_TYPE or SIGSTORE_TYPE."""
    document = {
        "critical": {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": digest},
            "type": kind,
        },
        "optional": {"creator": CREATOR, "timestamp": int(time.time())},
    }
    return msgspec.json.encode(document)


def read(data: bytes, kind: str) -> Payload:
    """Raises InvalidArgument."""
    try:
        document = msgspec.json.decode(data, type=dict[str, Any])
        critical = _exactly(document["critical"], "critical", {"identity", "image", "type"})
        identity = _exactly(critical["identity"], "identity", {"docker-reference"})
        image = _exactly(critical["image"], "image", {"docker-manifest-digest"})
        if set(document) - {"critical", "optional"}:
            raise InvalidArgument("a signature has unknown fields")
        if critical["type"] != kind:
            raise InvalidArgument(f"a signature is of type {critical['type']!r}, expected {kind!r}")
        return Payload(str(identity["docker-reference"]), digests.parse(str(image["docker-manifest-digest"])))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError) as error:
        raise InvalidArgument("a signature's content is not what one has", cause=str(error)) from error


def _exactly(value: Any, what: str, names: "set[str]") -> "dict[str, Any]":
    if not isinstance(value, dict) or set(value) != names:
        raise InvalidArgument(f"a signature's {what} has other fields than {', '.join(sorted(names))}")
    return value
