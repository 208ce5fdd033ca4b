"""``/containers/{id}/exec`` and ``/exec/...``."""

from __future__ import annotations

import msgspec

from boxship.http.messages import Request, Response, Stream, json_response

from .. import models
from ..app import Engine
from ..execs import ExecRequest
from ..router import Route
from .containers import stream_type


class ExecStart(msgspec.Struct):
    Detach: bool = False
    Tty: bool = False
    ConsoleSize: list[int] | None = None


class ExecRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> list[Route]:
        return [
            ("POST", "/containers/{id}/exec", self.create),
            ("POST", "/exec/{id}/start", self.start),
            ("POST", "/exec/{id}/resize", self.resize),
            ("GET", "/exec/{id}/json", self.inspect),
        ]

    async def create(self, request: Request) -> Response:
        live = self._engine.lifecycle.get(request.params["id"])
        body = models.decode(await request.read(), ExecRequest, "exec configuration")
        return json_response({"Id": self._engine.execs.create(live, body).id}, 201)

    async def start(self, request: Request) -> Response | None:
        body = models.decode(await request.read(), ExecStart, "exec start configuration")
        size = (0, 0)
        if body.ConsoleSize and len(body.ConsoleSize) == 2:
            size = (body.ConsoleSize[0], body.ConsoleSize[1])

        def hijack() -> Stream:
            return request.hijack(stream_type(request, body.Tty))

        await self._engine.execs.start(request.params["id"], hijack, body.Detach, body.Tty, size)
        return Response(200) if body.Detach else None

    async def resize(self, request: Request) -> Response:
        height, width = request.number("h", 0), request.number("w", 0)
        await self._engine.execs.resize(request.params["id"], height, width)
        return Response(200)

    async def inspect(self, request: Request) -> Response:
        return json_response(self._engine.execs.inspect(request.params["id"]))
