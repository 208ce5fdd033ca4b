"""The client of the Docker Engine API: ours, dockerd's, or podman's, over unix sockets, TCP and TLS."""

from .address import Address, parse_address
from .client import Client, EngineError, Hijacked, Response

__all__ = ["Address", "Client", "EngineError", "Hijacked", "Response", "parse_address"]
