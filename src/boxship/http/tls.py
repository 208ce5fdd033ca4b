"""TLS for the engine's connections that can be half closed.

asyncio's own ends the whole connection when the client's ``close_notify`` comes.  The docker CLI sends it as soon as
its input has ended, and waits for the container's output: with asyncio's, every ``docker run`` over TLS lost it.
Here the end of the client's side is ``eof_received`` of the protocol inside, which goes on writing, as over a socket
without TLS.  An ``ssl.SSLObject`` with two memory buffers does the cryptography (ssl.SSLObject is sans-I/O).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import cast

log = logging.getLogger("boxship.http")

CHUNK = 64 * 1024
HANDSHAKE = 30.0  # seconds that a client has for it


class _Inner(asyncio.Transport):
    """What the protocol inside writes to: everything is encrypted on its way out."""

    def __init__(self, owner: TlsProtocol, transport: asyncio.Transport) -> None:
        super().__init__()
        self._owner = owner
        self._transport = transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._owner.encrypt(data)

    def close(self) -> None:
        self._owner.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)


class TlsProtocol(asyncio.Protocol):
    """The protocol of a socket; ``inside`` is that of the plain text, and is connected after the handshake."""

    def __init__(self, context: ssl.SSLContext, inside: asyncio.Protocol) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._inside = inside
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._shaken = False
        self._ended = False  # the client sends no more

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its base class
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        try:
            if self._shaken or self._handshake():
                self._decrypt()
        except ssl.SSLError as error:
            log.debug("TLS: %s", error)
            self._flush()  # the alert that tells the client why
            if self._transport is not None:
                self._transport.close()

    def eof_received(self) -> bool:
        return self._shaken and self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._deadline is not None:
            self._deadline.cancel()
        if self._shaken:
            self._inside.connection_lost(error)

    def pause_writing(self) -> None:
        if self._shaken:
            self._inside.pause_writing()

    def resume_writing(self) -> None:
        if self._shaken:
            self._inside.resume_writing()

    # -- inside

    def _handshake(self) -> bool:
        """True when it is done; raises SSLError when it failed."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        self._flush()
        self._shaken = True
        if self._deadline is not None:
            self._deadline.cancel()
        assert self._transport is not None
        self._inside.connection_made(_Inner(self, self._transport))
        return True

    def _decrypt(self) -> None:
        while not self._ended:
            try:
                data = self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            if data:
                self._inside.data_received(data)
            elif not self._end():
                self.close()
        self._flush()  # what the protocol itself answers: key updates

    def _end(self) -> bool:
        """The client's side has ended; whether ours stays open."""
        if self._ended:
            return True
        self._ended = True
        return bool(self._inside.eof_received())

    # -- what the transport inside calls

    def encrypt(self, data: bytes | bytearray | memoryview) -> None:
        """Send plain text."""
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        self._flush()

    def close(self) -> None:
        """Say that no more comes, and close when all is sent; repeated is fine."""
        if self._transport is None or self._transport.is_closing():
            return
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # the client has not said the same yet: nobody waits for that
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
