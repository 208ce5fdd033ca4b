"""``docker-daemon:REFERENCE`` and ``boxship:REFERENCE``: the images of an engine, over its API.

An engine gives and takes archives (``GET /images/get``, ``POST /images/load``), so the archive is made in a temporary
file on the way. Both names mean the same API: the first asks docker's socket, the second ours, unless
--daemon-host or
DOCKER_HOST names another. A reference is a name with a tag, or an image's ID (``sha256:...``) to read.
"""

from __future__ import annotations

import os
import tempfile

from boxship.api.engine.address import DEFAULT, Address, parse_address
from boxship.api.engine.client import Client, EngineError
from boxship.errors import BoxshipError, FailedPrecondition, InvalidArgument
from boxship.oci import digest as digests
from boxship.oci import reference as references

from .base import Access, ImageNotFound, Name
from .docker_archive import DockerArchiveDestination, DockerArchiveSource

DOCKER = "unix:///var/run/docker.sock"


def check(details: str) -> None:
    _reference(details)


def source(name: Name, access: Access) -> EngineSource:
    return EngineSource(name, access)


def destination(name: Name, access: Access) -> EngineDestination:
    return EngineDestination(name, access)


def delete(name: Name, access: Access) -> None:
    try:
        _client(name, access).request("DELETE", f"/images/{_reference(name.details)}").read()
    except EngineError as error:
        raise _told(error, name) from error


def _reference(details: str) -> str:
    """What the API calls the image. Raises InvalidArgument."""
    if details.startswith("sha256:"):
        return digests.parse(details)
    return references.parse(details).with_default_tag().familiar


def _client(name: Name, access: Access) -> Client:
    host = (
        access.daemon_host
        or os.environ.get("DOCKER_HOST", "")
        or (DOCKER if name.transport != "boxship" else DEFAULT)
    )
    address: Address = parse_address(host)
    if address.kind == "tcp" and access.cert_dir:
        ca, certificate, key = (os.path.join(access.cert_dir, one) for one in ("ca.pem", "cert.pem", "key.pem"))
        address.tls = (ca, certificate, key, access.tls_verify is not False)
    return Client(address)


def _told(error: EngineError, name: Name) -> BoxshipError:
    if error.status == 404:
        return ImageNotFound(f"{name}: no such image", cause=error.message)
    return FailedPrecondition(f"{name}: the engine refuses", cause=error.message)


class EngineSource(DockerArchiveSource):
    def __init__(self, name: Name, access: Access) -> None:
        fd, path = tempfile.mkstemp(prefix="boxship-engine-", dir=access.tmpdir or None)
        try:
            with os.fdopen(fd, "wb") as file:
                for part in _client(name, access).request(
                    "GET", "/images/get", {"names": _reference(name.details)}
                ).parts():  # fmt: skip
                    file.write(part)
            super().__init__(name, access, path, "@0")
        except EngineError as error:
            raise _told(error, name) from error
        finally:
            os.unlink(path)  # what reads it has it open


class EngineDestination(DockerArchiveDestination):
    def __init__(self, name: Name, access: Access) -> None:
        if name.details.startswith("sha256:"):
            raise InvalidArgument(f"{name}: an ID names nothing that is new", remedy="give it a reference")
        self._client = _client(name, access)
        try:
            self._client.request("GET", "/_ping").read()
        except EngineError as error:
            raise _told(error, name) from error
        directory = access.tmpdir or tempfile.gettempdir()
        tags = tuple(references.normalise(one) for one in (name.details, *access.additional_tags))
        super().__init__(name, access, os.path.join(directory, "engine"), tags)

    def commit(self) -> None:
        try:
            with open(self.finish(), "rb") as archive:
                answer = self._client.request(
                    "POST", "/images/load", {"quiet": "1"}, stream=archive, content_type="application/x-tar"
                )
                for line in answer.lines():
                    if isinstance(line, dict) and "error" in line:
                        raise FailedPrecondition(f"{self.name}: the engine refuses", cause=str(line["error"]))
        except EngineError as error:
            raise _told(error, self.name) from error
