"""Encrypted layers, as ocicrypt has them: AES-256 in counter mode, then an HMAC; the key wrapped in a JWE.

Each layer has a key of its own. What a reader needs to check a layer (cipher, HMAC) is public, in the annotation
``...enc.pubopts``; the key and the nonce are in ``...enc.keys.jwe``, a JSON Web Encryption (RFC 7516, section 7.2.1)
that any recipient's private key opens: RSA-OAEP for RSA keys. Its own content is AES-256-GCM.
The HMAC is over the encrypted bytes and known at their end, so a layer is judged when it has been read, as digests
are.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from boxship.errors import DataLoss, InvalidArgument, PermissionDenied
from boxship.image.compression import CHUNK, Reader
from boxship.oci import image as oci

KEYS = "org.opencontainers.image.enc.keys.jwe"
PUBLIC = "org.opencontainers.image.enc.pubopts"
CIPHER = "AES_256_CTR_HMAC_SHA256"
KEY_SIZE, NONCE_SIZE = 32, 16


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise InvalidArgument(f"cannot read {what} {path}", cause=(error.strerror or str(error)).lower()) from error


# ── Encrypting ──


@dataclass(frozen=True, slots=True)
class Recipients:
    """Who may read the layers: a ``boxship.image.copy.Cipher``."""

    keys: tuple[Any, ...]

    @classmethod
    def load(cls, texts: list[str]) -> Recipients:
        """From ``jwe:PATH`` of public keys (PEM or DER). Raises InvalidArgument."""
        return cls(tuple(_public(text) for text in texts))

    def seal(self) -> LayerSeal:
        return LayerSeal(self.keys)


def _public(text: str) -> Any:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.x509 import load_pem_x509_certificate

    scheme, colon, path = text.partition(":")
    if not colon or scheme != "jwe":
        raise InvalidArgument(
            f"--encryption-key {text}", cause="only JWE is offered", remedy="write jwe:PATH with an RSA public key"
        )
    data = _read(path, "the encryption key")
    try:
        if b"BEGIN CERTIFICATE" in data:
            key: Any = load_pem_x509_certificate(data).public_key()
        elif data.startswith(b"-----"):
            key = serialization.load_pem_public_key(data)
        else:
            key = serialization.load_der_public_key(data)
    except ValueError as error:
        raise InvalidArgument(f"{path} is no public key", cause=str(error)) from error
    if not isinstance(key, RSAPublicKey):
        raise InvalidArgument(f"{path}: layers are encrypted for RSA keys", cause=f"it is a {type(key).__name__}")
    return key


class LayerSeal:
    """Encrypts one layer, once for each time that it is called; `annotations` is of the last, when it was read."""

    def __init__(self, keys: tuple[Any, ...]) -> None:
        self._keys = keys
        self._sealing: _Sealing | None = None

    def __call__(self, source: Reader) -> Reader:
        self._sealing = _Sealing(source)
        return self._sealing

    def annotations(self) -> dict[str, str]:
        assert self._sealing is not None
        mac = self._sealing.mac
        public = {"cipher": CIPHER, "hmac": _text(mac), "cipheroptions": {}}
        private = {
            "symkey": _text(self._sealing.key),
            "digest": "",
            "cipheroptions": {"nonce": _text(self._sealing.nonce)},
        }
        wrapped = wrap(msgspec.json.encode(private), self._keys)
        return {PUBLIC: _text(msgspec.json.encode(public)), KEYS: _text(wrapped)}


class _Sealing:
    def __init__(self, source: Reader) -> None:
        self.key, self.nonce = os.urandom(KEY_SIZE), os.urandom(NONCE_SIZE)
        self._source = source
        self._stream = _counter(self.key, self.nonce)
        self._mac = hmac.new(self.key, digestmod="sha256")
        self.mac = b""

    def read(self, size: int = -1, /) -> bytes:
        data: bytes = self._stream.update(self._source.read(CHUNK if size < 0 else size))
        self._mac.update(data)
        if not data:
            self.mac = self._mac.digest()
        return data


def _counter(key: bytes, nonce: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    return Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor()  # counter mode is its own inverse


# ── Decrypting ──


@dataclass(frozen=True, slots=True)
class PrivateKeys:
    """A ``boxship.image.copy.Opener``."""

    keys: tuple[Any, ...]

    @classmethod
    def load(cls, texts: list[str]) -> PrivateKeys:
        """From ``PATH[:PASSPHRASE]``, where the passphrase may be ``pass=WORD`` or ``file=PATH``, too."""
        return cls(tuple(_private(text) for text in texts))

    def __call__(self, descriptor: oci.Descriptor) -> Callable[[Reader], Reader]:
        """Raises InvalidArgument (not encrypted so), PermissionDenied (no key of ours opens it)."""
        annotations = descriptor.annotations or {}
        what = f"layer {descriptor.digest}"
        if PUBLIC not in annotations or KEYS not in annotations:
            raise InvalidArgument(f"{what} says it is encrypted, and not how", remedy="only JWE can be decrypted")
        try:
            public = msgspec.json.decode(base64.b64decode(annotations[PUBLIC]), type=dict[str, Any])
            private = msgspec.json.decode(self._unwrap(annotations[KEYS], what), type=dict[str, Any])
            if public["cipher"] != CIPHER:
                raise InvalidArgument(f"{what} is encrypted by {public['cipher']}, which is unknown")
            options = {**(public.get("cipheroptions") or {}), **(private.get("cipheroptions") or {})}
            key, nonce = base64.b64decode(private["symkey"]), base64.b64decode(options["nonce"])
            mac = base64.b64decode(public["hmac"])
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
            raise InvalidArgument(f"{what}: its encryption annotations are damaged", cause=str(error)) from error
        if len(key) != KEY_SIZE or len(nonce) != NONCE_SIZE or not mac:
            raise InvalidArgument(f"{what}: its encryption annotations are damaged", cause="a wrong length")
        return lambda source: _Opening(source, key, nonce, mac, what)

    def _unwrap(self, annotation: str, what: str) -> bytes:
        for text in annotation.split(","):
            wrapped = base64.b64decode(text)
            for key in self.keys:
                if (plain := unwrap(wrapped, key)) is not None:
                    return plain
        raise PermissionDenied(f"{what} cannot be decrypted", cause="it is for none of the given keys")


def _private(text: str) -> Any:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    path, colon, secret = text.partition(":")
    kind, equals, value = secret.partition("=")
    if equals and kind == "file":
        secret = _read(value, "the passphrase file").decode("utf-8", "replace").partition("\n")[0]
    elif equals and kind == "pass":
        secret = value
    data, passphrase = _read(path, "the decryption key"), secret.encode() if colon else None
    try:
        load = serialization.load_pem_private_key if data.startswith(b"-----") else serialization.load_der_private_key
        key = load(data, passphrase)
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"{path} cannot be read as a private key", cause=str(error)) from error
    if not isinstance(key, RSAPrivateKey):
        raise InvalidArgument(f"{path}: layers are decrypted with RSA keys", cause=f"it is a {type(key).__name__}")
    return key


class _Opening:
    def __init__(self, source: Reader, key: bytes, nonce: bytes, mac: bytes, what: str) -> None:
        self._source = source
        self._stream = _counter(key, nonce)
        self._mac = hmac.new(key, digestmod="sha256")
        self._expected = mac
        self._what = what

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(CHUNK if size < 0 else size)
        self._mac.update(data)
        if not data and not hmac.compare_digest(self._mac.digest(), self._expected):
            raise DataLoss(f"{self._what} cannot be decrypted", cause="it was changed after it was encrypted")
        plain: bytes = self._stream.update(data)
        return plain


# ── JWE (RFC 7516), in its JSON form ──


def wrap(plain: bytes, keys: tuple[Any, ...]) -> bytes:
    """``plain`` for each of the RSA public keys."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key, nonce = os.urandom(KEY_SIZE), os.urandom(12)
    headers: dict[str, str] = {"enc": "A256GCM"}
    if len(keys) == 1:
        headers = {"alg": "RSA-OAEP", **headers}
    protected = _url(msgspec.json.encode(headers))
    sealed = AESGCM(key).encrypt(nonce, plain, protected.encode())
    document: dict[str, Any] = {"protected": protected}
    wrapped = [_url(one.encrypt(key, _oaep("RSA-OAEP"))) for one in keys]
    if len(keys) == 1:
        document["encrypted_key"] = wrapped[0]
    else:
        document["recipients"] = [{"header": {"alg": "RSA-OAEP"}, "encrypted_key": one} for one in wrapped]
    document |= {"iv": _url(nonce), "ciphertext": _url(sealed[:-16]), "tag": _url(sealed[-16:])}
    return msgspec.json.encode(document)


