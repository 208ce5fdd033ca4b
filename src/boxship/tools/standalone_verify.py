"""``standalone-verify``: whether a signature in a file is of a manifest in a file, by one of some keys."""

from __future__ import annotations

from contextlib import ExitStack

from boxship.errors import PermissionDenied
from boxship.flags import Flag, Parsed, UsageError

from .command import Command, Context

FLAGS = (
    Flag("public-key-file", "", "string", "The keys to trust (default: gpg's own keyring)", value="PATH"),
)  # fmt: skip


def do(context: Context, o: Parsed) -> int:
    from boxship.image.manifests import digest_of
    from boxship.image.trust import gpg, payload
    from boxship.tools.files import read_document

    manifest, reference, fingerprints, signature = o.args
    wanted = fingerprints.replace(" ", "").split(",")
    if wanted == ["any"] and not o.public_key_file:
        raise UsageError("Cannot use any fingerprint without a public key file")
    digest = digest_of(read_document(manifest, "the manifest"))
    data = read_document(signature, "the signature")
    with ExitStack() as stack:
        home = ""
        if o.public_key_file:
            keys = read_document(o.public_key_file, "the public keys")
            home, there = stack.enter_context(gpg.keyring([keys]))
            wanted = there if wanted == ["any"] else wanted
        signed, fingerprint = gpg.verify(data, home)
    if not any(one and fingerprint.upper().endswith(one.upper()) and len(one) >= 16 for one in wanted):
        raise PermissionDenied("Error verifying signature", cause=f"it is by {fingerprint}, not by {fingerprints}")
    found = payload.read(signed, payload.SIMPLE_TYPE)
    if found.reference != reference:
        raise PermissionDenied("Error verifying signature", cause=f"it is for {found.reference}, not for {reference}")
    if found.digest != digest:
        raise PermissionDenied(
            "Error verifying signature", cause=f"it is of {found.digest}, the manifest has {digest}"
        )
    print(f"Signature verified using fingerprint {fingerprint}, digest {digest}")
    return 0


COMMAND = Command(
    "standalone-verify", "MANIFEST DOCKER-REFERENCE KEY-FINGERPRINTS SIGNATURE",
    'Verify a signature using local files. KEY-FINGERPRINTS has commas between them, or is "any" with\n'
    "--public-key-file.",
    do, FLAGS, least=4, most=4,
)  # fmt: skip
