"""``copy``: one image, or an index with all its images, from one transport to another."""

from __future__ import annotations

from boxship.errors import BoxshipError
from boxship.flags import Flag, Parsed, UsageError

from .command import Command, Context
from .images import AUTHFILE, RETRIES, access, end_flags, name, numbers, retrying, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from boxship.image.compression import Compression
    from boxship.image.copy import Images, Options
    from boxship.image.manifests import Document
    from boxship.image.transports import Access, Name

# What copy and sync are both asked for.
SHARED = (
    AUTHFILE,
    Flag("format", "f", "string", "Write manifests of FORMAT (oci, v2s2)", value="FORMAT"),
    Flag("preserve-digests", "", "bool", "Fail rather than change a digest"),
    Flag("remove-signatures", "", "bool", "Leave signatures behind"),
    Flag("sign-by", "", "string", "Sign with the GPG key that has FINGERPRINT", value="FINGERPRINT"),
    Flag("sign-by-sigstore", "", "string", "Sign as the sigstore parameters in PATH say", value="PATH"),
    Flag("sign-by-sigstore-private-key", "", "string", "Sign with the sigstore key in PATH", value="PATH"),
    Flag("sign-passphrase-file", "", "string", "The passphrase of the key is in PATH", value="PATH"),
    *RETRIES,
    *end_flags("src-"),
    *end_flags("dest-"),
)
FLAGS = (
    *SHARED,
    Flag("additional-tag", "", "list", "Name it so, too (docker-archive:, engines)", value="REFERENCE"),
    Flag("all", "a", "bool", "Copy all images of an index"),
    Flag("decryption-key", "", "list", "Decrypt layers with this private key", value="KEY[:PASSPHRASE]"),
    Flag("dest-compress", "", "bool", "Compress layers (dir:)"),
    Flag("dest-compress-format", "", "string", "Compress layers by FORMAT (gzip, zstd)", value="FORMAT"),
    Flag("dest-compress-level", "", "int", "Compress layers at LEVEL", value="LEVEL"),
    Flag("dest-decompress", "", "bool", "Inflate layers (dir:)"),
    Flag("dest-force-compress-format", "", "bool", "Let no layer keep another format"),
    Flag("dest-oci-accept-uncompressed-layers", "", "bool", "Leave plain layers plain (oci:)"),
    Flag("dest-precompute-digests", "", "bool", "Taken for skopeo's sake: what is there is never sent"),
    Flag("digestfile", "", "string", "Write the digest of the copied manifest to PATH", value="PATH"),
    Flag("encrypt-layer", "", "list", "Encrypt only this layer (0 the first, -1 the last)", value="N"),
    Flag("encryption-key", "", "list", "Encrypt layers for this public key (jwe:PATH)", value="jwe:PATH"),
    Flag("image-parallel-copies", "", "int", "Copy so many blobs at once (default 6)", value="N"),
    Flag("multi-arch", "", "string", "Of an index: system, all or index-only", value="HOW"),
    Flag("quiet", "q", "bool", "Say nothing while it works"),
    Flag("sign-identity", "", "string", "Sign for this reference, not the destination's", value="REFERENCE"),
)

COMPRESSIONS = ("gzip", "zstd")
IMAGES = ("system", "all", "index-only")


def do(context: Context, o: Parsed) -> int:
    from boxship.image.transports import parse
    from boxship.tools.files import write_file
    from boxship.tools.progress import report

    source, destination = name(o.args[0], "source"), name(o.args[1], "destination")
    for one in words(o.additional_tag):
        parse(f"docker://{one}")
    here, there = ends(context, o)
    options = wanted(context, o, here)
    told = report(o.quiet)
    done = retrying(o, lambda: copied(source, destination, here, there, options, told))
    if o.digestfile:
        write_file(o.digestfile, done.digest.encode(), "the digest file")
    return 0


def copied(source: Name, destination: Name, here: Access, there: Access, options: Options, told: Any) -> Document:
    """Open both ends and copy; gives what was written."""
    from boxship.image.copy import copy
    from boxship.image.transports import open_destination, open_source

    reading = open_source(source, here)
    try:
        try:
            reading.manifest()
        except BoxshipError as error:
            error.message = f"initializing source {source}: {error.message}"
            raise
        writing = open_destination(destination, there)
        try:
            return copy(reading, writing, options, told)
        finally:
            writing.close()
    finally:
        reading.close()


