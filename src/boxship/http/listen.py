"""Where a server listens: TCP addresses as people write them."""

from __future__ import annotations

import socket

from boxship.errors import BoxshipError, InvalidArgument

BACKLOG = 512


def tcp_listener(address: str, *, default_port: int) -> socket.socket:
    """A listening socket for ``HOST:PORT``, ``HOST``, ``:PORT`` or ``[HOST6]:PORT``; no host is loopback.

    Raises InvalidArgument (no such address), BoxshipError (the port is taken).
    """
    host, colon, port = address.rpartition(":")
    if not colon:
        host, port = port, str(default_port)
    host = host.strip("[]")
    if not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(f"invalid host tcp://{address}: {port!r} is not a port")
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host or "127.0.0.1", int(port)))
    except OSError as error:
        bound.close()
        raise BoxshipError(f"listen on tcp://{address}", cause=error.strerror or str(error)) from error
    bound.listen(BACKLOG)
    bound.setblocking(False)
    return bound