def unwrap(data: bytes, key: Any) -> bytes | None:
    """What a JWE holds, None when the private key is not one of its recipients'. Raises InvalidArgument."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        document = msgspec.json.decode(data, type=dict[str, Any])
        protected = msgspec.json.decode(_bytes(document["protected"]), type=dict[str, Any])
        shared = {**(document.get("unprotected") or {}), **protected}
        recipients = document.get("recipients") or [document]
        bound = document["protected"] + (f".{document['aad']}" if "aad" in document else "")
        for one in recipients:
            headers = {**shared, **(one.get("header") or {})}
            if headers.get("alg") not in ("RSA-OAEP", "RSA-OAEP-256") or headers.get("enc") not in (
                "A256GCM",
                "A128GCM",
            ):
                continue
            try:
                content_key = key.decrypt(_bytes(one["encrypted_key"]), _oaep(headers["alg"]))
                sealed = _bytes(document["ciphertext"]) + _bytes(document["tag"])
                return AESGCM(content_key).decrypt(_bytes(document["iv"]), sealed, bound.encode())
            except (ValueError, InvalidTag):
                continue  # for another recipient
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise InvalidArgument("a wrapped key is no JWE", cause=str(error)) from error
    return None


def _oaep(algorithm: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256

    # RFC 7518, 4.3: RSA-OAEP is with SHA-1, which is not what makes it safe
    hash = SHA256() if algorithm == "RSA-OAEP-256" else SHA1()
    return padding.OAEP(padding.MGF1(hash), hash, None)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
