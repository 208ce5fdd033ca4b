"""Pull, push and login, as the Engine API tells of them: a stream of JSON lines, in dockerd's words.

The transfer runs in a worker thread; what it says goes through a queue to the client, who may be slow or gone.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from boxship.errors import (
    BoxshipError,
    Cancelled,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from boxship.oci import image as oci
from boxship.oci import platform as platforms
from boxship.oci import reference as references

from .config import EngineConfig
from .events import EventBus
from .filters import Filters, truth
from .images import Images

if TYPE_CHECKING:
    from boxship.image.registry.client import Repository
    from boxship.image.registry.credentials import Credential
    from boxship.image.registry.hosts import Settings

HUB = "https://index.docker.io/v1/"
Refused = Callable[[BoxshipError, references.Reference], BoxshipError]


class Login(msgspec.Struct):
    """What clients send about themselves (moby's registry.AuthConfig): in a header, or as the body of ``/auth``."""

    username: str = ""
    password: str = ""
    auth: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    def credential(self) -> Credential:
        from boxship.image.registry.credentials import Credential

        return Credential(self.username, self.password, self.identitytoken)


def login_of(header: str) -> Login:
    """``X-Registry-Auth``: URL-safe base64 of JSON, "" for somebody without a name. Raises InvalidArgument."""
    if not header:
        return Login()
    try:
        data = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        return msgspec.json.decode(data or b"{}", type=Login)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise InvalidArgument("X-Registry-Auth is not base64 of JSON", cause=str(error)) from error


class Lines:
    """What a transfer tells, as the documents of the stream; called by worker threads, read by the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._said: dict[str, str] = {}
        self.stop = threading.Event()
        """Set when nobody listens any more."""
        self._lock = threading.Lock()

    def say(self, document: dict[str, Any]) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, document)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, None)

    def progress(self, blob: oci.Descriptor, status: str, current: int = 0, total: int = 0) -> None:
        """``transfer.Progress``: a line for a layer, known by the start of its digest."""
        id = blob.digest.partition(":")[2][:12]
        moving = status in ("Downloading", "Pushing", "Extracting")
        with self._lock:
            if not moving and self._said.get(id) == status:
                return
            self._said[id] = status
        document: dict[str, Any] = {"status": status, "progressDetail": {}, "id": id}
        if moving:
            document["progressDetail"] = {"current": current, "total": total}
            document["progress"] = bar(current, total)
        self.say(document)

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        while (document := await self._queue.get()) is not None:
            yield document


def bar(current: int, total: int) -> str:
    """docker's progress bar for clients that print it as it comes: ``[=====>     ]  1.2MB/3.4MB``."""
    if total <= 0:
        return f"{size(current):>8}"
    filled = min(50, current * 50 // total)
    body = "=" * filled + ">" + " " * (50 - filled) if filled < 50 else "=" * 50 + ">"
    return f"[{body}]  {size(current)}/{size(total)}"


def size(number: float) -> str:
    """In decimal units with four digits, as docker's go-units prints."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:.4g}{unit}"
        number /= 1000
    raise AssertionError("the last unit takes all")


def _stars(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise InvalidArgument(f"invalid filter 'stars={text}': must be a number")
    return int(text)


class Registries:
    """The registry half of the engine."""

    def __init__(self, config: EngineConfig, images: Images, events: EventBus) -> None:
        self._config = config
        self._images = images
        self._events = events

    def _settings(self) -> Settings:
        from boxship.image.registry.hosts import Settings

        mirrors = (
            {references.DEFAULT_DOMAIN: tuple(self._config.registry_mirrors)} if self._config.registry_mirrors else {}
        )
        return Settings(insecure=tuple(self._config.insecure_registries), mirrors=mirrors)

    def _repository(self, reference: references.Reference, login: Login) -> Repository:
        from boxship.image.registry.client import Repository

        return Repository(
            reference, settings=self._settings(), credential=login.credential(), registry_token=login.registrytoken
        )

    async def search(self, term: str, limit: int, filters: Filters, login: Login) -> list[dict[str, Any]]:
        """Repositories that a registry finds for ``[REGISTRY/]WORDS``; raises what `image.registry.search` raises."""
        from boxship.image.registry.search import LIMIT, search

        wanted = {key: truth(values, key) for key, values in filters.items() if key != "stars"}
        stars = max((_stars(text) for text in filters.get("stars", [])), default=0)
        found = await asyncio.to_thread(search, term, self._settings(), login.credential, limit or LIMIT)
        documents: list[dict[str, Any]] = [msgspec.to_builtins(one) for one in found if one.star_count >= stars]
        return [
            {**one, "description": one["description"] or ""}
            for one in documents
            if all(one[key.replace("-", "_")] is value for key, value in wanted.items())
        ]

    async def pull(self, text: str, platform: str, login: Login) -> AsyncIterator[dict[str, Any]]:
        """Pull one image; the first document comes when the registry has answered.

        What goes wrong before that is raised (an HTTP error for the client), later it is the last document.
        """
        reference = references.parse(text).with_default_tag()
        wanted = platforms.parse(platform) if platform else None
        repository = self._repository(reference, login)
        tag = reference.digest or reference.tag
        try:
            head = await asyncio.to_thread(repository.head, tag)
        except BoxshipError as error:
            repository.close()
            raise _pull_refused(error, reference) from error
        if head is None:
            repository.close()
            raise NotFound(f"manifest for {reference.familiar} not found: manifest unknown: manifest unknown")
        return self._pulling(repository, reference, tag, wanted)

    async def _pulling(
        self, repository: Repository, reference: references.Reference, tag: str, wanted: platforms.Platform | None
    ) -> AsyncIterator[dict[str, Any]]:
        before = await self._images.id_of(str(reference))
        lines = Lines()
        lines.say({"status": f"Pulling from {reference.path}", "id": tag})

        async def work() -> str:
            try:
                view = await self._images.pull(repository, tag, str(reference), wanted, lines.progress, lines.stop)
                lines.say({"status": f"Digest: {view.image.target.digest}"})
                news = "Image is up to date" if before == view.id else "Downloaded newer image"
                lines.say({"status": f"Status: {news} for {reference.familiar}"})
                return view.id
            finally:
                lines.end()

        async for document in self._run(lines, work, repository, _pull_refused):
            yield document
        self._events.publish("image", "pull", reference.familiar, {"name": reference.familiar_name})

    async def push(self, name: str, tag: str, login: Login) -> AsyncIterator[dict[str, Any]]:
        """Push one tag; raises NotFound when there is no such image here."""
        reference = references.parse(f"{name}:{tag}" if tag else name).with_default_tag()
        view = await self._images.find(str(reference))
        others = [references.parse(other) for other in view.names]
        sources = sorted({o.path for o in others if o.domain == reference.domain and o.path != reference.path})
        repository = self._repository(reference, login)
        return self._pushing(repository, reference, view.image.target, sources)

    async def _pushing(
        self, repository: Repository, reference: references.Reference, target: oci.Descriptor, sources: list[str]
    ) -> AsyncIterator[dict[str, Any]]:
        lines = Lines()
        lines.say({"status": f"The push refers to repository [{reference.name}]"})

        async def work() -> str:
            try:
                pushed = await self._images.push(
                    repository, reference.tag, target, sources, lines.progress, lines.stop
                )
                lines.say({"status": f"{reference.tag}: digest: {pushed.digest} size: {pushed.size}"})
                aux = {"Tag": reference.tag, "Digest": pushed.digest, "Size": pushed.size}
                lines.say({"progressDetail": {}, "aux": aux})
                return pushed.digest
            finally:
                lines.end()

        async for document in self._run(lines, work, repository, _push_refused):
            yield document
        self._events.publish("image", "push", reference.familiar, {"name": reference.familiar_name})

    async def _run(
        self, lines: Lines, work: Callable[[], Any], repository: Repository, refused: Refused
    ) -> AsyncIterator[dict[str, Any]]:
        """The documents of a transfer, and its error as the last one; a client that goes away cancels it."""
        running = asyncio.ensure_future(work())
        try:
            async for document in lines:
                yield document
            try:
                await running
            except BoxshipError as error:
                told = refused(error, repository.reference)
                yield {"errorDetail": {"message": str(told)}, "error": str(told)}
        finally:
            lines.stop.set()
            await asyncio.gather(running, return_exceptions=True)
            repository.close()

    async def login(self, login: Login) -> dict[str, str]:
        """``POST /auth``: whether a registry takes these credentials. Raises Unauthenticated, Unavailable."""
        domain = login.serveraddress.partition("://")[2] or login.serveraddress
        domain = domain.partition("/")[0] or references.DEFAULT_DOMAIN
        if login.serveraddress == HUB:
            domain = references.DEFAULT_DOMAIN
        repository = self._repository(references.Reference(domain, "library/login"), login)
        try:
            await asyncio.to_thread(repository.ping)
        except (Unauthenticated, PermissionDenied) as error:
            raise Unauthenticated(f"login attempt to https://{domain}/v2/ failed", cause=error.cause) from error
        finally:
            repository.close()
        return {"Status": "Login Succeeded", "IdentityToken": ""}

    async def distribution(self, name: str, login: Login) -> dict[str, Any]:
        """``GET /distribution/{name}/json``: what a name is at its registry."""
        reference = references.parse(name).with_default_tag()
        repository = self._repository(reference, login)
        tag = reference.digest or reference.tag
        try:
            descriptor, data = await asyncio.to_thread(repository.manifest, tag)
            offered: list[dict[str, Any]] = []
            if descriptor.media_type in oci.INDEX_TYPES:
                index = oci.decode(oci.Index, data, f"index {descriptor.digest}")
                offered = [msgspec.to_builtins(one.platform) for one in index.manifests or [] if one.platform]
        except BoxshipError as error:
            raise _pull_refused(error, reference) from error
        finally:
            repository.close()
        document = {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
        return {"Descriptor": document, "Platforms": offered}


def _pull_refused(error: BoxshipError, reference: references.Reference) -> BoxshipError:
    """A registry's refusal in dockerd's words, which clients look for."""
    if isinstance(error, (Unauthenticated, PermissionDenied)):
        return NotFound(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may require "
            f"'docker login': {error.cause or 'denied'}"
        )
    return _told(error)


def _push_refused(error: BoxshipError, reference: references.Reference) -> BoxshipError:
    """As `_pull_refused`; dockerd tells the code of distribution-spec and the registry's own words."""
    if isinstance(error, Unauthenticated):
        said = error.cause or "authentication required"
        return Unauthenticated(f"unauthorized: {said} ({reference.familiar_name})", remedy=error.remedy)
    if isinstance(error, PermissionDenied):
        said = error.cause or "requested access to the resource is denied"
        return PermissionDenied(f"denied: {said} ({reference.familiar_name})")
    return _told(error)


def _told(error: BoxshipError) -> BoxshipError:
    return Cancelled("context canceled") if isinstance(error, Cancelled) else error
