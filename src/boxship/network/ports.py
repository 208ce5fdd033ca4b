"""Host ports of published container ports: chosen, and held by a bound socket so that nobody else takes them."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

from boxship.errors import AlreadyExists, FailedPrecondition, InvalidArgument, ResourceExhausted

TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Held:
    """One held host port; ``release`` gives it back."""

    def __init__(self, ip: IPv4Address, port: int, protocol: str, bound: socket.socket) -> None:
        self.ip = ip
        self.port = port
        self.protocol = protocol
        self._bound = bound

    def release(self) -> None:
        self._bound.close()


def host_address(text: str) -> IPv4Address:
    """A binding's host address, 0.0.0.0 when empty; raises InvalidArgument."""
    try:
        address = ip_address(text or "0.0.0.0")
    except ValueError:
        raise InvalidArgument(f"invalid host IP address {text!r} of a published port") from None
    if isinstance(address, IPv6Address):
        raise FailedPrecondition(f"publish on {text}: publishing on IPv6 addresses is not supported")
    return address


def _bind(ip: IPv4Address, port: int, protocol: str) -> socket.socket:
    bound = socket.socket(socket.AF_INET, TYPES[protocol])
    try:
        bound.bind((str(ip), port))
    except OSError:
        bound.close()
        raise
    return bound


def hold(ip: IPv4Address, first: int, last: int, protocol: str) -> Held:
    """Take the first free port of a range, 0 for one that the kernel picks.

    Raises AlreadyExists when the one port is taken, ResourceExhausted when all of several are, InvalidArgument
    for an address that this host does not have.
    """
    if protocol not in TYPES:
        raise FailedPrecondition(f"publish a port of protocol {protocol}: only tcp and udp are supported")
    for port in range(first, last + 1):
        try:
            bound = _bind(ip, port, protocol)
        except OSError as error:
            if error.errno == 98:  # EADDRINUSE
                continue
            if error.errno == 99:  # EADDRNOTAVAIL
                raise InvalidArgument(f"publish on {ip}:{port}: this host does not have the address {ip}") from error
            raise FailedPrecondition(f"publish on {ip}:{port}/{protocol}", cause=error.strerror or "") from error
        return Held(ip, bound.getsockname()[1], protocol, bound)
    if first == last:
        raise AlreadyExists(f"Bind for {ip}:{first} failed: port is already allocated")
    raise ResourceExhausted(f"publish on {ip}: every port from {first} to {last} is already allocated")
