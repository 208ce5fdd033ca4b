"""The addresses of one bridge: handed out in a circle, so that one that was given back rests as long as possible.

A veth pair outlives its container for a moment, and neighbours remember whose an address was.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from boxship.errors import AlreadyExists, InvalidArgument, ResourceExhausted

CANDIDATES = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(30, 32)),
    *(IPv4Network(f"10.{second}.0.0/16") for second in range(201, 255)),
    *(IPv4Network(f"192.168.{third}.0/20") for third in range(0, 256, 16)),
)


def free_network(used: Iterable[IPv4Network]) -> IPv4Network:
    """The first candidate that overlaps nothing that the host routes; raises ResourceExhausted."""
    taken = list(used)
    for candidate in CANDIDATES:
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise ResourceExhausted("no private IPv4 network is free for the bridge", remedy="choose one with --bip")


class Pool:
    """Addresses of ``network`` but for its first (the gateway) and the broadcast one."""

    def __init__(self, network: IPv4Network, gateway: IPv4Address) -> None:
        self.network = network
        self._taken = {gateway, network.network_address, network.broadcast_address}
        self._next = int(gateway) + 1

    def take(self, wanted: IPv4Address | None = None) -> IPv4Address:
        """The next free address, or the ``wanted`` one; raises ResourceExhausted, AlreadyExists, InvalidArgument."""
        if wanted is not None:
            if wanted not in self.network:
                raise InvalidArgument(f"address {wanted} is not in the network {self.network}")
            if wanted in self._taken:
                raise AlreadyExists(f"address {wanted} is in use")
            self._taken.add(wanted)
            return wanted
        first, last = int(self.network.network_address), int(self.network.broadcast_address)
        for _ in range(first, last + 1):
            if not first <= self._next <= last:
                self._next = first
            address = IPv4Address(self._next)
            self._next += 1
            if address not in self._taken:
                self._taken.add(address)
                return address
        raise ResourceExhausted(f"every address of {self.network} is in use", remedy="remove containers")

    def give_back(self, address: IPv4Address) -> None:
        self._taken.discard(address)
