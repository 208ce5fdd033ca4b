"""NaCl's secretbox (XSalsa20-Poly1305), with which sigstore's private keys are locked (nacl.cr.yp.to, "Secret-key").

``cryptography`` has Poly1305 and no Salsa20. The stream is written out here, for keys of a few hundred bytes; it is
checked against the vectors of the Salsa20 and NaCl papers in the tests.
"""

import struct

from boxship.errors import FailedPrecondition

_CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")
_MASK = 0xFFFFFFFF
# Which words a quarter round mixes: columns, then rows (Salsa20 specification, sections 4 to 6).
_ROUNDS = (
    (0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11),
    (0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14),
)  # fmt: skip
_STEPS = ((1, 0, 3, 7), (2, 1, 0, 9), (3, 2, 1, 13), (0, 3, 2, 18))
NONCE, KEY, TAG = 24, 32, 16


def _mix(words: "list[int]") -> "list[int]":
    """Twenty rounds."""
    for _ in range(10):
        for places in _ROUNDS:
            for target, a, b, turn in _STEPS:
                total = (words[places[a]] + words[places[b]]) & _MASK
                words[places[target]] ^= ((total << turn) | (total >> (32 - turn))) & _MASK
    return words


def _state(key: bytes, middle: bytes) -> "list[int]":
    """The matrix: constants on the diagonal, key around, nonce and counter (or all nonce) in the middle."""
    k, m, c = struct.unpack("<8I", key), struct.unpack("<4I", middle), _CONSTANTS
    return [c[0], *k[:4], c[1], *m, c[2], *k[4:], c[3]]


def _subkey(key: bytes, nonce: bytes) -> bytes:
    """HSalsa20: the key for one nonce's first 16 bytes."""
    words = _mix(_state(key, nonce))
    return struct.pack("<8I", *(words[i] for i in (0, 5, 10, 15, 6, 7, 8, 9)))


def _stream(key: bytes, nonce: bytes, size: int) -> bytes:
    out = b""
    while len(out) < size:
        start = _state(key, nonce + struct.pack("<Q", len(out) // 64))
        words = _mix(list(start))
        out += struct.pack("<16I", *((a + b) & _MASK for a, b in zip(start, words, strict=True)))
    return out[:size]


def _xor(data: bytes, pad: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, pad, strict=True))


def _pads(key: bytes, nonce: bytes, size: int) -> "tuple[bytes, bytes]":
    """The authenticator's key, and what the message is mixed with."""
    stream = _stream(_subkey(key, nonce[:16]), nonce[16:], 32 + size)
    return stream[:32], stream[32:]


def lock(data: bytes, key: bytes, nonce: bytes) -> bytes:
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    authenticator, pad = _pads(key, nonce, len(data))
    sealed = _xor(data, pad)
    return Poly1305.generate_tag(authenticator, sealed) + sealed


def unlock(data: bytes, key: bytes, nonce: bytes) -> bytes:
    """Raises FailedPrecondition when the key is not the one."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    tag, sealed = data[:TAG], data[TAG:]
    authenticator, pad = _pads(key, nonce, len(sealed))
    try:
        Poly1305.verify_tag(authenticator, sealed, tag)
    except InvalidSignature:
        raise FailedPrecondition("the key cannot be unlocked", cause="wrong passphrase") from None
    return _xor(sealed, pad)
