from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .engine_fixture import EngineProcess


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    """An engine with a busybox image, for one module of tests."""
    # A short path: unix socket paths have 108 bytes.
    root = Path(tempfile.mkdtemp(prefix="bxe", dir="/tmp"))
    process = EngineProcess(root).start()
    try:
        process.import_busybox()
        yield process
    finally:
        process.remove_everything()
