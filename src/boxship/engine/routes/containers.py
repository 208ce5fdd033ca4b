"""``/containers/...``: what a request asks for, turned into calls of the services; nothing is decided here."""

from __future__ import annotations

import asyncio
from typing import Any

from boxship.errors import BoxshipError, FailedPrecondition, InvalidArgument
from boxship.http.messages import Request, Response, json_response

from .. import inspect, logs, models, parse, top
from ..app import Engine
from ..attach import Wanted
from ..clock import query_time
from ..detach import key_codes
from ..filters import parse_filters
from ..lifecycle import NotModified
from ..live import Live
from ..router import Route, version_tuple
from ..stdio import STDERR, STDOUT
from .bodies import ChunkWriter

PS_FILTERS = frozenset(
    {"ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network", "publish",
     "since", "status", "volume"}
)  # fmt: skip
NO_CONTENT = 204
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"


def stream_type(request: Request, tty: bool) -> str:
    """Multiplexed streams have a media type of their own since API 1.42."""
    modern = not request.version or version_tuple(request.version) >= (1, 42)
    return MULTIPLEXED if modern and not tty else RAW


class ContainerRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> list[Route]:
        return [
            ("POST", "/containers/create", self.create),
            ("GET", "/containers/json", self.list),
            ("POST", "/containers/prune", self.prune),
            ("GET", "/containers/{id}/json", self.inspect),
            ("POST", "/containers/{id}/start", self.start),
            ("POST", "/containers/{id}/stop", self.stop),
            ("POST", "/containers/{id}/restart", self.restart),
            ("POST", "/containers/{id}/kill", self.kill),
            ("POST", "/containers/{id}/pause", self.pause),
            ("POST", "/containers/{id}/unpause", self.unpause),
            ("POST", "/containers/{id}/wait", self.wait),
            ("POST", "/containers/{id}/attach", self.attach),
            ("POST", "/containers/{id}/resize", self.resize),
            ("POST", "/containers/{id}/rename", self.rename),
            ("GET", "/containers/{id}/logs", self.logs),
            ("GET", "/containers/{id}/stats", self.stats),
            ("GET", "/containers/{id}/top", self.top),
            ("GET", "/containers/{id}/changes", self.changes),
            ("GET", "/containers/{id}/export", self.export),
            ("DELETE", "/containers/{id}", self.remove),
        ]

    def _live(self, request: Request) -> Live:
        return self._engine.lifecycle.get(request.params["id"])

    async def create(self, request: Request) -> Response:
        body = models.decode(await request.read(), models.CreateRequest, "container configuration")
        if not body.Image:
            raise InvalidArgument("config.Image must be set")
        record, warnings = await self._engine.creator.create(
            request.query.get("name", ""), body, request.query.get("platform", "")
        )
        self._engine.lifecycle.publish(record, "create")
        return json_response({"Id": record.Id, "Warnings": warnings}, 201)

    async def list(self, request: Request) -> Response:
        filters = parse_filters(request.query.get("filters", ""), PS_FILTERS)
        limit = request.number("limit", 0)
        records = inspect.select(self._engine.store.all(), filters, all=request.flag("all"), limit=limit)
        sizes = request.flag("size")
        rows = [inspect.summary(record, await self._size(record) if sizes else None) for record in records]
        return json_response(rows)

    async def _size(self, record: models.Record) -> tuple[int, int]:
        own = await self._engine.images.snapshot_size(record.Id)
        view = await self._engine.images.find(record.Image)
        return own, own + await self._engine.images.size(view)

    async def inspect(self, request: Request) -> Response:
        live = self._live(request)
        size = await self._size(live.record) if request.flag("size") else None
        return json_response(inspect.container(live, self._engine.config, size))

    async def changes(self, request: Request) -> Response:
        return json_response(await self._engine.file_systems.changes(self._live(request).record))

    async def export(self, request: Request) -> None:
        record = self._live(request).record
        async with request.stream("application/octet-stream") as out:
            writer = ChunkWriter(out)
            await self._engine.file_systems.export(record, writer)
            await writer.end()

    async def start(self, request: Request) -> Response:
        live = self._live(request)
        body = await request.read()
        if body.strip() not in (b"", b"{}", b"null"):
            raise InvalidArgument("starting container with non-empty request body was deprecated since API v1.22")
        key_codes(request.query.get("detachKeys", ""))
        try:
            await self._engine.lifecycle.start(live)
        except NotModified:
            return Response(304)
        return Response(NO_CONTENT)

    def _seconds(self, request: Request) -> int | None:
        return request.number("t", 0) if request.query.get("t") else None

    async def stop(self, request: Request) -> Response:
        live = self._live(request)
        try:
            await self._engine.lifecycle.stop(live, self._seconds(request), request.query.get("signal", ""))
        except NotModified:
            return Response(304)
        return Response(NO_CONTENT)

    async def restart(self, request: Request) -> Response:
        live = self._live(request)
        await self._engine.lifecycle.restart(live, self._seconds(request), request.query.get("signal", ""))
        return Response(NO_CONTENT)

    async def kill(self, request: Request) -> Response:
        live = self._live(request)
        signal = parse.signal_number(request.query.get("signal") or "KILL")
        exited = asyncio.ensure_future(live.next_exit()) if signal == 9 else None
        await asyncio.sleep(0)
        try:
            await self._engine.lifecycle.kill(live, signal)
            if exited is not None:
                await asyncio.wait({exited}, timeout=10)
        finally:
            if exited is not None:
                exited.cancel()
        return Response(NO_CONTENT)

    async def pause(self, request: Request) -> Response:
        await self._engine.lifecycle.pause(self._live(request))
        return Response(NO_CONTENT)

    async def unpause(self, request: Request) -> Response:
        await self._engine.lifecycle.unpause(self._live(request))
        return Response(NO_CONTENT)

    async def wait(self, request: Request) -> None:
        """Headers at once: the CLI starts the container only when it has them. The body comes with the exit."""
        live = self._live(request)
        condition = request.query.get("condition") or "not-running"
        if condition not in ("not-running", "next-exit", "removed"):
            raise InvalidArgument(f'invalid condition: "{condition}"')
        state = live.record.State
        waiting: asyncio.Future[int]
        if condition == "removed":
            waiting = asyncio.ensure_future(live.removal())
        elif condition == "next-exit" or state.Running or state.Restarting:
            waiting = asyncio.ensure_future(live.next_exit())
        else:
            waiting = asyncio.get_running_loop().create_future()
            waiting.set_result(state.ExitCode)
        await asyncio.sleep(0)  # registered before the client is told
        try:
            async with request.stream() as out:
                await out.write_json({"StatusCode": await waiting})
        finally:
            waiting.cancel()

    async def attach(self, request: Request) -> None:
        live = self._live(request)
        config, state = live.record.Config, live.record.State
        if state.Paused:
            raise FailedPrecondition(f"container {live.record.Name} is paused, unpause the container before attach")
        if state.Restarting:
            raise FailedPrecondition(
                f"container {live.record.Name} is restarting, wait until the container is running"
            )
        streaming = request.flag("stream")
        wanted = Wanted(
            stdin=request.flag("stdin") and config.OpenStdin and streaming,
            stdout=request.flag("stdout"),
            stderr=request.flag("stderr") and not config.Tty,
            tty=config.Tty,
            close_stdin=config.StdinOnce,
            detach_keys=request.query.get("detachKeys", ""),
        )
        key_codes(wanted.detach_keys)
        stream = request.hijack(stream_type(request, config.Tty))
        if request.flag("logs"):
            selection = logs.Selection(wanted.outputs, multiplexed=not config.Tty)
            await self._send_log(live, selection, stream.write)
        if streaming:
            await self._engine.attach(live, stream, wanted)

    async def _send_log(self, live: Live, selection: logs.Selection, write: Any) -> None:
        path = self._engine.config.log_path(live.record.Id)
        if path.exists():
            await logs.stream(path, selection, write, None)

    async def resize(self, request: Request) -> Response:
        height, width = request.number("h", 0), request.number("w", 0)
        await self._engine.lifecycle.resize(self._live(request), height, width)
        return Response(200)

    async def rename(self, request: Request) -> Response:
        self._engine.lifecycle.rename(self._live(request), request.query.get("name", ""))
        return Response(NO_CONTENT)

    async def logs(self, request: Request) -> None:
        live = self._live(request)
        record = live.record
        streams = {n for n, key in ((STDOUT, "stdout"), (STDERR, "stderr")) if request.flag(key)}
        if not streams:
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        if record.HostConfig.LogConfig.Type == "none":
            raise FailedPrecondition("configured logging driver does not support reading")
        tail = request.query.get("tail") or "all"
        if tail != "all" and not tail.lstrip("-").isdigit():
            tail = "all"  # as dockerd: what is no number means everything
        selection = logs.Selection(
            streams=frozenset(streams),
            tail=-1 if tail == "all" else max(int(tail), -1),
            since=query_time(request.query.get("since", ""), "since"),
            until=query_time(request.query.get("until", ""), "until"),
            timestamps=request.flag("timestamps"),
            details=request.flag("details"),
            multiplexed=not record.Config.Tty,
        )
        follow = request.flag("follow")
        path = self._engine.config.log_path(record.Id)

        async def ended() -> None:
            if record.State.Running or record.State.Restarting:
                await live.next_exit()

        async with request.stream(stream_type(request, record.Config.Tty)) as out:
            if path.exists() or (follow and record.State.Running):
                await logs.stream(path, selection, out.write, ended if follow else None)

    async def stats(self, request: Request) -> Response | None:
        live = self._live(request)
        stats = self._engine.stats
        if not request.flag("stream", True):
            first = None
            if not request.flag("one-shot"):
                first = await stats.read(live.record, None)
                if live.record.State.Running:
                    await asyncio.sleep(1)
            return json_response(await stats.read(live.record, first))
        async with request.stream() as out:
            before = None
            while self._engine.store.find(live.record.Id) is not None:
                before = await stats.read(live.record, before)
                await out.write_json(before)
                await asyncio.sleep(1)
        return None

    async def top(self, request: Request) -> Response:
        live = self._live(request)
        if not live.record.State.Running:
            raise FailedPrecondition(f"container {live.record.Id} is not running")
        pids = await self._engine.pids(live)
        return json_response(await top.processes(pids, request.query.get("ps_args", "")))

    async def remove(self, request: Request) -> Response:
        live = self._live(request)
        if request.flag("link"):
            raise InvalidArgument("links between containers are not supported")
        await self._engine.lifecycle.remove(live, force=request.flag("force"), volumes=request.flag("v"))
        self._engine.execs.container_removed(live)
        return Response(NO_CONTENT)

    async def prune(self, request: Request) -> Response:
        filters = parse_filters(request.query.get("filters", ""), frozenset({"label", "until"}))
        until = query_time(filters["until"][0], "until") if filters.get("until") else 0
        labels = {"label": filters["label"]} if "label" in filters else {}
        removed, freed = [], 0
        for record in inspect.select(self._engine.store.all(), labels, all=True, limit=0):
            if record.State.Running or record.State.Restarting:
                continue
            if until and query_time(record.Created, "Created") > until:
                continue
            freed += await self._engine.images.snapshot_size(record.Id)
            try:
                await self._engine.lifecycle.remove(self._engine.lifecycle.live(record), force=False, volumes=False)
            except BoxshipError:
                continue  # it was started or removed meanwhile
            removed.append(record.Id)
        return json_response({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})
