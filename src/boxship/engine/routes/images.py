"""``/images/...``."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec

from boxship.errors import InvalidArgument, Unimplemented
from boxship.http.messages import Request, Response, encode_json, json_response
from boxship.oci import reference as references

from .. import image_documents, models
from ..app import Engine
from ..filesystem import merge
from ..filters import parse_filters
from ..images import BUILT_IN
from ..registries import login_of
from ..router import Route
from .bodies import BodyReader, ChunkWriter

LIST_FILTERS = frozenset({"before", "dangling", "label", "reference", "since", "until"})
SEARCH_FILTERS = frozenset({"is-automated", "is-official", "stars"})
PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})


def changes(lines: list[str]) -> dict[str, Any]:
    """``--change`` instructions of import as an image config: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, ..."""
    config: dict[str, Any] = {}
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if rest.startswith("["):
            try:
                value = msgspec.json.decode(rest.encode(), type=list[str])
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise InvalidArgument(f"change {line!r}: {error}") from error
        else:
            value = ["/bin/sh", "-c", rest]
        match word.upper():
            case "CMD":
                config["Cmd"] = value
            case "ENTRYPOINT":
                config["Entrypoint"] = value
            case "ENV":
                pairs = shlex.split(rest) if "=" in rest.split(" ")[0] else [rest.replace(" ", "=", 1)]
                named = {pair.partition("=")[0] for pair in pairs}
                before = [pair for pair in config.get("Env", []) if pair.partition("=")[0] not in named]
                config["Env"] = [*before, *pairs]
            case "LABEL":
                config.setdefault("Labels", {}).update(pair.partition("=")[::2] for pair in shlex.split(rest))
            case "EXPOSE":
                ports: dict[str, dict[str, Any]] = {p if "/" in p else f"{p}/tcp": {} for p in rest.split()}
                config.setdefault("ExposedPorts", {}).update(ports)
            case "VOLUME":
                paths = value if rest.startswith("[") else rest.split()
                config.setdefault("Volumes", {}).update({path: {} for path in paths})
            case "USER":
                config["User"] = rest
            case "WORKDIR":
                config["WorkingDir"] = rest
            case "STOPSIGNAL":
                config["StopSignal"] = rest
            case _:
                raise InvalidArgument(f"{word.lower()} is not a valid change command")
    return config


class ImageRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> list[Route]:
        return [
            ("GET", "/images/json", self.index),
            ("GET", "/images/search", self.search),
            ("POST", "/images/load", self.load),
            ("POST", "/images/create", self.create),
            ("POST", "/images/prune", self.prune),
            ("GET", "/images/get", self.get_several),
            ("GET", "/images/{name*}/get", self.get),
            ("GET", "/images/{name*}/json", self.inspect),
            ("GET", "/images/{name*}/history", self.history),
            ("POST", "/images/{name*}/tag", self.tag),
            ("POST", "/images/{name*}/push", self.push),
            ("GET", "/distribution/{name*}/json", self.distribution),
            ("DELETE", "/images/{name*}", self.remove),
            ("POST", "/commit", self.commit),
        ]

    async def index(self, request: Request) -> Response:
        filters = parse_filters(request.query.get("filters", ""), LIST_FILTERS)
        return json_response(await image_documents.summaries(self._engine.images, filters))

    async def inspect(self, request: Request) -> Response:
        return json_response(await image_documents.inspect(self._engine.images, request.params["name"]))

    async def history(self, request: Request) -> Response:
        return json_response(await image_documents.history(self._engine.images, request.params["name"]))

    async def load(self, request: Request) -> Response:
        """Errors come before any header: an archive that is refused is an HTTP error, not a line in a stream."""
        views = await self._engine.images.load(BodyReader(request.body()))
        lines = b""
        for view in views:
            for text in [f"Loaded image: {tag}" for tag in view.tags] or [f"Loaded image ID: {view.id}"]:
                lines += encode_json({"stream": text + "\n"}) + b"\r\n"
        return Response(200, lines, "application/json")

    async def create(self, request: Request) -> Response | None:
        if request.query.get("fromSrc"):
            return await self._import(request)
        name = request.query.get("fromImage", "")
        if not name:
            raise InvalidArgument("neither fromImage nor fromSrc is given")
        tag = request.query.get("tag", "")
        separator = "@" if tag.startswith("sha256:") else ":"
        reference = f"{name}{separator}{tag}" if tag else name
        login = login_of(request.headers.get("x-registry-auth", ""))
        if references.normalise(reference) == BUILT_IN and await self._engine.images.id_of(BUILT_IN):
            async with request.stream() as out:  # it ships with the engine: no registry has a newer one
                await out.write_json({"status": f"Status: Image is up to date for {reference}"}, b"\r\n")
            return None
        pulling = await self._engine.registries.pull(reference, request.query.get("platform", ""), login)
        await self._tell(request, pulling)
        return None

    @staticmethod
    async def _tell(request: Request, documents: AsyncIterator[dict[str, Any]]) -> None:
        async with request.stream() as out, aclosing(documents):  # type: ignore[type-var]  # they are generators
            async for document in documents:
                await out.write_json(document, b"\r\n")

    async def push(self, request: Request) -> None:
        login = login_of(request.headers.get("x-registry-auth", ""))
        pushing = await self._engine.registries.push(request.params["name"], request.query.get("tag", ""), login)
        await self._tell(request, pushing)

    async def search(self, request: Request) -> Response:
        filters = parse_filters(request.query.get("filters", ""), SEARCH_FILTERS)
        login = login_of(request.headers.get("x-registry-auth", ""))
        term, limit = request.query.get("term", ""), request.number("limit", 0)
        return json_response(await self._engine.registries.search(term, limit, filters, login))

    async def distribution(self, request: Request) -> Response:
        login = login_of(request.headers.get("x-registry-auth", ""))
        return json_response(await self._engine.registries.distribution(request.params["name"], login))

    async def _import(self, request: Request) -> Response:
        source = request.query["fromSrc"]
        if source != "-":
            raise Unimplemented(
                f"import from {source}: this engine does not download", remedy="download it and import the file"
            )
        repository, tag = request.query.get("repo", ""), request.query.get("tag", "")
        name = f"{repository}:{tag}" if repository and tag else repository
        config = changes(request.query_lists.get("changes", []))
        message = request.query.get("message", "") or "Imported from -"
        view = await self._engine.images.import_rootfs(BodyReader(request.body()), name, message, config)
        return Response(200, encode_json({"status": view.id}) + b"\r\n", "application/json")

    async def commit(self, request: Request) -> Response:
        """``POST /commit``: the body is a container config that goes before the container's own."""
        query = request.query
        live = self._engine.lifecycle.get(query.get("container", ""))
        repository, tag = query.get("repo", ""), query.get("tag", "")
        body = await request.read()
        given = models.decode(body, models.ContainerConfig, "container configuration") if body.strip() else None
        asked = "\n".join(request.query_lists.get("changes", []))
        lines = [line for line in asked.split("\n") if line.strip()]
        own = merge(changes(lines), msgspec.to_builtins(given) if given else {})
        view = await self._engine.file_systems.commit(
            live,
            name=str(references.parse(f"{repository}:{tag}" if tag else repository)) if repository else "",
            comment=query.get("comment", ""),
            author=query.get("author", ""),
            pause=request.flag("pause", True),
            config=own,
        )
        return json_response({"Id": view.id}, 201)

    async def get(self, request: Request) -> None:
        await self._save(request, [request.params["name"]])

    async def get_several(self, request: Request) -> None:
        names = [part for value in request.query_lists.get("names", []) for part in value.split(",") if part]
        if not names:
            raise InvalidArgument("no image names given")
        await self._save(request, names)

    async def _save(self, request: Request, names: list[str]) -> None:
        for name in names:
            await self._engine.images.find(name)  # a missing one is a 404, not a broken archive
        async with request.stream("application/x-tar") as out:
            writer = ChunkWriter(out)
            await self._engine.images.save(names, writer)
            await writer.end()

    async def tag(self, request: Request) -> Response:
        repository = request.query.get("repo", "")
        if not repository:
            raise InvalidArgument("repo must be given")
        await self._engine.images.tag(request.params["name"], repository, request.query.get("tag", ""))
        return Response(201)

    async def remove(self, request: Request) -> Response:
        return json_response(await self._engine.images.remove(request.params["name"], request.flag("force")))

    async def prune(self, request: Request) -> Response:
        filters = parse_filters(request.query.get("filters", ""), PRUNE_FILTERS)
        everything = filters.get("dangling", ["true"])[0].lower() in ("false", "0")
        removed, freed = await self._engine.images.prune(everything)
        return json_response({"ImagesDeleted": removed or None, "SpaceReclaimed": freed})
