"""``/volumes/...``."""

from __future__ import annotations

import msgspec

from boxship.http.messages import Request, Response, json_response
from boxship.image.background import in_background

from .. import models
from ..app import Engine
from ..filters import parse_filters, truth
from ..router import Route

LIST_FILTERS = frozenset({"dangling", "driver", "label", "name"})
PRUNE_FILTERS = frozenset({"all", "label", "label!"})


class VolumeCreate(msgspec.Struct):
    Name: str = ""
    Driver: str = ""
    DriverOpts: dict[str, str] | None = None
    Labels: dict[str, str] | None = None


class VolumeRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> list[Route]:
        return [
            ("GET", "/volumes", self.list),
            ("POST", "/volumes/create", self.create),
            ("POST", "/volumes/prune", self.prune),
            ("GET", "/volumes/{name}", self.inspect),
            ("DELETE", "/volumes/{name}", self.remove),
        ]

    async def list(self, request: Request) -> Response:
        filters = parse_filters(request.query.get("filters", ""), LIST_FILTERS)
        found = self._engine.volumes.all(filters)
        return json_response({"Volumes": [msgspec.to_builtins(v) for v in found], "Warnings": None})

    async def create(self, request: Request) -> Response:
        body = models.decode(await request.read(), VolumeCreate, "volume configuration")
        volume = self._engine.volumes.create(body.Name, body.Driver, body.Labels, body.DriverOpts)
        return json_response(msgspec.to_builtins(volume), 201)

    async def inspect(self, request: Request) -> Response:
        return json_response(msgspec.to_builtins(self._engine.volumes.get(request.params["name"])))

    async def remove(self, request: Request) -> Response:
        name, force = request.params["name"], request.flag("force")
        await in_background(self._engine.volumes.remove, name, force)
        return Response(204)

    async def prune(self, request: Request) -> Response:
        filters = parse_filters(request.query.get("filters", ""), PRUNE_FILTERS)
        everything = "all" in filters and truth(filters.pop("all"), "all")
        kept = {key: value for key, value in filters.items() if key == "label"}
        removed, freed = await in_background(self._engine.volumes.prune, everything, kept)
        return json_response({"VolumesDeleted": removed or None, "SpaceReclaimed": freed})
