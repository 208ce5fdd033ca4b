"""The places that a container's mounts need and its image may lack, as one snapshot between the two.

dockerd has such an ``-init`` layer, too: without it every container would have changed ``/etc/hosts`` and the like,
and an image made of it would bring them along. ``/.dockerenv`` is how programs tell that they are in a container.
One snapshot serves all containers of an image. What the image has stays as it is.
"""

from __future__ import annotations

import os

from boxship.api.containerd.types import Mount
from boxship.image.rooted import open_in_root

from . import rootview

DIRECTORIES = ("dev/pts", "dev/shm", "proc", "sys")
FILES = (".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf")
LINKS = (("etc/mtab", "/proc/mounts"),)


def name(chain_id: str) -> str:
    """The snapshot's name, for the image whose layers end in ``chain_id`` ("" for one without layers)."""
    return f"{chain_id or 'scratch'}-init"


def fill(mounts: list[Mount]) -> None:
    """Make what is missing in the snapshot that ``mounts`` show; in a worker thread."""
    with rootview.of_mounts(mounts) as root:
        for path in DIRECTORIES:
            os.close(_directory(root, path))
        for path in FILES:
            parent, last = _parent(root, path)
            try:
                os.close(os.open(last, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755, dir_fd=parent))
                os.chmod(last, 0o755, dir_fd=parent)
            except FileExistsError:
                pass  # the image has it, as whatever it may be
            finally:
                os.close(parent)
        for path, target in LINKS:
            parent, last = _parent(root, path)
            try:
                os.symlink(target, last, dir_fd=parent)
            except FileExistsError:
                pass  # as above
            finally:
                os.close(parent)


def _parent(root: int, path: str) -> tuple[int, str]:
    directory, _, last = path.rpartition("/")
    return _directory(root, directory), last


def _directory(root: int, path: str) -> int:
    """A directory inside, made where it is missing; a link of the image is followed inside the image."""
    here = open_in_root(root, "", os.O_RDONLY | os.O_DIRECTORY)
    done = ""
    for part in path.split("/") if path else ():
        try:
            os.mkdir(part, 0o755, dir_fd=here)
            os.chmod(part, 0o755, dir_fd=here)
        except FileExistsError:
            pass  # the usual case
        finally:
            os.close(here)
        done = f"{done}/{part}"
        here = open_in_root(root, done, os.O_RDONLY | os.O_DIRECTORY)
    return here
