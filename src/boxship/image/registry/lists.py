"""Manifest lists in the making, as ``docker manifest`` keeps them between its commands.

A list is a directory below ``manifests`` in docker's configuration directory, a file for each manifest in it: what it
is called, its descriptor with the platform, its bytes. docker reads what is written here, and the other way round.
"""

import base64
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from boxship.errors import AlreadyExists, BoxshipError, FailedPrecondition, InvalidArgument, NotFound
from boxship.oci import image as oci
from boxship.oci import reference as references
from boxship.oci.reference import Reference

from .client import Repository

Open = Callable[[Reference], Repository]

# Go's GOOS and GOARCH that go together, as docker checks them (cli/command/manifest/util.go)
PLATFORMS = {
    "darwin": "386 amd64 arm arm64", "dragonfly": "amd64", "freebsd": "386 amd64 arm", "netbsd": "386 amd64 arm",
    "linux": "386 amd64 arm arm64 loong64 mips64 mips64le ppc64 ppc64le riscv64 s390x", "solaris": "amd64",
    "openbsd": "386 amd64 arm", "plan9": "386 amd64", "windows": "386 amd64 arm arm64 arm64",
}  # fmt: skip


class Manifest(msgspec.Struct, rename="pascal"):
    """One manifest of a list: docker's file."""

    ref: str
    descriptor: oci.Descriptor
    raw: str
    """Base64 of the manifest's bytes."""

    @property
    def data(self) -> bytes:
        return base64.b64decode(self.raw)

    def document(self) -> "dict[str, Any]":
        """docker's JSON of it: with the manifest as a document under the name of its kind."""
        kind = "OCIManifest" if self.descriptor.media_type == oci.MEDIA_MANIFEST else "SchemaV2Manifest"
        return {
            "Ref": self.ref,
            "Descriptor": ordered(self.descriptor, "mediaType digest size urls annotations platform"),
            "Raw": self.raw,
            kind: msgspec.json.decode(self.data),
        }


def ordered(descriptor: oci.Descriptor, keys: str) -> "dict[str, Any]":
    """A descriptor's JSON with its keys as docker orders them here."""
    known: dict[str, Any] = msgspec.to_builtins(descriptor)
    found = {key: known[key] for key in keys.split() if key in known}
    if descriptor.platform is not None:
        platform: dict[str, Any] = msgspec.to_builtins(descriptor.platform)
        names = ("architecture", "os", "os.version", "os.features", "variant")
        found["platform"] = {key: platform[key] for key in names if platform.get(key) or key in names[:2]}
    return found


