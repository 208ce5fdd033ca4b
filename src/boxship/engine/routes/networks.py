"""``/networks``: the three networks that there always are; more come with their own commands."""

from __future__ import annotations

from boxship.http.messages import Request, Response, json_response

from ..app import Engine
from ..filters import parse_filters
from ..router import Route

LIST_FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})


class NetworkRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> list[Route]:
        return [("GET", "/networks", self.index), ("GET", "/networks/{id}", self.inspect)]

    async def index(self, request: Request) -> Response:
        filters = parse_filters(request.query.get("filters", ""), LIST_FILTERS)
        found = []
        for document in self._engine.networks.documents(self._engine.store.all()):
            names = filters.get("name", [document["Name"]])
            ids = filters.get("id", [document["Id"]])
            drivers = filters.get("driver", [document["Driver"]])
            if (
                any(name in document["Name"] for name in names)
                and any(document["Id"].startswith(id) for id in ids)
                and document["Driver"] in drivers
            ):
                found.append(document)
        return json_response(found)

    async def inspect(self, request: Request) -> Response:
        return json_response(self._engine.networks.document(request.params["id"], self._engine.store.all()))
