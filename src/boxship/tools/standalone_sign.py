"""``standalone-sign``: a simple signature of a manifest in a file, written to a file."""

from __future__ import annotations

from boxship.flags import Flag, Parsed, UsageError

from .command import Command, Context

FLAGS = (
    Flag("output", "o", "string", "Write the signature to SIGNATURE", value="SIGNATURE"),
    Flag("passphrase-file", "", "string", "The passphrase of the key is in PATH", value="PATH"),
)


def do(context: Context, o: Parsed) -> int:
    from boxship.image.manifests import digest_of
    from boxship.image.trust import gpg, payload
    from boxship.tools.files import read_document, read_passphrase, write_file

    manifest, reference, key = o.args
    if not o.output:
        raise UsageError("standalone-sign needs --output SIGNATURE: where to write the signature")
    data = read_document(manifest, "the manifest")
    signed = payload.make(reference, digest_of(data), payload.SIMPLE_TYPE)
    signature = gpg.sign(signed, key, read_passphrase(o.passphrase_file))
    write_file(o.output, signature, "the signature")
    return 0


COMMAND = Command(
    "standalone-sign", "MANIFEST DOCKER-REFERENCE KEY-FINGERPRINT --output SIGNATURE",
    "Create a signature using local files", do, FLAGS, least=3, most=3,
    examples=("standalone-sign --output busybox.signature manifest.json registry.example.com/busybox:1 1D8230F6",),
)  # fmt: skip
