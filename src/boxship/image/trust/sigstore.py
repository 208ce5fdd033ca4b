"""Sigstore signatures with a key of one's own: making keys, signing, verifying.

A private key is PKCS #8 in a JSON document that names how it is locked (scrypt, then secretbox), in PEM, as cosign
and skopeo write it. A signature is ECDSA, RSA or Ed25519 over the payload, in base64.
``cryptography`` does the work, and is imported when a key is used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from typing import Any

import msgspec

from boxship.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from boxship.image.manifests import Document, digest_of

from . import payload, secretbox
from .signatures import SIGSTORE_KEY, Sigstore

PEM_TYPES = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
SCRYPT = {"N": 32768, "r": 8, "p": 1}
SCRYPT_MOST = 1 << 20
"""A file that asks for more work than this is hostile."""


def generate(passphrase: str) -> tuple[bytes, bytes]:
    """A new key pair (ECDSA on P-256): the private one locked, the public one, both PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return _pem(_lock(private, passphrase.encode())), public


def _lock(data: bytes, passphrase: bytes) -> bytes:
    salt, nonce = os.urandom(32), os.urandom(secretbox.NONCE)
    document = {
        "kdf": {"name": "scrypt", "params": SCRYPT, "salt": base64.b64encode(salt).decode()},
        "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(nonce).decode()},
        "ciphertext": base64.b64encode(secretbox.lock(data, _derive(passphrase, salt, SCRYPT), nonce)).decode(),
    }
    return msgspec.json.encode(document)


def _derive(passphrase: bytes, salt: bytes, parameters: dict[str, int]) -> bytes:
    n, r, p = (int(parameters[name]) for name in ("N", "r", "p"))
    if n * r * p > SCRYPT_MOST:
        raise InvalidArgument("the key's scrypt parameters ask for too much work")
    return hashlib.scrypt(passphrase, salt=salt, n=n, r=r, p=p, dklen=secretbox.KEY, maxmem=256 * n * r)


def _pem(data: bytes) -> bytes:
    text = base64.b64encode(data).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {PEM_TYPES[0]}-----", *lines, f"-----END {PEM_TYPES[0]}-----", ""]).encode()


def unlock(data: bytes, passphrase: str, what: str) -> Any:
    """The private key in a PEM file. Raises InvalidArgument, FailedPrecondition (wrong passphrase)."""
    from cryptography.hazmat.primitives import serialization

    lines = data.decode("ascii", "replace").strip().splitlines()
    if not lines or lines[0] not in (f"-----BEGIN {kind}-----" for kind in PEM_TYPES):
        raise InvalidArgument(f"{what} is no sigstore private key", remedy="make one with generate-sigstore-key")
    try:
        document = msgspec.json.decode(base64.b64decode("".join(lines[1:-1])), type=dict[str, Any])
        if document["kdf"]["name"] != "scrypt" or document["cipher"]["name"] != "nacl/secretbox":
            raise InvalidArgument(f"{what} is locked in an unknown way")
        key = _derive(passphrase.encode(), base64.b64decode(document["kdf"]["salt"]), document["kdf"]["params"])
        nonce = base64.b64decode(document["cipher"]["nonce"])
        sealed = base64.b64decode(document["ciphertext"])
        plain = secretbox.unlock(sealed, key, nonce)
        return serialization.load_der_private_key(plain, None)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(f"{what} is damaged", cause=str(error)) from error


@dataclass(frozen=True, slots=True)
class SigstoreSigner:
    """A ``boxship.image.copy.Signer``."""

    key: Any

    @classmethod
    def load(cls, path: str, passphrase: str | None) -> SigstoreSigner:
        """Raises InvalidArgument, FailedPrecondition (wrong passphrase)."""
        try:
            with open(path, "rb") as file:
                data = file.read(1 << 20)
        except OSError as error:
            raise InvalidArgument(
                f"cannot read the key {path}", cause=(error.strerror or str(error)).lower()
            ) from error
        return cls(unlock(data, passphrase or "", f"key {path}"))

    def sign(self, document: Document, identity: str) -> Sigstore:
        data = payload.make(identity, digest_of(document.data), payload.SIGSTORE_TYPE)
        return Sigstore(data, {SIGSTORE_KEY: base64.b64encode(_sign(self.key, data)).decode()})


def _sign(key: Any, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    match key:
        case ec.EllipticCurvePrivateKey():
            return key.sign(data, ec.ECDSA(SHA256()))
        case rsa.RSAPrivateKey():
            return key.sign(data, PKCS1v15(), SHA256())
        case ed25519.Ed25519PrivateKey():
            return key.sign(data)
    raise FailedPrecondition(f"a key of type {type(key).__name__} cannot sign")


def verify(signature: Sigstore, keys: tuple[bytes, ...]) -> None:
    """Raises PermissionDenied when none of the public keys (PEM) made it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization

    text = signature.annotations.get(SIGSTORE_KEY, "")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise PermissionDenied("a sigstore signature is not base64") from error
    if not data:
        raise PermissionDenied(f"a sigstore signature lacks its annotation {SIGSTORE_KEY}")
    for pem in keys:
        try:
            key = serialization.load_pem_public_key(pem)
        except ValueError as error:
            raise InvalidArgument("a key of the policy is no public key in PEM", cause=str(error)) from error
        try:
            _check(key, data, signature.payload)
            return
        except InvalidSignature:
            continue  # another key may have made it
    raise PermissionDenied("cryptographic signature verification failed", cause="no key of the policy made it")


def _check(key: Any, signature: bytes, data: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    match key:
        case ec.EllipticCurvePublicKey():
            key.verify(signature, data, ec.ECDSA(SHA256()))
        case rsa.RSAPublicKey():
            key.verify(signature, data, PKCS1v15(), SHA256())
        case ed25519.Ed25519PublicKey():
            key.verify(signature, data)
        case _:
            raise InvalidArgument(f"a key of type {type(key).__name__} makes no sigstore signatures")
