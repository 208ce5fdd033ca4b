"""Which images may be used: policies, identities, signatures of both kinds, and where they are kept."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxship.errors import BoxshipError, FailedPrecondition, InvalidArgument, PermissionDenied, Unimplemented
from boxship.image.copy import Options, copy
from boxship.image.manifests import Document
from boxship.image.transports import Access, open_destination, open_source, parse
from boxship.image.trust import gpg, identity, lookaside, payload, secretbox, sigstore
from boxship.image.trust.policy import Policy, Rejected
from boxship.image.trust.policy import parse as parse_policy
from boxship.image.trust.signatures import SIGSTORE_KEY, Signature, Sigstore, Simple, from_bytes, to_bytes
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci import reference as references

from . import image_samples as samples
from .fake_registry import FakeRegistry, fake_registry

MANIFEST = Document(b'{"schemaVersion":2}', oci.MEDIA_MANIFEST)


def judge(policy: object, name: str, *signatures: Signature) -> None:
    parse_policy(json.dumps(policy).encode(), "test").check(parse(name), MANIFEST, lambda: signatures)


# ── Policies ──

ACCEPT, REJECT = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]

SCOPES = [
    ("docker://example.com/a/b:1", "example.com/a/b:1"),
    ("docker://example.com/a/b:1", "example.com/a/b"),
    ("docker://example.com/a/b:1", "example.com/a"),
    ("docker://example.com/a/b:1", "example.com"),
    ("docker://example.com/a/b:1", "*.com"),
    ("docker://busybox", "docker.io/library/busybox:latest"),
    ("dir:/tmp/image", "/tmp"),
    ("oci:/tmp/image:name", "/tmp/image:name"),
    ("docker-archive:/tmp/a.tar:x:1", "/tmp/a.tar"),
    ("docker-daemon:x:1", ""),
]


@pytest.mark.parametrize(("name", "scope"), SCOPES)
def test_a_scope_decides_over_the_default(name: str, scope: str) -> None:
    transport = name.partition(":")[0]
    judge({"default": REJECT, "transports": {transport: {scope: ACCEPT}}}, name)
    with pytest.raises(Rejected, match=r"Source image rejected: Running image .* is rejected by policy"):
        judge({"default": ACCEPT, "transports": {transport: {scope: REJECT}}}, name)


def test_the_most_specific_scope_counts() -> None:
    scopes = {"example.com": REJECT, "example.com/a": ACCEPT, "example.com/a/b": REJECT, "": REJECT}
    judge({"default": REJECT, "transports": {"docker": scopes}}, "docker://example.com/a/c:1")
    with pytest.raises(Rejected):
        judge({"default": ACCEPT, "transports": {"docker": scopes}}, "docker://example.com/a/b/c:1")


KEY = base64.b64encode(b"no key").decode()
WRONG_POLICIES = [
    ("[", "invalid policy"),
    ("{}", "default is missing"),
    ('{"default": []}', "at least one requirement"),
    ('{"default": [{"type": "other"}]}', "unknown type 'other'"),
    ('{"default": [{"type": "reject"}], "more": 1}', "unknown field 'more'"),
    ('{"default": [{"type": "reject", "keyPath": "x"}]}', "unknown field 'keyPath'"),
    ('{"default": [{"type": "reject"}], "transports": {"docker": []}}', "no mapping"),
    ('{"default": [{"type": "signedBy", "keyType": "GPGKeys"}]}', "exactly one of"),
    ('{"default": [{"type": "signedBy", "keyType": "X", "keyData": "eA=="}]}', "unknown keyType"),
    ('{"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/none"}]}', "keyPath"),
    ('{"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyData": "?"}]}', "keyData"),
    (
        '{"default": [{"type": "sigstoreSigned", "keyData": "eA==", "signedIdentity": {"type": "x"}}]}',
        "signedIdentity",
    ),
    ('{"default": [{"type": "sigstoreSigned", "keyData": "eA==", "fulcio": {}}]}', "with a key"),
]


@pytest.mark.parametrize(("text", "words"), WRONG_POLICIES)
def test_a_policy_that_is_not_understood_is_refused(text: str, words: str) -> None:
    with pytest.raises((InvalidArgument, Unimplemented), match=words):
        parse_policy(text.encode(), "test")


def test_a_policy_that_is_not_there_is_told_with_what_to_do() -> None:
    with pytest.raises(InvalidArgument, match="--insecure-policy"):
        Policy.load("/nowhere/policy.json")


IDENTITIES = [
    ({"type": "matchExact"}, "example.com/a:1", "example.com/a:1", True),
    ({"type": "matchExact"}, "example.com/a:1", "example.com/a:2", False),
    ({"type": "matchExact"}, "example.com/a:1", "example.com/a", False),
    (None, "example.com/a:1", "example.com/a:1", True),
    (None, "example.com/a:1", "example.com/a:2", False),
    (None, "example.com/a@sha256:" + "0" * 64, "example.com/a:2", True),
    (None, "example.com/a@sha256:" + "0" * 64, "example.com/b:2", False),
    ({"type": "matchRepository"}, "example.com/a:1", "example.com/a:2", True),
    ({"type": "matchRepository"}, "example.com/a:1", "example.com/b:1", False),
    ({"type": "exactReference", "dockerReference": "x.io/y:1"}, "example.com/a:1", "x.io/y:1", True),
    ({"type": "exactReference", "dockerReference": "x.io/y:1"}, "example.com/a:1", "x.io/y:2", False),
    ({"type": "exactRepository", "dockerRepository": "x.io/y"}, "example.com/a:1", "x.io/y:2", True),
    ({"type": "remapIdentity", "prefix": "m.io", "signedPrefix": "x.io/y"}, "m.io/a:1", "x.io/y/a:1", True),
    ({"type": "remapIdentity", "prefix": "m.io", "signedPrefix": "x.io/y"}, "m.iox/a:1", "x.io/y/a:1", False),
    ({"type": "remapIdentity", "prefix": "m.io", "signedPrefix": "x.io"}, "other.io/a:1", "other.io/a:1", True),
    (None, "example.com/a:1", "Not A Reference", False),
]


@pytest.mark.parametrize(("rule", "image", "signed", "accepted"), IDENTITIES)
def test_signed_identities(rule: object, image: str, signed: str, accepted: bool) -> None:
    assert identity.match_of(rule, "test")(references.parse(image), signed) is accepted


def test_images_without_a_reference_match_only_fixed_identities() -> None:
    assert not identity.match_of(None, "test")(None, "x.io/y:1")
    assert identity.match_of({"type": "exactReference", "dockerReference": "x.io/y:1"}, "test")(None, "x.io/y:1")


# ── Payloads and files ──

PAYLOADS = [
    (lambda d: d, None),
    (lambda d: d | {"more": 1}, "unknown fields"),
    (lambda d: {"critical": {**d["critical"], "more": 1}, "optional": {}}, "other fields"),
    (lambda d: {"critical": {**d["critical"], "type": "x"}, "optional": {}}, "of type 'x'"),
    (lambda d: {"optional": {}}, "not what one has"),
    (lambda d: {"critical": {**d["critical"], "image": {"docker-manifest-digest": "x"}}, "optional": {}}, "digest"),
]


@pytest.mark.parametrize(("change", "words"), PAYLOADS)
def test_a_payload_is_read_strictly(change: object, words: str | None) -> None:
    document = json.loads(payload.make("x.io/y:1", digests.of(b""), payload.SIMPLE_TYPE))
    data = json.dumps(change(document)).encode()  # type: ignore[operator]  # a function of the table
    if words is None:
        assert payload.read(data, payload.SIMPLE_TYPE) == payload.Payload("x.io/y:1", digests.of(b""))
    else:
        with pytest.raises(InvalidArgument, match=words):
            payload.read(data, payload.SIMPLE_TYPE)


def test_signatures_in_files_come_back() -> None:
    for one in (Simple(b"\x90message"), Sigstore(b"payload", {SIGSTORE_KEY: "eA=="})):
        assert from_bytes(to_bytes(one), "test") == one
    for bad in (b"\0other\n{}", b"\0sigstore-json\n{", b'\0sigstore-json\n{"payload": 1}'):
        with pytest.raises(InvalidArgument):
            from_bytes(bad, "test")


def test_lookaside_entries_and_files(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.yaml").write_text(
        f"default-docker:\n  lookaside: file://{tmp_path}/default\n"
        f"docker:\n  example.com/ns:\n    sigstore: file://{tmp_path}/ns\n    use-sigstore-attachments: true\n"
        f"  example.com/ns/app:\n    lookaside: file://{tmp_path}/read\n    lookaside-staging: file://{tmp_path}/write\n"
    )
    directory, digest = str(tmp_path / "d"), digests.of(b"x")

    def found(text: str) -> lookaside.Lookaside:
        return lookaside.find(references.parse(text), directory)

    assert found("other.com/x:1").url == f"file://{tmp_path}/default"
    assert found("example.com/ns/other:1").attachments
    store, reference = found("example.com/ns/app:1"), references.parse("example.com/ns/app:1")
    assert (store.url, store.staging) == (f"file://{tmp_path}/read", f"file://{tmp_path}/write")
    store.write(reference, digest, [Simple(b"one"), Simple(b"two")])
    store.write(reference, digest, [Simple(b"three")])
    assert os.listdir(tmp_path / "write" / "ns" / f"app@{digest.replace(':', '=')}") == ["signature-1"]
    shutil.move(tmp_path / "write", tmp_path / "read")
    assert store.read(reference, digest) == [Simple(b"three")]
    with pytest.raises(FailedPrecondition, match="file://"):
        lookaside.Lookaside("https://example.com", "").write(reference, digest, [Simple(b"x")])


@pytest.mark.parametrize("text", ["[", "- a", "docker:\n  x: 1\n"])
def test_a_registries_d_file_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InvalidArgument, match=str(tmp_path)):
        lookaside.find(references.parse("x.io/y:1"), str(tmp_path))


# ── Sigstore ──


def test_secretbox_is_nacls() -> None:
    # "Cryptography in NaCl" (2009), sections 8 to 10: its shared key, nonce, message and sealed message
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    message = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c012335"
        "61f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c"
        "60902e52f0a089bc76897040e082f937763848645e0705"
    )
    sealed = secretbox.lock(message, key, nonce)
    assert sealed[:16].hex() == "f3ffc7703f9400e52a7dfb4b3d3305d9"
    assert sealed[16:32].hex() == "8e993b9f48681273c29650ba32fc76ce"
    assert secretbox.unlock(sealed, key, nonce) == message
    with pytest.raises(FailedPrecondition, match="wrong passphrase"):
        secretbox.unlock(sealed[:-1] + b"x", key, nonce)


@pytest.fixture(scope="module")
def keys() -> list[tuple[bytes, bytes]]:
    return [sigstore.generate("word") for _ in range(2)]


def test_a_key_is_unlocked_by_its_passphrase_only(keys: list[tuple[bytes, bytes]]) -> None:
    sigstore.unlock(keys[0][0], "word", "key")
    with pytest.raises(FailedPrecondition, match="wrong passphrase"):
        sigstore.unlock(keys[0][0], "other", "key")
    head, tail = (f"-----{word} ENCRYPTED SIGSTORE PRIVATE KEY-----" for word in ("BEGIN", "END"))
    hostile = {"kdf": {"name": "scrypt", "params": {"N": 1 << 30, "r": 8, "p": 1}, "salt": ""}}
    document = json.dumps(hostile | {"cipher": {"name": "nacl/secretbox"}}).encode()
    costly = f"{head}\n{base64.b64encode(document).decode()}\n{tail}".encode()
    for text in (b"", b"text", keys[0][1], f"{head}\nAAAA\n{tail}".encode(), costly):
        with pytest.raises(InvalidArgument):
            sigstore.unlock(text, "word", "key")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="not installed: openssl")
def test_openssl_verifies_our_signature(keys: list[tuple[bytes, bytes]], tmp_path: Path) -> None:
    signed = sigstore.SigstoreSigner(sigstore.unlock(keys[0][0], "word", "key")).sign(MANIFEST, "x.io/y:1")
    for name, data in (("pub", keys[0][1]), ("payload", signed.payload)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "sig").write_bytes(base64.b64decode(signed.annotations[SIGSTORE_KEY]))
    command = ["openssl", "dgst", "-sha256", "-verify", "pub", "-signature", "sig", "payload"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout == "Verified OK\n"


def test_a_policy_takes_sigstore_signatures_by_its_keys(keys: list[tuple[bytes, bytes]]) -> None:
    signer = sigstore.SigstoreSigner(sigstore.unlock(keys[0][0], "word", "key"))
    signed = signer.sign(MANIFEST, "x.io/y:1")

    def policy(number: int) -> object:
        return {"default": [{"type": "sigstoreSigned", "keyData": base64.b64encode(keys[number][1]).decode()}]}

    judge(policy(0), "docker://x.io/y:1", signed)
    judge(policy(0), "docker://x.io/y:1", Simple(b"x"), Sigstore(b"{}", {SIGSTORE_KEY: "eA=="}), signed)
    other = signer.sign(Document(b"{}", oci.MEDIA_MANIFEST), "x.io/y:1")
    for number, name, signatures, words in (
        (1, "docker://x.io/y:1", [signed], "verification failed"),
        (0, "docker://x.io/y:2", [signed], 'identity "x.io/y:1" is not accepted'),
        (0, "docker://x.io/y:1", [other], "does not match"),
        (0, "docker://x.io/y:1", [], "A signature was required"),
        (0, "docker://x.io/y:1", [Sigstore(signed.payload, {})], "lacks its annotation"),
        (0, "docker://x.io/y:1", [Sigstore(b"{}", signed.annotations), other], "None of the signatures"),
    ):
        with pytest.raises(Rejected, match=words):
            judge(policy(number), name, *signatures)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as found:
        yield found


def test_sigstore_signatures_travel_in_the_registry(
    keys: list[tuple[bytes, bytes]], registry: FakeRegistry, tmp_path: Path
) -> None:
    samples.directory(tmp_path / "image")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "r.yaml").write_text(f"docker:\n  {registry.domain}:\n    use-sigstore-attachments: true\n")
    access = Access(registries_d=str(tmp_path / "d"))
    signer = sigstore.SigstoreSigner(sigstore.unlock(keys[0][0], "word", "key"))

    def moved(source: str, destination: str, options: Options) -> None:
        writing = open_destination(parse(destination), access)
        copy(open_source(parse(source), access), writing, options)

    name = f"docker://{registry.domain}/app:1"
    moved(f"dir:{tmp_path}/image", name, Options(signers=(signer,)))
    assert [one for one in registry.manifests["app"] if one.endswith(".sig")]
    requirement = {"type": "sigstoreSigned", "keyData": base64.b64encode(keys[0][1]).decode()}
    policy = parse_policy(json.dumps({"default": [requirement]}).encode(), "test")
    moved(name, f"dir:{tmp_path}/signed", Options(judge=policy))
    assert (tmp_path / "signed" / "signature-1").exists()
    moved(name, f"docker://{registry.domain}/again:1", Options())
    assert [one for one in registry.manifests["again"] if one.endswith(".sig")]
    moved(name, f"dir:{tmp_path}/bare", Options(remove_signatures=True))
    assert not (tmp_path / "bare" / "signature-1").exists()
    for options, words in ((Options(format="oci"), "signatures"), (Options(compression="zstd"), "signatures")):
        with pytest.raises(BoxshipError, match=words):
            moved(name, f"docker://{registry.domain}/changed:1", options)
    with pytest.raises(BoxshipError, match="does not keep signatures"):
        moved(
            name,
            f"oci:{tmp_path}/o:x",
            Options(signers=(signer,), identity="x.io/y:1", remove_signatures=True),
        )


# ── GPG ──

needs_gpg = pytest.mark.skipif(shutil.which("gpg") is None, reason="not installed: gpg")


@pytest.fixture(scope="module")
def gpg_keys() -> Iterator[dict[str, bytes]]:
    home = Path(f"/tmp/bxg{os.getpid()}")  # short: gpg's agent listens on a socket in it
    home.mkdir(mode=0o700)
    before, os.environ["GNUPGHOME"] = os.environ.get("GNUPGHOME"), str(home)
    try:
        quiet = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback"]
        found = {}
        for who in ("alice@x.io", "bob@x.io"):
            command = [*quiet, "--passphrase", "word", "--quick-gen-key", who, "ed25519"]
            subprocess.run(command, check=True, capture_output=True)
            found[who] = subprocess.run(["gpg", "--export", who], check=True, capture_output=True).stdout
        yield found
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], capture_output=True, check=False)
        if before is None:
            del os.environ["GNUPGHOME"]
        else:
            os.environ["GNUPGHOME"] = before
        shutil.rmtree(home, ignore_errors=True)  # an agent that ends removes its sockets meanwhile


@needs_gpg
def test_a_policy_takes_simple_signatures_by_its_keys(gpg_keys: dict[str, bytes]) -> None:
    signed = gpg.GpgSigner("alice@x.io", "word").sign(MANIFEST, "x.io/y:1")

    def policy(who: str) -> object:
        key = base64.b64encode(gpg_keys[who]).decode()
        return {"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyData": key}]}

    judge(policy("alice@x.io"), "docker://x.io/y:1", signed)
    for who, name, signature, words in (
        ("bob@x.io", "docker://x.io/y:1", signed, "Invalid GPG signature"),
        ("alice@x.io", "docker://x.io/y:2", signed, "is not accepted"),
        ("alice@x.io", "docker://x.io/y:1", Simple(b"nonsense"), "Invalid GPG signature"),
        ("alice@x.io", "docker://x.io/y:1", Simple(signed.data[:-20]), "Invalid GPG signature"),
    ):
        with pytest.raises(Rejected, match=words):
            judge(policy(who), name, signature)


@needs_gpg
def test_signing_says_what_gpg_says(gpg_keys: dict[str, bytes]) -> None:
    subprocess.run(["gpgconf", "--kill", "gpg-agent"], check=True, capture_output=True)
    for key, passphrase, words in (
        ("alice@x.io", "wrong", "Bad passphrase"),
        ("carol@x.io", "word", "No secret key"),
    ):
        with pytest.raises(FailedPrecondition, match=words):
            gpg.sign(b"x", key, passphrase)
    with pytest.raises(PermissionDenied):
        gpg.verify(b"nothing")


def test_without_gpg_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unimplemented, match="install gnupg"):
        gpg.sign(b"x", "alice")
