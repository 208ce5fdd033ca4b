"""Waiting for a directory to change, on the event loop."""

from __future__ import annotations

import asyncio
import os

from boxship.linux import inotify


class Watch:
    """``with Watch(directory) as watch: await watch.changed()``: a file in it was written, made or moved to."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fd = -1

    def __enter__(self) -> Watch:
        self._fd = inotify.inotify_init1(inotify.IN_NONBLOCK | inotify.IN_CLOEXEC)
        mask = inotify.IN_MODIFY | inotify.IN_MOVED_TO | inotify.IN_CREATE | inotify.IN_DELETE_SELF
        inotify.inotify_add_watch(self._fd, self._directory, mask)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        os.close(self._fd)

    async def changed(self) -> None:
        """Return when something changed since the last call; several changes at once count as one."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._fd, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._fd)
        os.read(self._fd, 65536)
