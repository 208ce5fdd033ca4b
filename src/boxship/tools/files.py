"""Reading small files that a person names, with errors that name them."""

from __future__ import annotations

import sys

from boxship.errors import InvalidArgument

LIMIT = 4 << 20


def read_document(path: str, what: str) -> bytes:
    """A file whole, ``-`` being standard input. Raises InvalidArgument (not there, too large)."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(LIMIT + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(LIMIT + 1)
    except OSError as error:
        raise InvalidArgument(f"cannot read {what} {path}", cause=(error.strerror or str(error)).lower()) from error
    if len(data) > LIMIT:
        raise InvalidArgument(f"{what} {path} is larger than {LIMIT} bytes")
    return data


def read_passphrase(path: str) -> str | None:
    """The first line of a file, None when no file is named. Raises InvalidArgument."""
    if not path:
        return None
    text = read_document(path, "the passphrase file").decode("utf-8", "replace")
    return text.partition("\n")[0].rstrip("\r")


def write_file(path: str, data: bytes, what: str, mode: int = 0o644) -> None:
    """Raises InvalidArgument. Devices are written to, too."""
    import os

    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except OSError as error:
        raise InvalidArgument(f"cannot write {what} {path}", cause=(error.strerror or str(error)).lower()) from error
