"""What is fuzzed: readers of what strangers send. A target takes any bytes; it may raise a `BoxshipError`, no more.

Each has seeds made in code (valid documents that damage turns into almost valid ones) and its own invariants, which
are plain assertions: what was accepted must make sense.
"""

from __future__ import annotations

import io
import json
import socket
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast
from zlib import crc32

from boxship.errors import BoxshipError
from boxship.http.client import Broken, Connection, Headers
from boxship.image import validate
from boxship.image.registry.session import _challenges, _retry_after
from boxship.image.tar import TarReader
from boxship.oci import digest as digests
from boxship.oci import documents
from boxship.oci import image as oci
from boxship.registry import manifests

from ..kernel.layer_archives import archive, directory, hard_link, member, symlink, with_checksum


@dataclass(frozen=True)
class Target:
    """``run`` is given any bytes; ``seeds`` are where damage starts from; ``words`` are worth putting anywhere."""

    run: Callable[[bytes], None]
    seeds: list[bytes]
    words: list[bytes]


# ── The tar reader ──


def _with_checksums(data: bytes) -> bytes:
    """Headers whose checksum is right again, else damage goes no further than that; one in four stays as it is."""
    if crc32(data) % 4 == 0:
        return data
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at : at + 512] = with_checksum(out[at : at + 512])
    return bytes(out)


def tar(data: bytes) -> None:
    data = _with_checksums(data)
    came = 0
    reader = TarReader(io.BytesIO(data))
    for entry in reader:
        assert entry.size >= 0
        assert entry.real_size >= 0 or entry.sparse is None
        size = sum(map(len, reader.data()))
        assert size == entry.size
        if entry.sparse is not None:
            assert sum(length for _, length in entry.sparse) == size
        came += size
    assert came <= len(data)


def _sparse_1_0() -> bytes:
    pieces = b"2\n0\n3\n1024\n2\n".ljust(512, b"\0") + b"abcde"
    headers = {"major": "1", "minor": "0", "realsize": "1026", "name": "s"}
    headers = {f"GNU.sparse.{key}": value for key, value in headers.items()}
    return archive([member("GNUSparseFile.0/s", pieces, pax_headers=headers)])


_MEMBERS = [
    directory("d", uid=1),
    member("d/f", b"x" * 600, pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "1.5", "size": "600", "uid": "7"}),
    symlink("l", "/d"),
    hard_link("h", "d/f"),
    member("d/.wh.x"),
    member("n" * 150, b"y"),
    member("dev", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
]

# ── Manifests, indexes and configs ──

_DESCRIPTOR = {"mediaType": oci.MEDIA_LAYER_GZIP, "digest": digests.of(b"x"), "size": 1}
_DOCUMENTS: list[dict[str, object]] = [
    {
        "schemaVersion": 2, "mediaType": oci.MEDIA_MANIFEST, "artifactType": "a/b", "annotations": {"k": "v"},
        "config": {"mediaType": oci.MEDIA_CONFIG, "digest": digests.of(b"{}", "sha512"), "size": 2, "data": "e30="},
        "layers": [_DESCRIPTOR, {**_DESCRIPTOR, "urls": ["https://x/y"]}], "subject": _DESCRIPTOR,
    },
    {
        "schemaVersion": 2, "mediaType": oci.MEDIA_INDEX,
        "manifests": [{**_DESCRIPTOR, "mediaType": oci.MEDIA_MANIFEST,
                       "platform": {"os": "linux", "architecture": "arm", "variant": "v7", "os.features": ["f"]}}],
    },
    {
        "architecture": "amd64", "os": "linux", "created": "2020-01-01T00:00:00Z", "author": "a",
        "config": {"Env": ["A=b"], "Cmd": ["sh"], "ExposedPorts": {"80/tcp": {}}, "Labels": {"l": "m"}},
        "rootfs": {"type": "layers", "diff_ids": [digests.of(b"y")]},
        "history": [{"created_by": "c", "empty_layer": True}],
    },
]  # fmt: skip


def document(data: bytes) -> None:
    """The same bytes as each kind of document, to the validator, and as a push to the registry."""
    for read in (
        lambda: documents.KINDS[validate.kind_of(data)],
        lambda: oci.document_media_type(data, "document"),
        lambda: oci.decode(oci.Index, data, "index"),
        lambda: oci.decode(oci.Manifest, data, "manifest"),
        lambda: oci.decode(oci.ImageConfig, data, "config"),
    ):
        try:
            read()
        except BoxshipError:
            continue
    for kind in documents.KINDS:
        for finding in validate.document(kind, data, "document"):
            assert finding.complaint.text
    pushed = manifests.read(data, "")
    assert pushed.media_type in manifests.KNOWN_TYPES
    for need in pushed.needs:
        assert digests.parse(need.digest) == need.digest
        assert need.size >= 0


# ── The WWW-Authenticate header ──


def challenge(data: bytes) -> None:
    header = data.decode("latin-1")  # as HTTP's headers are
    for scheme, parameters in _challenges(header):
        assert scheme == scheme.lower() != ""
        for name, value in parameters.items():
            assert name == name.lower()
            assert len(value) <= len(header)
    headers = Headers()
    headers.add("Retry-After", header)
    assert _retry_after(headers) >= 0


# ── An answer of a web server ──


class _Wire:
    """What a `Connection` uses of a socket; the other side has said all that it says."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def recv(self, limit: int, flags: int = 0) -> bytes:
        # Small pieces, so that what is read at once is not what was sent at once.
        return self._data.read(limit if flags else min(limit, 7))


def answer(data: bytes) -> None:
    connection = Connection(cast(socket.socket, _Wire(data)))
    try:
        found = connection.answer("GET")
        assert 100 <= found.status <= 999
        body = found.read()
        assert len(body) <= len(data)
        assert found.read(1) == b""
    except Broken:
        return


TARGETS = {
    "tar": Target(
        tar,
        [
            *(archive(_MEMBERS, format=format) for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)),
            _sparse_1_0(),
        ],
        [
            b"GNU.sparse.map=0,1", b"30 mtime=", b"\x80" + bytes(7), b"\xff" * 12, b"ustar\0", b"S", b"x", b"g", b"L",
        ],
    ),
    "document": Target(
        document,
        [json.dumps(one).encode() for one in _DOCUMENTS],
        [
            b"[" * 64, b'"mediaType":', b"-1", b"1e999", b"9" * 30, b"null", b"\\ud800", b'"manifests":[]',
            b'"layers":[]',
        ],
    ),
    "answer": Target(
        answer,
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5;a=b\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\n",
            b"HTTP/1.0 200\nLong: a\n b\n\nuntil the end",
        ],
        [
            b"\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"0\r\n", b"f" * 16, b" ",
            b"HTTP/1.1 204 ",
        ],
    ),
    "challenge": Target(
        challenge,
        [
            b'Bearer realm="https://a.example/token",service="a.example",scope="repository:a/b:pull,push"',
            b'Basic realm="x", Bearer realm="y\\"z" , error = "insufficient_scope"', b"Negotiate, Basic", b"120",
        ],
        [b'="', b"\\", b'"', b",", b"Bearer ", b"\xb2", b"9" * 400],
    ),
}  # fmt: skip