class Lists:
    """All lists below ``directory``."""

    def __init__(self, directory: str) -> None:
        self._root = Path(directory)

    @staticmethod
    def _name(reference: Reference) -> str:
        return str(reference).replace(":", "-").replace("/", "_")

    def get(self, name: Reference) -> "list[Manifest]":
        """The manifests of a list, by file name; none when there is no such list."""
        directory = self._root / self._name(name)
        if not directory.is_dir():
            return []
        return [self._read(path) for path in sorted(directory.iterdir()) if not path.name.startswith(".")]

    @staticmethod
    def _read(path: Path) -> Manifest:
        return oci.decode(Manifest, path.read_bytes(), f"manifest {path}")

    def find(self, name: Reference, manifest: Reference) -> Manifest:
        """Raises NotFound."""
        path = self._root / self._name(name) / self._name(manifest)
        if not path.is_file():
            raise NotFound(f"manifest for image {manifest.familiar} does not exist in {name.familiar}")
        return self._read(path)

    def save(self, name: Reference, manifest: Manifest) -> None:
        directory = self._root / self._name(name)
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = directory / self._name(references.parse(manifest.ref))
        temporary = directory / f".{path.name}.{os.getpid()}"
        temporary.write_bytes(msgspec.json.encode(manifest.document()))
        temporary.rename(path)

    def remove(self, name: Reference) -> None:
        """Raises NotFound."""
        directory = self._root / self._name(name)
        if not directory.is_dir():
            raise NotFound(f"No such manifest: {name.familiar}")
        shutil.rmtree(directory)

    def create(self, name: Reference, manifests: "list[Reference]", registry: Open, *, amend: bool = False) -> None:
        """Make a list of manifests that are at their registries, or ``amend`` one. Raises AlreadyExists, NotFound."""
        if self.get(name) and not amend:
            raise AlreadyExists("refusing to amend an existing manifest list with no --amend flag")
        found = [fetch(one, registry) for one in manifests]
        for one in found:
            self.save(name, one)

    def annotate(self, name: Reference, manifest: Reference, **said: Any) -> None:
        """Say more of a manifest's platform; what is empty stays. Raises NotFound, InvalidArgument."""
        one = self.find(name, manifest)
        platform = one.descriptor.platform or oci.ImagePlatform()
        platform = msgspec.structs.replace(platform, **{key: value for key, value in said.items() if value})
        if platform.architecture not in PLATFORMS.get(platform.os, "").split():
            raise InvalidArgument(
                f"manifest entry for image has unsupported os/arch combination: {platform.os}/{platform.architecture}"
            )
        one.descriptor = msgspec.structs.replace(one.descriptor, platform=platform)
        self.save(name, one)

    def document(self, name: Reference) -> "tuple[bytes, str]":
        """The list's JSON as docker writes it, and its media type: an OCI index of OCI manifests, else docker's list.

        Raises NotFound.
        """
        manifests = self.get(name)
        if not manifests:
            raise NotFound(f"No such manifest: {name.familiar}")
        for one in manifests:
            if one.descriptor.platform is None or not one.descriptor.platform.architecture:
                raise FailedPrecondition(
                    f"manifest {one.ref} must have an OS and Architecture to be pushed to a registry",
                    remedy="say it with manifest annotate",
                )
        all_oci = all(one.descriptor.media_type == oci.MEDIA_MANIFEST for one in manifests)
        media_type = oci.MEDIA_INDEX if all_oci else oci.DOCKER_INDEX
        entries = [ordered(one.descriptor, "mediaType size digest urls annotations platform") for one in manifests]
        document = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
        return msgspec.json.format(msgspec.json.encode(document), indent=3), media_type

    def push(self, name: Reference, registry: Open, said: "Callable[[str], object]") -> str:
        """Push a list with what its repository lacks of it; its digest.

        Manifests of other repositories of the same registry are put beside it, their blobs mounted.
        Raises NotFound, InvalidArgument (of another registry).
        """
        data, media_type = self.document(name)
        repository = registry(name)
        for one in self.get(name):
            source = references.parse(one.ref)
            if source.domain != name.domain:
                raise InvalidArgument(
                    "cannot use source images from a different registry than the target image: "
                    f"{source.domain} != {name.domain}"
                )
            if source.path == name.path:
                continue
            parsed = oci.decode(oci.Manifest, one.data, f"manifest {one.ref}")
            for blob in (parsed.config, *parsed.layers):
                if not repository.has_blob(blob.digest) and not repository.mount(blob.digest, source.path):
                    raise FailedPrecondition(
                        f"mount blob {blob.digest} from {source.name}", cause="the registry does not do it",
                        remedy="push the image to the repository of the list first",
                    )  # fmt: skip
            digest = repository.put_manifest(one.descriptor.digest, one.data, one.descriptor.media_type)
            said(f"Pushed ref {name.familiar_name}@{digest} with digest: {digest}")
        return repository.put_manifest(name.tag or "latest", data, media_type)


def fetch(reference: Reference, registry: Open) -> Manifest:
    """One image's manifest with the platform of its config. Raises NotFound, InvalidArgument (a list)."""
    repository = registry(reference)
    descriptor, data = resolve(reference, repository)
    if descriptor.media_type in oci.INDEX_TYPES:
        raise InvalidArgument(f"{reference.familiar} is a manifest list")
    return describe(str(reference), descriptor, data, repository)


def resolve(reference: Reference, repository: Repository) -> "tuple[oci.Descriptor, bytes]":
    """Raises NotFound in docker's words."""
    try:
        return repository.manifest(reference.digest or reference.tag or "latest")
    except NotFound as error:
        raise NotFound(f"no such manifest: {reference.familiar}") from error


def describe(ref: str, descriptor: oci.Descriptor, data: bytes, repository: Repository) -> Manifest:
    """A manifest with its platform: the index's, else its config's."""
    if descriptor.platform is None:
        manifest = oci.decode(oci.Manifest, data, f"manifest {ref}")
        config = _config(repository, manifest.config, ref)
        platform = oci.ImagePlatform(config.architecture, config.os or "linux", config.variant, config.os_version)
        descriptor = msgspec.structs.replace(descriptor, platform=platform)
    return Manifest(ref, descriptor, base64.b64encode(data).decode())


def _config(repository: Repository, config: oci.Descriptor, ref: str) -> oci.ImageConfig:
    from boxship.oci import digest as digests

    blob = repository.blob(config.digest)
    try:
        data = b""
        while len(data) <= oci.DOCUMENT_LIMIT and (part := blob.read(1 << 18)):
            data += part
    finally:
        blob.close()
    verifier = digests.Verifier(digests.parse(config.digest), config.size, f"image config of {ref}")
    verifier.update(data)
    verifier.finish()
    try:
        return oci.decode(oci.ImageConfig, data, f"image config of {ref}")
    except BoxshipError:
        return oci.ImageConfig()  # an artifact: it has no platform