def ends(context: Context, o: Parsed) -> tuple[Access, Access]:
    """How both ends are reached. Raises UsageError."""
    compress = bool(o.values.get("dest-compress"))
    decompress = bool(o.values.get("dest-decompress"))
    if compress and decompress:
        raise UsageError("--dest-compress and --dest-decompress are mutually exclusive")
    there = access(
        context,
        o,
        "dest-",
        compress=compress or bool(o.values.get("dest-compress-format")),
        decompress=decompress,
        accept_uncompressed=bool(o.values.get("dest-oci-accept-uncompressed-layers")),
        additional_tags=tuple(words(o.values.get("additional-tag", []))),
    )
    return access(context, o, "src-"), there


def wanted(context: Context, o: Parsed, here: Access) -> Options:
    """What the flags ask of a copy. Raises UsageError, and what reading keys and policies takes."""
    from boxship.image.copy import AT_ONCE, Options
    from boxship.image.manifests import wanted_format

    value = o.values.get
    at_once = value("image-parallel-copies")
    if at_once is not None and at_once < 1:
        raise UsageError("--image-parallel-copies: at least 1")
    if value("encrypt-layer") and not value("encryption-key"):
        raise UsageError("--encrypt-layer can only be used with --encryption-key")
    return Options(
        images=_images(o),
        format=wanted_format(o.format),
        preserve_digests=o.preserve_digests,
        compression=_compression(value("dest-compress-format", "")),
        level=value("dest-compress-level"),
        remove_signatures=o.remove_signatures,
        signers=_signers(o),
        identity=_identity(value("sign-identity", "")),
        cipher=_cipher(words(value("encryption-key", []))),
        encrypt_layers=numbers(value("encrypt-layer", []), "encrypt-layer"),
        opener=_opener(value("decryption-key", [])),
        at_once=at_once or AT_ONCE,
        judge=_judge(context),
        access=here,
    )


def _images(o: Parsed) -> Images:
    how = o.values.get("multi-arch", "")
    if how and o.all:
        raise UsageError("Cannot use --all and --multi-arch flags together")
    if how and how not in IMAGES:
        raise UsageError(
            f'unknown multi-arch option "{how}". Choose one of the supported options: {", ".join(IMAGES)}'
        )
    return "all" if o.all or how == "all" else "index-only" if how == "index-only" else "system"


def _compression(text: str) -> Compression | None:
    if not text:
        return None
    for one in COMPRESSIONS:
        if text == one:
            return "gzip" if one == "gzip" else "zstd"
    remedy = "use zstd" if text == "zstd:chunked" else f"one of {', '.join(COMPRESSIONS)}"
    raise UsageError(f"--dest-compress-format {text}: not offered ({remedy})")


def _identity(text: str) -> str:
    from boxship.oci import reference

    if not text:
        return ""
    parsed = reference.parse(text)
    if not (parsed.tag or parsed.digest):
        raise UsageError(f"--sign-identity {text}: name a tag or a digest, too")
    return str(parsed)


def _signers(o: Parsed) -> tuple[Any, ...]:
    from boxship.tools.files import read_passphrase

    found: list[Any] = []
    passphrase = read_passphrase(o.sign_passphrase_file)
    if o.sign_by_sigstore:
        raise UsageError("--sign-by-sigstore: keyless signing is not offered (use --sign-by-sigstore-private-key)")
    if o.sign_by:
        from boxship.image.trust.gpg import GpgSigner

        found.append(GpgSigner(o.sign_by, passphrase))
    if o.sign_by_sigstore_private_key:
        from boxship.image.trust.sigstore import SigstoreSigner

        found.append(SigstoreSigner.load(o.sign_by_sigstore_private_key, passphrase))
    return tuple(found)


def _cipher(keys: list[str]) -> Any:
    if not keys:
        return None
    from boxship.image.encryption import Recipients

    return Recipients.load(keys)


def _opener(keys: list[str]) -> Any:
    if not keys:
        return None
    from boxship.image.encryption import PrivateKeys

    return PrivateKeys.load(keys)


def _judge(context: Context) -> Any:
    from boxship.image.trust.policy import Policy

    if context.options.insecure_policy:
        return Policy.insecure()
    # skopeo refuses to work on a machine without a policy, whose package brings one
    return Policy.load(context.options.policy, must=context.program == "skopeo")


COMMAND = Command(
    "copy", "SOURCE-IMAGE DESTINATION-IMAGE",
    "Copy an image; a name is TRANSPORT:DETAILS, with one of the transports boxship, containers-storage,\n"
    "dir, docker, docker-archive, docker-daemon, oci, oci-archive, sif.",
    do, FLAGS, least=2, most=2,
    examples=(
        "copy docker://quay.io/skopeo/stable:latest docker://registry.example.com/skopeo:latest",
        "copy --all docker://busybox oci:images:busybox",
    ),
)  # fmt: skip
