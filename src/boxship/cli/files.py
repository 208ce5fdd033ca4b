"""The caller's own files: an archive written whole, and what went wrong with one, in docker's words."""

from __future__ import annotations

import os
import sys

from boxship.flags import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def cannot(verb: str, path: str, error: OSError) -> UsageError:
    """``open /nosuch: no such file or directory``, as Go prints it; exit code 1."""
    return UsageError(f"{verb} {path}: {(error.strerror or str(error)).lower()}", 1, named=False)


def write_whole(parts: Iterable[bytes], path: str) -> None:
    """Write a stream to standard output (``path`` is "") or to a file that appears when it is complete."""
    if not path:
        for part in parts:
            sys.stdout.buffer.write(part)
        return
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "wb") as f:
            for part in parts:
                f.write(part)
        os.rename(temporary, path)
    except OSError as error:
        raise cannot("write", path, error) from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
