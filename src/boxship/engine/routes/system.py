"""``/_ping``, ``/version``, ``/info``, ``/events``, ``/system/df``, and what ``boxship trace`` reads."""

from __future__ import annotations

import os
import platform
import re
import uuid
from pathlib import Path
from typing import Any

import msgspec

from boxship import __version__
from boxship.errors import InvalidArgument, NotFound
from boxship.http.messages import Request, Response, json_response
from boxship.image.background import in_background

from .. import image_documents
from ..app import Engine
from ..clock import now, query_time
from ..filters import parse_filters
from ..inspect import summary
from ..registries import Login
from ..router import API_VERSION, MIN_API_VERSION, Route
from ..volumes import usage

EVENT_FILTERS = frozenset(
    {"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret",
     "service", "type", "volume"}
)  # fmt: skip


class SystemRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> list[Route]:
        return [
            ("GET", "/_ping", self.ping),
            ("GET", "/version", self.version),
            ("GET", "/info", self.info),
            ("GET", "/events", self.events),
            ("GET", "/system/df", self.disk_usage),
            ("POST", "/build/prune", self.build_prune),
            ("POST", "/auth", self.auth),
            ("GET", "/boxship/traces/{id}", self.trace),
        ]

    async def ping(self, request: Request) -> Response:
        return Response(
            200,
            b"OK",
            "text/plain; charset=utf-8",
            {
                "Builder-Version": "1",
                "Swarm": "inactive",
                "Cache-Control": "no-cache, no-store, must-revalidate",
                "Pragma": "no-cache",
            },
        )

    async def version(self, request: Request) -> Response:
        host = self._engine.host
        details = {
            "ApiVersion": API_VERSION,
            "Arch": architecture(host.machine),
            "KernelVersion": os.uname().release,
            "MinAPIVersion": MIN_API_VERSION,
            "Os": "linux",
            "PythonVersion": platform.python_version(),
        }
        return json_response(
            {
                "Platform": {"Name": "Boxship Engine"},
                "Components": [
                    {"Name": "Engine", "Version": __version__, "Details": details},
                    {"Name": "containerd", "Version": __version__, "Details": {"GitCommit": ""}},
                    {"Name": "boxship-runc", "Version": __version__, "Details": {"GitCommit": ""}},
                ],
                "Version": __version__,
                "ApiVersion": API_VERSION,
                "MinAPIVersion": MIN_API_VERSION,
                "GitCommit": "",
                "GoVersion": f"Python {platform.python_version()}",
                "Os": "linux",
                "Arch": architecture(host.machine),
                "KernelVersion": os.uname().release,
                "BuildTime": "",
            }
        )

    async def info(self, request: Request) -> Response:
        engine = self._engine
        records = engine.store.all()
        running = [r for r in records if r.State.Running and not r.State.Paused]
        paused = [r for r in records if r.State.Paused]
        runtimes: dict[str, Any] = {"boxship": {"path": "boxship-runc"}, "io.containerd.runc.v2": {"path": "runc"}}
        runtimes |= {name: {"path": path} for name, path in engine.config.runtimes.items()}
        release = os_release()
        document = {
            "ID": engine_id(engine),
            "Containers": len(records),
            "ContainersRunning": len(running),
            "ContainersPaused": len(paused),
            "ContainersStopped": len(records) - len(running) - len(paused),
            "Images": len(await engine.images.views()),
            "Driver": "overlayfs",
            "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": ["json-file", "none"],
            },
            "MemoryLimit": True,
            "SwapLimit": True,
            "CpuCfsPeriod": True,
            "CpuCfsQuota": True,
            "CPUShares": True,
            "CPUSet": True,
            "PidsLimit": True,
            "IPv4Forwarding": True,
            "OomKillDisable": not engine.host.cgroup_v2,
            "Debug": engine.config.debug,
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": 1,
            "SystemTime": now(),
            "LoggingDriver": engine.config.log_driver,
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2" if engine.host.cgroup_v2 else "1",
            "NEventsListener": 0,
            "KernelVersion": os.uname().release,
            "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
            "OSVersion": release.get("VERSION_ID", ""),
            "OSType": "linux",
            "Architecture": engine.host.machine,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {"InsecureRegistryCIDRs": ["127.0.0.0/8"], "IndexConfigs": {}, "Mirrors": None},
            "NCPU": engine.host.cpus,
            "MemTotal": engine.host.memory,
            "GenericResources": None,
            "DockerRootDir": str(engine.config.data_root),
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Name": os.uname().nodename,
            "Labels": engine.config.labels,
            "ExperimentalBuild": False,
            "ServerVersion": __version__,
            "Runtimes": runtimes,
            "DefaultRuntime": engine.config.default_runtime,
            "Swarm": {
                "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False, "Error": "",
                "RemoteManagers": None,
            },
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "docker-init",
            "ContainerdCommit": {"ID": __version__, "Expected": __version__},
            "RuncCommit": {"ID": __version__, "Expected": __version__},
            "InitCommit": {"ID": __version__, "Expected": __version__},
            "SecurityOptions": security_options(engine),
            "CDISpecDirs": [],
            "Warnings": None,
        }  # fmt: skip
        return json_response(document)

    async def events(self, request: Request) -> None:
        filters = parse_filters(request.query.get("filters", ""), EVENT_FILTERS)
        since = query_time(request.query.get("since", ""), "since")
        until = query_time(request.query.get("until", ""), "until")
        if until and since > until:
            raise InvalidArgument("`since` time cannot be after `until` time")
        async with request.stream() as out:
            async for event in self._engine.events.follow(since, until, filters):
                await out.write_json(event)

    async def disk_usage(self, request: Request) -> Response:
        engine = self._engine
        images = await image_documents.summaries(engine.images, {})
        containers = []
        for record in engine.store.all():
            own = await engine.images.snapshot_size(record.Id)
            containers.append(summary(record, (own, own)))
        volumes = []
        for volume in engine.volumes.all({}):
            size = await in_background(usage, Path(volume.Mountpoint))
            users = sum(any(m.Name == volume.Name for m in r.Mounts) for r in engine.store.all())
            volumes.append({**msgspec.to_builtins(volume), "UsageData": {"Size": size, "RefCount": users}})
        return json_response(
            {
                "LayersSize": sum(image["Size"] for image in images),
                "Images": images,
                "Containers": containers,
                "Volumes": volumes,
                "BuildCache": [],
            }
        )

    async def build_prune(self, request: Request) -> Response:
        return json_response({"CachesDeleted": None, "SpaceReclaimed": 0})

    async def auth(self, request: Request) -> Response:
        try:
            login = msgspec.convert(await request.json(), type=Login)
        except msgspec.ValidationError as error:
            raise InvalidArgument("the body of /auth", cause=str(error)) from error
        return json_response(await self._engine.registries.login(login))

    async def trace(self, request: Request) -> Response:
        """The spans of one trace as JSON lines, as far as they are written."""
        id = request.params["id"]
        if not re.fullmatch(r"[0-9a-f]{32}", id):
            raise InvalidArgument(f"trace id {id!r} must be 32 hex digits")
        path = self._engine.config.exec_root / "traces" / f"{id}.jsonl"
        try:
            return Response(200, path.read_bytes(), "application/jsonl")
        except FileNotFoundError:
            raise NotFound(f"no trace {id}") from None


def security_options(engine: Engine) -> list[str]:
    options = ["name=seccomp,profile=builtin"]
    return [*options, "name=cgroupns"] if engine.host.cgroup_v2 else options


def architecture(machine: str) -> str:
    """uname's machine in Go's words."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def os_release() -> dict[str, str]:
    """os-release(5)."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path) as f:
                lines = f.read().splitlines()
        except FileNotFoundError:
            continue
        return {k: v.strip('"') for k, _, v in (line.partition("=") for line in lines) if k}
    return {}


def engine_id(engine: Engine) -> str:
    """A random id that stays with the data root."""
    path = engine.config.data_root / "engine-id"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        id = str(uuid.uuid4())
        path.write_text(id + "\n")
        return id
