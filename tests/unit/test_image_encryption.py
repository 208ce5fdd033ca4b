"""Encrypted layers: what is sealed for a key opens with it alone, and what was changed is found out."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from boxship.errors import BoxshipError, DataLoss, InvalidArgument, PermissionDenied
from boxship.image.copy import Options, copy
from boxship.image.encryption import KEYS, PUBLIC, PrivateKeys, Recipients, unwrap, wrap
from boxship.image.layout import Layout
from boxship.image.manifests import Document
from boxship.image.transports import Access, open_destination, open_source, parse
from boxship.oci import digest as digests
from boxship.oci import image as oci

from . import image_samples as samples


def write_pair(directory: Path, name: str, passphrase: bytes = b"") -> None:
    key = rsa.generate_private_key(65537, 2048)
    lock = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (directory / f"{name}.pem").write_bytes(key.private_bytes(pem, pkcs8, lock))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (directory / f"{name}.pub").write_bytes(public)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    for name in ("alice", "bob", "carol"):
        write_pair(directory, name)
    write_pair(directory, "locked", b"word")
    (directory / "word").write_text("word\n")
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    (directory / "ec.pub").write_bytes(
        curve.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return directory


@pytest.mark.parametrize("names", [["alice"], ["alice", "bob"]])
def test_every_recipient_opens_it_and_nobody_else(names: list[str], keys: Path) -> None:
    wrapped = wrap(b"secret", Recipients.load([f"jwe:{keys}/{name}.pub" for name in names]).keys)
    for name in ("alice", "bob", "carol"):
        (key,) = PrivateKeys.load([f"{keys}/{name}.pem"]).keys
        assert unwrap(wrapped, key) == (b"secret" if name in names else None)


@pytest.mark.parametrize("secret", ["word", "pass=word", "file={}/word"])
def test_a_locked_key_is_opened(secret: str, keys: Path) -> None:
    assert PrivateKeys.load([f"{keys}/locked.pem:{secret.format(keys)}"]).keys


def sealed(source: str, destination: str, keys: Path, **options: object) -> Document:
    cipher = Recipients.load([f"jwe:{keys}/alice.pub"])
    writing = open_destination(parse(destination), Access())
    return copy(open_source(parse(source), Access()), writing, Options(cipher=cipher, **options))  # type: ignore[arg-type]


def opened(source: str, destination: str, *names: str) -> Document:
    writing = open_destination(parse(destination), Access())
    return copy(open_source(parse(source), Access()), writing, Options(opener=PrivateKeys.load(list(names))))


def test_a_sealed_image_opens_to_the_same_layers(keys: Path, tmp_path: Path) -> None:
    digest = samples.layout(tmp_path / "plain")
    layers = sealed(f"oci:{tmp_path}/plain:tiny", f"oci:{tmp_path}/sealed:x", keys).manifest().layers
    assert {one.media_type for one in layers} == {oci.MEDIA_LAYER_GZIP + "+encrypted"}
    assert all(set(one.annotations or {}) == {PUBLIC, KEYS} for one in layers)
    assert opened(f"oci:{tmp_path}/sealed:x", f"oci:{tmp_path}/open:x", f"{keys}/alice.pem").manifest() == (
        Document(Layout(f"{tmp_path}/plain").read(digest), oci.MEDIA_MANIFEST).manifest()
    )
    with pytest.raises(PermissionDenied, match="none of the given keys"):
        opened(f"oci:{tmp_path}/sealed:x", f"oci:{tmp_path}/no:x", f"{keys}/bob.pem")


def test_sealed_layers_pass_without_a_key(keys: Path, tmp_path: Path) -> None:
    samples.directory(tmp_path / "image")
    there = sealed(f"dir:{tmp_path}/image", f"oci:{tmp_path}/sealed:x", keys)
    again = copy(
        open_source(parse(f"oci:{tmp_path}/sealed:x"), Access()),
        open_destination(parse(f"dir:{tmp_path}/again"), Access()),
        Options(),
    )
    assert again == there
    writing = open_destination(parse(f"docker-archive:{tmp_path}/a.tar:x:1"), Access())
    with pytest.raises(BoxshipError):
        copy(open_source(parse(f"oci:{tmp_path}/sealed:x"), Access()), writing, Options())
    writing.close()


@pytest.mark.parametrize(("chosen", "which"), [((0,), [True, False]), ((-1,), [False, True]), ((), [True, True])])
def test_layers_can_be_chosen(chosen: tuple[int, ...], which: list[bool], keys: Path, tmp_path: Path) -> None:
    samples.layout(tmp_path / "plain")
    done = sealed(f"oci:{tmp_path}/plain:tiny", f"oci:{tmp_path}/sealed:x", keys, encrypt_layers=chosen)
    assert [one.media_type.endswith("+encrypted") for one in done.manifest().layers] == which
    with pytest.raises(InvalidArgument, match="not there"):
        sealed(f"oci:{tmp_path}/plain:tiny", f"oci:{tmp_path}/s:x", keys, encrypt_layers=(5,))


def test_a_changed_layer_is_found_out(keys: Path) -> None:
    seal = Recipients.load([f"jwe:{keys}/alice.pub"]).seal()
    stream = seal(io.BytesIO(b"layer" * 1000))
    data = b"".join(iter(lambda: stream.read(1000), b""))
    layer = oci.Descriptor("x+encrypted", digests.of(data), len(data), annotations=seal.annotations())
    opener = PrivateKeys.load([f"{keys}/alice.pem"])
    good = opener(layer)(io.BytesIO(data))
    assert b"".join(iter(lambda: good.read(7), b"")) == b"layer" * 1000
    for changed in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b""):
        bad = opener(layer)(io.BytesIO(changed))
        with pytest.raises(DataLoss, match="changed after"):
            b"".join(iter(lambda bad=bad: bad.read(1000), b""))  # type: ignore[misc]  # bound now


@pytest.mark.parametrize(
    "annotations",
    [
        {},
        {PUBLIC: "!", KEYS: "!"},
        {PUBLIC: base64.b64encode(b"{}").decode(), KEYS: base64.b64encode(b"{}").decode()},
        {PUBLIC: base64.b64encode(b'{"cipher": "x"}').decode(), KEYS: base64.b64encode(b"[]").decode()},
        {PUBLIC: base64.b64encode(json.dumps({"cipher": "AES_256_CTR_HMAC_SHA256"}).encode()).decode(), KEYS: ""},
    ],
)
def test_damaged_annotations_are_refused(annotations: dict[str, str], keys: Path) -> None:
    layer = oci.Descriptor("x+encrypted", digests.of(b""), 0, annotations=annotations)
    with pytest.raises((InvalidArgument, PermissionDenied)):
        PrivateKeys.load([f"{keys}/alice.pem"])(layer)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pgp:someone", "only JWE"),
        ("/path", "only JWE"),
        ("jwe:/nowhere", "cannot read"),
        ("jwe:{}/word", "no public key"),
        ("jwe:{}/ec.pub", "for RSA keys"),
    ],
)
def test_keys_that_cannot_be_used_are_named(text: str, words: str, keys: Path) -> None:
    with pytest.raises(InvalidArgument, match=words):
        Recipients.load([text.format(keys)])


@pytest.mark.parametrize("text", ["/nowhere", "{}/word", "{}/locked.pem", "{}/locked.pem:wrong", "{}/ec.pub"])
def test_private_keys_that_cannot_be_used_are_named(text: str, keys: Path) -> None:
    with pytest.raises(InvalidArgument):
        PrivateKeys.load([text.format(keys)])
