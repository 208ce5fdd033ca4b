"""The two kinds of ranges: those that a client reads (RFC 9110, 14) and those that it uploads (distribution-spec)."""

from __future__ import annotations

import re

from boxship.http.headers import NUMBER_DIGITS, number

from .errors import SpecError

_READ = re.compile(r"bytes=(\d*)-(\d*)")
_SENT = re.compile(r"(?:bytes )?(\d+)-(\d+)(?:/(?:\d+|\*))?")


def wanted(header: str, size: int) -> tuple[int, int] | None:
    """What a ``Range`` header asks of ``size`` bytes: the first byte and how many; None means all of them.

    One range is served; several, or another unit, mean the whole, as the RFC allows.
    Raises SpecError with 416 when no byte is in it.
    """
    match = _READ.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]) or max(len(match[1]), len(match[2])) > NUMBER_DIGITS:
        return None
    if not match[1]:  # the last so many
        count = min(int(match[2]), size)
        first = size - count
    else:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        count = last - first + 1
    if count <= 0:
        raise SpecError(
            "SIZE_INVALID", f"no byte of {size} is in the range {header!r}", status=416,
            headers={"Content-Range": f"bytes */{size}"},
        )  # fmt: skip
    return first, count


def sent(header: str, length: str) -> tuple[int, int] | None:
    """What a chunk's ``Content-Range`` says: its first byte and how many; None without one.

    ``length`` is the Content-Length, "" when unknown. Raises SpecError (BLOB_UPLOAD_INVALID, SIZE_INVALID).
    """
    if not header:
        return None
    match = _SENT.fullmatch(header.strip())
    if match is None or max(len(match[1]), len(match[2])) > NUMBER_DIGITS or int(match[2]) < int(match[1]):
        cause = "it must be FIRST-LAST, both included"
        raise SpecError("BLOB_UPLOAD_INVALID", f"invalid Content-Range {header!r}", cause=cause)
    first, count = int(match[1]), int(match[2]) - int(match[1]) + 1
    if number(length) not in (-1, count):
        raise SpecError("SIZE_INVALID", f"Content-Range {header!r} is of {count} bytes, Content-Length says {length}")
    return first, count
