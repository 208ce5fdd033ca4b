"""Waiting for a directory to change, on the event loop."""

from __future__ import annotations

import asyncio
import os

from boxship.linux import inotify


class Watch:
    """``with Watch(directory) as watch: await watch.changed()``: a file in it was written, made or moved to.

    The loop knows the descriptor exactly as long as it is open. One that is closed before the loop lets go of it may
    be another file's by then, and uvloop ends the whole process when the kernel tells it so (libuv's uv__io_poll).
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fd = -1
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def __enter__(self) -> Watch:
        self._fd = inotify.inotify_init1(inotify.IN_NONBLOCK | inotify.IN_CLOEXEC)
        mask = inotify.IN_MODIFY | inotify.IN_MOVED_TO | inotify.IN_CREATE | inotify.IN_DELETE_SELF
        try:
            inotify.inotify_add_watch(self._fd, self._directory, mask)
        except OSError:
            os.close(self._fd)
            raise
        self._loop.add_reader(self._fd, self._readable)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _readable(self) -> None:
        os.read(self._fd, 65536)
        self._changed.set()

    async def changed(self) -> None:
        """Return when something changed since the last call; several changes at once count as one."""
        await self._changed.wait()
        self._changed.clear()
