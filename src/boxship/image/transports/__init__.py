"""Transports: where images come from and go to, by a name ``TRANSPORT:DETAILS`` (containers-transports(5)).

::

    docker://HOST/PATH[:TAG|@DIGEST]     a registry
    oci:PATH[:NAME]                      an OCI layout, a directory
    oci-archive:PATH[:NAME]              an OCI layout in a tar
    docker-archive:PATH[:REFERENCE]      what `docker save` writes
    docker-daemon:REFERENCE              an engine's images, over its API
    boxship:REFERENCE                    our engine's images, the same way
    dir:PATH                             a directory of files named by their digests
    containers-storage:REFERENCE         podman's images, through podman
    sif:PATH                             an Apptainer image, to read

`open_source` and `open_destination` give what `boxship.image.copy` moves images between; `base` says what they
promise. A transport's module is imported when one of its names is opened.
"""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from boxship.errors import InvalidArgument, Unimplemented

from .base import Access, Destination, ImageNotFound, Name, Source

__all__ = [
    "TRANSPORTS", "Access", "Destination", "ImageNotFound", "Name", "Source", "delete", "open_destination",
    "open_source", "parse",
]  # fmt: skip


class Module(Protocol):
    """What a transport's module offers; `check` raises InvalidArgument for details that are none."""

    def check(self, details: str) -> None: ...
    def source(self, name: Name, access: Access) -> Source: ...
    def destination(self, name: Name, access: Access) -> Destination: ...
    def delete(self, name: Name, access: Access) -> None: ...


TRANSPORTS = {
    "boxship": "daemon",
    "containers-storage": "storage",
    "dir": "directory",
    "docker": "docker",
    "docker-archive": "docker_archive",
    "docker-daemon": "daemon",
    "oci": "layout",
    "oci-archive": "layout_archive",
    "sif": "sif",
}
ELSEWHERE = {
    "ostree": "keep the image in an OCI layout (oci:) instead",
    "tarball": "import it into an engine (`boxship import`), then copy it from boxship:",
    "docker-daemon-archive": "use docker-archive:",
}


def parse(text: str) -> Name:
    """Raises InvalidArgument (no name, an unknown transport), Unimplemented (one of skopeo's that we have not)."""
    transport, colon, details = text.partition(":")
    if not colon:
        raise InvalidArgument(f'Invalid image name "{text}", expected colon-separated transport:reference')
    if transport in ELSEWHERE:
        raise Unimplemented(f"transport {transport}: is not offered", remedy=ELSEWHERE[transport])
    if transport not in TRANSPORTS:
        raise InvalidArgument(
            f'Invalid image name "{text}", unknown transport "{transport}"', remedy=f"one of {', '.join(TRANSPORTS)}"
        )
    _module(transport).check(details)
    return Name(transport, details)


def open_source(name: Name, access: Access) -> Source:
    """Raises ImageNotFound, and what reaching it takes."""
    return _module(name.transport).source(name, access)


def open_destination(name: Name, access: Access) -> Destination:
    return _module(name.transport).destination(name, access)


def delete(name: Name, access: Access) -> None:
    """Remove the image; raises ImageNotFound, Unimplemented (a transport that cannot)."""
    _module(name.transport).delete(name, access)


def _module(transport: str) -> Module:
    return cast(Module, import_module(f"boxship.image.transports.{TRANSPORTS[transport]}"))
