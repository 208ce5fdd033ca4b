"""zstd:chunked layers, built by hand from the format's description (containers/storage's document of that name).

To a reader of zstd it is a stream of frames, which inflate to the tar, and of skippable ones (RFC 8878, 3.1.2):

    the tar, each file's data in a frame of its own │ skippable: TOC │ skippable: tar-split │ skippable: footer

The footer and the layer's annotations say where the TOC is, so that a client can fetch the files that it lacks alone.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import tarfile
from typing import Any

import zstandard

from boxship.oci import digest as digests

SKIPPABLE = 0x184D2A50
MAGIC = b"GNUlInUx"
PREFIX = "io.github.containers.zstd-chunked."


def skippable(data: bytes) -> bytes:
    return struct.pack("<II", SKIPPABLE, len(data)) + data


def build(plain: bytes) -> tuple[bytes, dict[str, str]]:
    """A tar as a zstd:chunked layer, and the annotations of its descriptor."""
    pack = zstandard.ZstdCompressor(level=3).compress
    blob, entries, split, at = b"", list[dict[str, Any]](), list[dict[str, Any]](), 0
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        for member in archive:
            blob += pack(plain[at : member.offset_data])
            split.append({"type": 2, "payload": base64.b64encode(plain[at : member.offset_data]).decode()})
            at = member.offset_data
            entry: dict[str, Any] = {"type": "reg", "name": member.name, "mode": member.mode, "size": member.size}
            if member.size:
                data = plain[at : at + member.size]
                entry |= {"offset": len(blob), "digest": digests.of(data)}
                blob += pack(data)
                entry["endOffset"] = len(blob)
                at += member.size
            split.append({"type": 1, "name": member.name, "size": member.size})
            entries.append(entry)
    blob += pack(plain[at:])
    toc = json.dumps({"version": 1, "entries": entries}).encode()
    tar_split = b"".join(json.dumps(one).encode() + b"\n" for one in split)
    packed_toc, packed_split = pack(toc), pack(tar_split)
    toc_at = len(blob) + 8
    split_at = toc_at + len(packed_toc) + 8
    places = (toc_at, len(packed_toc), len(toc), 1, split_at, len(packed_split), len(tar_split))
    blob += skippable(packed_toc) + skippable(packed_split) + skippable(struct.pack("<7Q", *places) + MAGIC)
    return blob, {
        f"{PREFIX}manifest-checksum": digests.of(packed_toc),
        f"{PREFIX}manifest-position": ":".join(map(str, places[:4])),
        f"{PREFIX}tarsplit-position": ":".join(map(str, places[4:])),
    }
