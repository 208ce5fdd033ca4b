"""``containers-storage:REFERENCE``: podman's, buildah's and CRI-O's images, through the ``podman`` program.

Their store is a directory whose form is private to their library, so we do not touch it: podman writes an image out
into an OCI layout, or loads one. It compresses anew on the way out, so layers have other digests than they had in the
registry; their diff IDs stay.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

from boxship.errors import FailedPrecondition, InvalidArgument, Unimplemented
from boxship.oci import reference as references

from .base import Access, ImageNotFound, Name
from .layout import LayoutSource
from .layout_archive import LayoutArchiveDestination


def check(details: str) -> None:
    if details.startswith("["):
        raise Unimplemented(
            f"containers-storage:{details}: another store than podman's own is not reached",
            remedy="set CONTAINERS_STORAGE_CONF for it",
        )
    if not details:
        raise InvalidArgument("containers-storage: it names no image")
    if not details.startswith("@"):
        references.parse(details)


def source(name: Name, access: Access) -> StorageSource:
    return StorageSource(name, access)


def destination(name: Name, access: Access) -> StorageDestination:
    return StorageDestination(name, access)


def delete(name: Name, access: Access) -> None:
    _must_exist(name)
    _podman(name, "rmi", name.details.removeprefix("@"))


def _podman(name: Name, *words: str, fails: tuple[int, ...] = ()) -> int:
    """Run podman; says its exit code if that is 0 or one of ``fails``."""
    try:
        done = subprocess.run(["podman", *words], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        raise Unimplemented(
            f"{name} cannot be reached",
            cause="its store is read through podman, which is not installed",
            remedy="install podman, or go through oci: or docker-archive:",
        ) from None
    if done.returncode and done.returncode not in fails:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise FailedPrecondition(f"{name}: podman {words[0]} failed", cause=said or f"exit {done.returncode}")
    return done.returncode


def _must_exist(name: Name) -> None:
    if _podman(name, "image", "exists", name.details.removeprefix("@"), fails=(1,)):
        raise ImageNotFound(f'reference "{name.details}" does not resolve to an image ID')


class StorageSource(LayoutSource):
    def __init__(self, name: Name, access: Access) -> None:
        _must_exist(name)
        self._directory = tempfile.mkdtemp(prefix="boxship-storage-", dir=access.tmpdir or None)
        try:
            path = os.path.join(self._directory, "image")
            _podman(name, "save", "--quiet", "--format", "oci-dir", "--output", path, name.details.removeprefix("@"))
            super().__init__(Name(name.transport, f"{path}:@0"), access, path)
        except BaseException:
            self.close()
            raise
        self.name = name

    def close(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


class StorageDestination(LayoutArchiveDestination):
    """An archive, because podman takes the name of an image from one, and not from a directory."""

    def __init__(self, name: Name, access: Access) -> None:
        if name.details.startswith("@"):
            raise InvalidArgument(f"{name}: an ID names nothing that is new", remedy="give it a reference")
        self._made = tempfile.mkdtemp(prefix="boxship-storage-", dir=access.tmpdir or None)
        self._archive = os.path.join(self._made, "image.tar")
        try:
            super().__init__(Name(name.transport, f"{self._archive}:{references.normalise(name.details)}"), access)
        except BaseException:
            shutil.rmtree(self._made, ignore_errors=True)
            raise
        self.name = name

    def commit(self) -> None:
        super().commit()
        _podman(self.name, "load", "--quiet", "--input", self._archive)

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._made, ignore_errors=True)
