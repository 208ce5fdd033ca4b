"""One bridge network: its link, its translation table, and containers attached to it.

What is made on the host: the bridge, one nftables table of the same name, and a veth pair for each running container,
which goes with the container's network namespace by itself (deleting a link would block for 20 ms).
Everything here blocks for about a millisecond: call it from a worker thread.
"""

from __future__ import annotations

import os
import secrets
import socket
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from boxship.errors import AlreadyExists, NotFound, PermissionDenied
from boxship.linux.namespaces import inside_network_namespace

from . import links, nftables
from .netlink import NETLINK_ROUTE, Socket
from .nftables import Port

INTERFACE = "eth0"


class Bridge:
    """``ensure`` before anything else; ``remove`` when nothing runs on it any more."""

    def __init__(self, name: str, gateway: IPv4Address, network: IPv4Network) -> None:
        self.name = name
        self.gateway = gateway
        self.network = network
        self._index = 0

    def ensure(self, ports: list[Port]) -> None:
        """Make what is missing, and the table anew with the ports that are published now.

        Raises PermissionDenied without CAP_NET_ADMIN.
        """
        with Socket(NETLINK_ROUTE) as netlink:
            try:
                netlink.run([links.bridge(self.name)])
            except AlreadyExists:
                netlink.run([links.set_up(self.name)])
            self._index = socket.if_nametoindex(self.name)
            try:
                netlink.run([links.address(self._index, self.gateway, self.network, self.name)])
            except AlreadyExists:
                pass  # an earlier engine's bridge
        for path, value in (
            ("net/ipv4/ip_forward", "1"),
            # packets from 127.0.0.1 to a published port leave through the bridge
            (f"net/ipv4/conf/{self.name}/route_localnet", "1"),
        ):
            file = Path("/proc/sys", path)
            if file.read_text().strip() == value:
                continue
            try:
                file.write_text(value)
            except OSError as error:
                raise PermissionDenied(f"set {path} to {value}", cause=str(error)) from error
        nftables.set_up(self.name, self.name, self.network, ports)
        nftables.accept_forwarding(self.name)

    def remove(self) -> None:
        """Take the table and the bridge away; repeated is fine."""
        nftables.refuse_forwarding(self.name)
        nftables.tear_down(self.name)
        with Socket(NETLINK_ROUTE) as netlink:
            try:
                netlink.run([links.delete(self.name)])
            except NotFound:
                return

    def mac(self, ip: IPv4Address) -> str:
        """The address that a container's interface gets: locally administered, derived from its IP."""
        return "02:42:" + ":".join(f"{byte:02x}" for byte in ip.packed)

    def connect(self, pid: int, ip: IPv4Address) -> str:
        """Wire the network namespace of ``pid``: interface, address, default route. Gives our end's name."""
        name = f"veth{secrets.token_hex(4)}"
        mac = bytes.fromhex(self.mac(ip).replace(":", ""))
        with Socket(NETLINK_ROUTE) as netlink:
            netlink.run(links.veth(name, self._index, INTERFACE, pid, mac))
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with inside_network_namespace(namespace):
                index = socket.if_nametoindex(INTERFACE)
                inner = Socket(NETLINK_ROUTE)
        finally:
            os.close(namespace)
        with inner:
            inner.run(
                [
                    links.set_up(INTERFACE),
                    links.address(index, ip, self.network, INTERFACE),
                    links.default_route(index, self.gateway),
                ]
            )
        return name

    def publish(self, ports: list[Port]) -> None:
        nftables.publish(self.name, ports)

    def unpublish(self, ports: list[Port]) -> None:
        nftables.unpublish(self.name, ports)
