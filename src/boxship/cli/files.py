"""The caller's own files: what went wrong with one, in docker's words."""

from __future__ import annotations

from boxship.flags import UsageError


def cannot(verb: str, path: str, error: OSError) -> UsageError:
    """``open /nosuch: no such file or directory``, as Go prints it; exit code 1."""
    return UsageError(f"{verb} {path}: {(error.strerror or str(error)).lower()}", 1, named=False)
