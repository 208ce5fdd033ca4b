"""``sif:PATH``: an image of Apptainer or Singularity, to read.

A SIF file (the SIF project's format, version 1) is a header, a table of descriptors, and what they describe; the root
file system is the primary partition, a squashfs. ``unsquashfs`` takes it apart in a temporary directory; it becomes
the one layer of an OCI image, whose command is the image's runscript.
Who is not root cannot make files of others, so every file of such a layer is root's, as in images built without root.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime

from boxship.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from boxship.image.compression import CHUNK
from boxship.image.manifests import Document
from boxship.image.trust.signatures import Signature
from boxship.oci import digest as digests
from boxship.oci import image as oci

from .base import Access, Blob, Destination, FileBlob, Name, unsupported

_HEADER = struct.Struct("<32s10s3s3s16s8q")  # launch script, magic, version, architecture, id, times and places
_DESCRIPTOR = struct.Struct("<i?3I7q128s384s")
_PARTITION = struct.Struct("<2i3s")  # file system, kind, architecture
MAGIC = b"SIF_MAGIC\0"
PARTITION, SQUASHFS, PRIMARY = 0x4004, 1, 2
DESCRIPTORS = 4096
ARCHITECTURES = {
    "01": "386", "02": "amd64", "03": "arm", "04": "arm64", "05": "ppc64", "06": "ppc64le", "07": "mips",
    "08": "mipsle", "09": "mips64", "10": "mips64le", "11": "s390x", "12": "riscv64",
}  # fmt: skip
RUNSCRIPT = ".singularity.d/runscript"


def check(details: str) -> None:
    if not details:
        raise InvalidArgument("sif: it names no file")


def source(name: Name, access: Access) -> SifSource:
    return SifSource(name, access)


def destination(name: Name, access: Access) -> Destination:
    raise unsupported(name, "such images are read, not written", "write an oci-archive:, which Apptainer builds from")


def delete(name: Name, access: Access) -> None:
    raise unsupported(name, "the image is a file", "remove the file")


@dataclass(frozen=True, slots=True)
class RootFileSystem:
    """Where the primary partition is, and what the header says beside it."""

    offset: int
    architecture: str
    created: str


def find(path: str) -> RootFileSystem:
    """Raises NotFound, InvalidArgument (no SIF file, no squashfs in it)."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size or _HEADER.unpack(head)[1] != MAGIC:
                raise InvalidArgument(f"{path} is no SIF file")
            _, _, _, architecture, _, created, _, _, total, at, length, _, _ = _HEADER.unpack(head)
            if not 0 <= total <= DESCRIPTORS or at < _HEADER.size or length < 0:
                raise InvalidArgument(f"{path} is no SIF file", cause="its header makes no sense")
            file.seek(at)
            table = file.read(total * _DESCRIPTOR.size)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file or directory") from None
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}", cause=error.strerror or str(error)) from error
    for number in range(len(table) // _DESCRIPTOR.size):
        kind, used, *_, extra = _DESCRIPTOR.unpack_from(table, number * _DESCRIPTOR.size)
        offset, length = _DESCRIPTOR.unpack_from(table, number * _DESCRIPTOR.size)[5:7]
        if not used or kind != PARTITION or _PARTITION.unpack_from(extra)[1] != PRIMARY:
            continue
        if _PARTITION.unpack_from(extra)[0] != SQUASHFS:
            raise Unimplemented(
                f"{path}: its root file system is no squashfs", remedy="build it again with Apptainer"
            )
        if offset < 0 or length <= 0 or offset + length > size:
            raise InvalidArgument(f"{path} is cut short")
        code = architecture.rstrip(b"\0").decode("ascii", "replace")
        when = datetime.fromtimestamp(max(created, 0), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return RootFileSystem(offset, ARCHITECTURES.get(code, ""), when)
    raise InvalidArgument(f"{path} has no root file system")


class SifSource:
    def __init__(self, name: Name, access: Access) -> None:
        self.name = name
        found = find(name.details)
        self._directory = tempfile.mkdtemp(prefix="boxship-sif-", dir=access.tmpdir or None)
        try:
            root = os.path.join(self._directory, "root")
            _unsquash(name.details, found.offset, root)
            self._layer = os.path.join(self._directory, "layer.tar")
            digest, size = _pack(root, self._layer)
            self._config = _config(found, digest, os.path.lexists(os.path.join(root, RUNSCRIPT)))
            shutil.rmtree(root, ignore_errors=True)
        except BaseException:
            self.close()
            raise
        config = oci.Descriptor(oci.MEDIA_CONFIG, digests.of(self._config), len(self._config))
        manifest = oci.Manifest(
            2, config, [oci.Descriptor(oci.MEDIA_LAYER, digest, size)], media_type=oci.MEDIA_MANIFEST
        )
        self._document = Document(oci.encode(manifest), oci.MEDIA_MANIFEST)

    def manifest(self, digest: str = "") -> Document:
        if digest and digest != self._document.digest:
            raise NotFound(f"{self.name} has no manifest {digest}")
        return self._document

    def blob(self, descriptor: oci.Descriptor) -> Blob:
        if descriptor.digest == digests.of(self._config):
            import io

            return FileBlob(io.BytesIO(self._config), len(self._config))
        if descriptor.digest != self._document.manifest().layers[0].digest:
            raise NotFound(f"{self.name} has no blob {descriptor.digest}")
        file = open(self._layer, "rb", buffering=0)  # noqa: SIM115 - the blob closes it
        return FileBlob(file, os.path.getsize(self._layer))

    def signatures(self, digest: str = "") -> list[Signature]:
        return []

    def close(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


def _unsquash(path: str, offset: int, root: str) -> None:
    command = ["unsquashfs", "-no-progress", "-quiet", "-d", root, "-o", str(offset), path]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        raise Unimplemented(
            f"sif:{path} cannot be read", cause="unsquashfs is not installed", remedy="install squashfs-tools"
        ) from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise FailedPrecondition(f"sif:{path}: unsquashfs failed", cause=said or f"exit {done.returncode}")


def _pack(root: str, path: str) -> tuple[str, int]:
    """The tree as a tar; says its digest and size. Equal trees give equal tars."""

    def told(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uname = info.gname = ""
        if os.geteuid() != 0:
            info.uid = info.gid = 0
        return info

    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for one in sorted(os.listdir(root)):
            archive.add(os.path.join(root, one), one, filter=told)  # sorts what is below by itself
    verifier = digests.Verifier(None, -1, path)
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            verifier.update(data)
    return verifier.finish(), verifier.count


def _config(found: RootFileSystem, diff_id: str, runscript: bool) -> bytes:
    config = {"Cmd": [f"/{RUNSCRIPT}" if runscript else "/bin/sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}
    history = [oci.History(created=found.created, created_by="sif", comment="the root file system of a SIF image")]
    return oci.encode(
        oci.ImageConfig(
            found.architecture, "linux", created=found.created, config=config,
            rootfs=oci.RootFS("layers", [diff_id]), history=history,
        )
    )  # fmt: skip
