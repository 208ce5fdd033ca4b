"""The networks of an engine: ``bridge`` (the default), ``host`` and ``none``.

The bridge's name and addresses are chosen once for a data root and kept in ``network.json``, so that several engines
run side by side and a restarted one finds its containers where they were.
The bridge itself is made when the first container needs it, and removed by an engine that ends with nothing running.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import msgspec

from boxship.errors import AlreadyExists, BoxshipError, InvalidArgument, NotFound
from boxship.network import ports as host_ports
from boxship.network.addresses import Pool, free_network
from boxship.network.bridge import Bridge
from boxship.network.links import routed_networks
from boxship.network.netlink import NETLINK_ROUTE, Socket
from boxship.network.nftables import Port

from . import parse
from .clock import now
from .config import EngineConfig
from .models import EndpointSettings, PortBinding, Record
from .names import new_id
from .network_api import Attachment
from .store import atomic_write

log = logging.getLogger("boxship.engine.networks")

BUILT_IN = {"bridge": "bridge", "host": "host", "none": "null"}  # name -> driver


class Settings(msgspec.Struct):
    """What is kept of the networks across restarts."""

    bridge: str
    gateway: str  # with the prefix length: 172.30.0.1/16
    created: str
    ids: dict[str, str]


@dataclass
class _Held:
    """What one running container has on the bridge."""

    ip: IPv4Address
    ports: list[Port] = field(default_factory=list)
    sockets: list[host_ports.Held] = field(default_factory=list)
    published: bool = False


class EngineNetworks:
    """A `network_api.Networks`; the kernel's part runs in one worker thread, in order."""

    def __init__(self, config: EngineConfig) -> None:
        self._path = config.data_root / "network.json"
        self._settings = self._load(config)
        interface = IPv4Interface(self._settings.gateway)
        self._bridge = Bridge(self._settings.bridge, interface.ip, interface.network)
        self._pool = Pool(interface.network, interface.ip)
        self._held: dict[str, _Held] = {}
        self._ready = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._lock = asyncio.Lock()

    def _load(self, config: EngineConfig) -> Settings:
        kept: Settings | None = None
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=Settings)
        except FileNotFoundError:
            pass  # the first start on this data root
        name = config.bridge or (kept.bridge if kept else bridge_name(config.data_root))
        gateway = config.bip or (kept.gateway if kept else self._choose())
        try:
            IPv4Interface(gateway)
        except ValueError as error:
            raise InvalidArgument(f"--bip {gateway!r}: {error}", remedy="like 172.30.0.1/16") from None
        ids = kept.ids if kept else {name: new_id() for name in BUILT_IN}
        settings = Settings(name, gateway, kept.created if kept else now(), ids)
        if settings != kept:
            atomic_write(self._path, msgspec.json.encode(settings), sync=True)
        return settings

    def _choose(self) -> str:
        with Socket(NETLINK_ROUTE) as netlink:
            network: IPv4Network = free_network(routed_networks(netlink))
        return f"{network[1]}/{network.prefixlen}"

    async def _in_worker(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *arguments)

    # -- what the lifecycle calls

    def exists(self, name: str) -> bool:
        return name in BUILT_IN or name in self._settings.ids.values()

    def nameservers(self) -> list[str]:
        return []

    def _name(self, mode: str) -> str:
        return next((name for name, id in self._settings.ids.items() if id == mode), mode)

    async def reserve(self, record: Record) -> Attachment:
        mode = self._name(record.HostConfig.NetworkMode)
        ports: dict[str, list[PortBinding] | None] = dict.fromkeys(record.Config.ExposedPorts or {})
        if mode.startswith("container:"):
            return Attachment({}, {})
        if mode not in BUILT_IN:
            raise NotFound(f"network {mode} not found")
        asked = record.Networks.get(mode) or record.Networks.get("default") or EndpointSettings()
        endpoint = EndpointSettings(
            IPAMConfig=asked.IPAMConfig,
            Aliases=asked.Aliases,
            NetworkID=self._settings.ids[mode],
            EndpointID=new_id(),
        )
        if mode != "bridge":
            return Attachment({mode: endpoint}, {})
        wanted = (asked.IPAMConfig or {}).get("IPv4Address")
        if wanted:
            raise InvalidArgument("user specified IP address is supported on user defined networks only")
        held = _Held(self._pool.take())
        self._held[record.Id] = held
        try:
            bindings = self._bindings(record)
            for text, requested in bindings.items():
                number, protocol = parse.port(text)
                ports[text] = [self._hold(held, number, protocol, binding) for binding in requested]
        except BaseException:
            await self.release(record)
            raise
        network = self._bridge.network
        endpoint.Gateway = str(self._bridge.gateway)
        endpoint.IPAddress = str(held.ip)
        endpoint.IPPrefixLen = network.prefixlen
        endpoint.MacAddress = self._bridge.mac(held.ip)
        return Attachment({mode: endpoint}, ports)

    def _bindings(self, record: Record) -> dict[str, list[PortBinding]]:
        asked = {
            text if "/" in text else f"{text}/tcp": bindings or [PortBinding()]
            for text, bindings in (record.HostConfig.PortBindings or {}).items()
        }
        if record.HostConfig.PublishAllPorts:
            for text in record.Config.ExposedPorts or {}:
                asked.setdefault(text, [PortBinding()])
        return asked

    def _hold(self, held: _Held, number: int, protocol: str, binding: PortBinding) -> PortBinding:
        ip = host_ports.host_address(binding.HostIp)
        first, last = parse.port_range(binding.HostPort)
        try:
            taken = host_ports.hold(ip, first, last, protocol)
        except AlreadyExists as error:
            raise PortInUse(
                f"failed to set up container networking: driver failed programming external connectivity: {error}"
            ) from error
        held.sockets.append(taken)
        held.ports.append(Port(ip, taken.port, protocol, held.ip, number))
        return PortBinding(str(ip), str(taken.port))

    async def connect(self, record: Record, attachment: Attachment, pid: int) -> None:
        held = self._held.get(record.Id)
        if held is None:
            return
        await self._ensure()
        await self._in_worker(self._wire, held, pid)

    def _wire(self, held: _Held, pid: int) -> None:
        self._bridge.connect(pid, held.ip)
        if held.ports:
            self._bridge.publish(held.ports)
            held.published = True

    async def _ensure(self) -> None:
        if self._ready:
            return
        async with self._lock:
            if not self._ready:
                published = [port for held in self._held.values() if held.published for port in held.ports]
                await self._in_worker(self._bridge.ensure, published)
                self._ready = True

    async def release(self, record: Record) -> None:
        held = self._held.pop(record.Id, None)
        if held is None:
            return
        if held.published:
            await self._in_worker(self._bridge.unpublish, held.ports)
        for taken in held.sockets:
            taken.release()
        self._pool.give_back(held.ip)

    async def adopt(self, record: Record) -> None:
        """Hold a running container's address and ports again, and publish them in the table made anew."""
        endpoint = record.Networks.get("bridge")
        if endpoint is None or not endpoint.IPAddress or record.Id in self._held:
            return
        held = _Held(IPv4Address(endpoint.IPAddress))
        try:
            self._pool.take(held.ip)
        except BoxshipError as error:
            log.error("container %s: %s", record.Name, error)
        for text, bindings in record.Ports.items():
            number, protocol = parse.port(text)
            for binding in bindings or []:
                ip, port = host_ports.host_address(binding.HostIp), int(binding.HostPort)
                held.ports.append(Port(ip, port, protocol, held.ip, number))
                try:
                    held.sockets.append(host_ports.hold(ip, port, port, protocol))
                except BoxshipError as error:
                    # Somebody took it while no engine held it; the translation comes first and stays.
                    log.warning("container %s: %s", record.Name, error)
        held.published = bool(held.ports)
        self._held[record.Id] = held
        self._ready = False  # the next _ensure makes the table with these
        await self._ensure()

    async def close(self, *, running: bool) -> None:
        """The engine ends; with nothing running, nothing of the networks stays on the host."""
        if self._ready and not running:
            await self._in_worker(self._bridge.remove)
        for held in self._held.values():
            for taken in held.sockets:
                taken.release()
        self._worker.shutdown(wait=True)

    # -- documents

    def documents(self, records: list[Record]) -> list[dict[str, Any]]:
        return [self.document(name, records) for name in BUILT_IN]

    def document(self, reference: str, records: list[Record]) -> dict[str, Any]:
        """``GET /networks/{id}``; raises NotFound."""
        ids = self._settings.ids
        name = reference
        if name not in BUILT_IN:
            found = [n for n, id in ids.items() if reference and id.startswith(reference)]
            if len(found) != 1:
                raise NotFound(f"network {reference} not found")
            name = found[0]
        config = []
        options: dict[str, str] = {}
        if name == "bridge":
            config = [{"Subnet": str(self._bridge.network), "Gateway": str(self._bridge.gateway)}]
            options = {
                "com.docker.network.bridge.default_bridge": "true",
                "com.docker.network.bridge.enable_icc": "true",
                "com.docker.network.bridge.enable_ip_masquerade": "true",
                "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
                "com.docker.network.bridge.name": self._bridge.name,
                "com.docker.network.driver.mtu": "1500",
            }
        containers = {}
        for record in records:
            endpoint = record.Networks.get(name)
            if record.State.Running and endpoint is not None:
                address = f"{endpoint.IPAddress}/{endpoint.IPPrefixLen}" if endpoint.IPAddress else ""
                containers[record.Id] = {
                    "Name": record.Name,
                    "EndpointID": endpoint.EndpointID,
                    "MacAddress": endpoint.MacAddress,
                    "IPv4Address": address,
                    "IPv6Address": "",
                }
        return {
            "Name": name,
            "Id": ids[name],
            "Created": self._settings.created,
            "Scope": "local",
            "Driver": BUILT_IN[name],
            "EnableIPv4": True,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": config},
            "Internal": False,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": containers,
            "Options": options,
            "Labels": {},
        }


class PortInUse(AlreadyExists):
    """A published port is taken; dockerd answers 500, and so do we, because clients tell it from a name conflict."""

    http_status = 500


def bridge_name(data_root: Path) -> str:
    """``boxship0`` for the default data root, else one of its own (interface names have 15 characters)."""
    if data_root == EngineConfig().data_root:
        return "boxship0"
    return f"boxship-{hashlib.sha256(str(data_root).encode()).hexdigest()[:6]}"
