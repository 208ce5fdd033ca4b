"""Container records as the API's documents: ``inspect``, ``ps``."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from boxship.api.engine.words import duration
from boxship.errors import InvalidArgument

from . import parse
from .clock import ZERO, parse_rfc3339
from .config import EngineConfig
from .filters import Filters, has_label, truth
from .live import Live
from .models import MountPoint, Record

# What dockerd shows as [] rather than null when nothing was given
EMPTY_LISTS = (
    "Dns", "DnsOptions", "DnsSearch", "Devices", "BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps", "Ulimits",
)  # fmt: skip
LEFT_OUT_WHEN_NULL = ("Annotations", "StorageOpt", "Tmpfs", "Sysctls", "Init", "Mounts")
CONFIG_LEFT_OUT = (
    "ExposedPorts", "Healthcheck", "ArgsEscaped", "NetworkDisabled", "MacAddress", "StopSignal", "StopTimeout",
    "Shell",
)  # fmt: skip

every = all  # `all` is a parameter below

STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")


def container(live: Live, config: EngineConfig, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """``GET /containers/{id}/json``."""
    record = live.record
    host_config: dict[str, Any] = msgspec.to_builtins(record.HostConfig)
    for key in EMPTY_LISTS:
        host_config[key] = host_config[key] or []
    host_config["PortBindings"] = host_config["PortBindings"] or {}
    for key in LEFT_OUT_WHEN_NULL:
        if host_config[key] is None:
            del host_config[key]
    container_config: dict[str, Any] = msgspec.to_builtins(record.Config)
    for key in CONFIG_LEFT_OUT:
        if not container_config[key]:
            del container_config[key]
    directory = config.containers_root / record.Id
    log = str(config.log_path(record.Id)) if record.HostConfig.LogConfig.Type == "json-file" else ""
    execs = [process.id for process in live.execs.values() if process.running]
    document: dict[str, Any] = {
        "Id": record.Id,
        "Created": record.Created,
        "Path": record.Path,
        "Args": record.Args,
        "State": msgspec.to_builtins(record.State),
        "Image": record.Image,
        "ResolvConfPath": str(directory / "resolv.conf"),
        "HostnamePath": str(directory / "hostname"),
        "HostsPath": str(directory / "hosts"),
        "LogPath": log,
        "Name": f"/{record.Name}",
        "RestartCount": record.RestartCount,
        "Driver": "overlayfs",
        "Platform": record.Platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": execs or None,
        "HostConfig": host_config,
        "GraphDriver": {"Data": None, "Name": "overlayfs"},
        "Mounts": [mount(point) for point in record.Mounts],
        "Config": container_config,
        "NetworkSettings": network_settings(record, config),
    }
    if size is not None:
        document["SizeRw"], document["SizeRootFs"] = size
    return document


def mount(point: MountPoint) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(point)
    if point.Type == "tmpfs":
        document |= {"Source": "", "Mode": ""}
    return document


def network_settings(record: Record, config: EngineConfig) -> dict[str, Any]:
    networks: dict[str, Any] = msgspec.to_builtins(record.Networks)
    bridge = networks.get("bridge", {}) if record.State.Running else {}
    return {
        "Bridge": "",
        "SandboxID": record.Id if record.State.Running else "",
        "SandboxKey": f"/proc/{record.State.Pid}/ns/net" if record.State.Running else "",
        "Ports": msgspec.to_builtins(record.Ports) if record.State.Running else {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": bridge.get("EndpointID", ""),
        "Gateway": bridge.get("Gateway", ""),
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": bridge.get("IPAddress", ""),
        "IPPrefixLen": bridge.get("IPPrefixLen", 0),
        "IPv6Gateway": "",
        "MacAddress": bridge.get("MacAddress", ""),
        "Networks": networks,
    }


def status(record: Record) -> str:
    """The STATUS column of ``docker ps``."""
    state = record.State
    ns = time.time_ns()
    if state.Running:
        up = f"Up {duration((ns - parse_rfc3339(state.StartedAt)) / 1e9)}"
        return f"{up} (Paused)" if state.Paused else up
    ended = duration((ns - parse_rfc3339(state.FinishedAt)) / 1e9)
    if state.Restarting:
        return f"Restarting ({state.ExitCode}) {ended} ago"
    if state.Status == "removing":
        return "Removal In Progress"
    if state.Dead:
        return "Dead"
    if state.StartedAt == ZERO or state.FinishedAt == ZERO:
        return "Created"
    return f"Exited ({state.ExitCode}) {ended} ago"


def ports(record: Record) -> list[dict[str, Any]]:
    """The ports of ``docker ps``: published ones with their address, exposed ones without."""
    found: list[dict[str, Any]] = []
    if not record.State.Running:
        return found
    for text, bindings in record.Ports.items():
        number, protocol = parse.port(text)
        if not bindings:
            found.append({"PrivatePort": number, "Type": protocol})
        found += [
            {"IP": b.HostIp, "PrivatePort": number, "PublicPort": int(b.HostPort), "Type": protocol}
            for b in bindings or []
        ]
    return found


def summary(record: Record, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """One row of ``GET /containers/json``."""
    command = " ".join([record.Path, *[f"'{arg}'" if " " in arg else arg for arg in record.Args]])
    document: dict[str, Any] = {
        "Id": record.Id,
        "Names": [f"/{record.Name}"],
        "Image": record.ImageName,
        "ImageID": record.Image,
        "Command": command,
        "Created": parse_rfc3339(record.Created) // 10**9,
        "Ports": ports(record),
        "Labels": record.Config.Labels or {},
        "State": record.State.Status,
        "Status": status(record),
        "HostConfig": {"NetworkMode": record.HostConfig.NetworkMode},
        "NetworkSettings": {"Networks": msgspec.to_builtins(record.Networks)},
        "Mounts": [mount(point) for point in record.Mounts],
    }
    if size is not None:
        document["SizeRw"], document["SizeRootFs"] = size
    return document


def select(records: list[Record], filters: Filters, *, all: bool, limit: int) -> list[Record]:
    """What ``docker ps`` lists: running ones, unless all, a status filter or a limit asks for more."""
    found = []
    if "before" in filters or "since" in filters:
        records = _between(records, filters)
    for record in records:
        state = record.State
        if not (all or limit > 0 or state.Running or "status" in filters or "exited" in filters):
            continue
        if _passes(record, filters):
            found.append(record)
    return found[:limit] if limit > 0 else found


def _between(records: list[Record], filters: Filters) -> list[Record]:
    def created(reference: str) -> str:
        for record in records:
            if reference.removeprefix("/") == record.Name or record.Id.startswith(reference):
                return record.Created
        raise InvalidArgument(f"No such container: {reference}")

    before = [created(value) for value in filters.get("before", [])]
    since = [created(value) for value in filters.get("since", [])]
    return [
        record
        for record in records
        if every(record.Created < moment for moment in before) and every(record.Created > moment for moment in since)
    ]


def _passes(record: Record, filters: Filters) -> bool:
    for key, values in filters.items():
        match key:
            case "id":
                held = any(record.Id.startswith(v) for v in values)
            case "name":
                held = any(_name_matches(record.Name, v) for v in values)
            case "label":
                held = all(has_label(record.Config.Labels or {}, v) for v in values)
            case "status":
                for value in values:
                    if value not in STATUSES:
                        raise InvalidArgument(
                            f"invalid filter 'status={value}'", remedy="one of " + ", ".join(STATUSES)
                        )
                held = record.State.Status in values
            case "exited":
                held = record.State.Status == "exited" and str(record.State.ExitCode) in values
                held = held and record.HasBeenStarted
            case "ancestor":
                held = any(_ancestor(record, v) for v in values)
            case "volume":
                held = any(v in (m.Name, m.Source, m.Destination) for m in record.Mounts for v in values)
            case "network":
                held = any(v in (n, e.NetworkID) for n, e in record.Networks.items() for v in values)
                held = held or record.HostConfig.NetworkMode in values
            case "publish" | "expose":
                held = any(_port_matches(record, key, v) for v in values)
            case "is-task":
                held = not truth(values, key)
            case "health":
                held = "none" in values
            case _:
                held = True  # before and since were dealt with
        if not held:
            return False
    return True


def _name_matches(name: str, pattern: str) -> bool:
    import re

    try:
        return re.search(pattern.removeprefix("/"), name) is not None or re.search(pattern, f"/{name}") is not None
    except re.error:
        return pattern in name


def _ancestor(record: Record, value: str) -> bool:
    name = record.ImageName
    return (
        value in (name, name.split(":")[0], record.Image)
        or record.Image.removeprefix("sha256:").startswith(value.removeprefix("sha256:"))
        or (":" not in name and value == f"{name}:latest")
    )


def _port_matches(record: Record, key: str, value: str) -> bool:
    first, _, rest = value.partition("-")
    last, _, protocol = (rest or first).partition("/")
    low = int(first.partition("/")[0] or 0)
    for text, bindings in record.Ports.items():
        number, kind = parse.port(text)
        if protocol and kind != protocol:
            continue
        numbers = [int(b.HostPort) for b in bindings or []] if key == "publish" else [number]
        if any(low <= n <= int(last or low) for n in numbers):
            return True
    return False
