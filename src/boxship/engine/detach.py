"""The key sequence that detaches a terminal: ``ctrl-p,ctrl-q`` unless the client asks for another.

The docker CLI watches for it itself; other clients (docker-py, a browser) leave it to the engine.
"""

from __future__ import annotations

from boxship.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"


def key_codes(text: str) -> bytes:
    """``a``, ``ctrl-a`` to ``ctrl-z``, ``ctrl-@ ctrl-[ ctrl-\\ ctrl-] ctrl-^ ctrl-_``, joined by commas."""
    codes = bytearray()
    for key in (text or DEFAULT).split(","):
        if len(key) == 1 and key.isascii():
            codes.append(ord(key))
        elif key.startswith("ctrl-") and len(key) == 6 and key[5].lower() in "abcdefghijklmnopqrstuvwxyz@[\\]^_":
            codes.append(ord(key[5].upper()) & 0x1F)
        else:
            raise InvalidArgument(f"Invalid detach keys ({text}) provided: {key!r} is not a key")
    return bytes(codes)


class DetachWatcher:
    """Filters a client's input: ``feed`` gives what goes to the process, ``detached`` turns true at the sequence.

    A begun sequence is held back until it turns out to be none.
    """

    def __init__(self, codes: bytes) -> None:
        self._codes = codes
        self._held = b""
        self.detached = False

    def feed(self, data: bytes) -> bytes:
        passed = bytearray()
        for position in range(len(data)):
            key = data[position : position + 1]
            if self.detached:
                break
            self._held += key
            if self._held == self._codes:
                self.detached = True
                self._held = b""
            elif not self._codes.startswith(self._held):
                # What was held is no sequence; its tail may begin one.
                while self._held and not self._codes.startswith(self._held):
                    passed += self._held[:1]
                    self._held = self._held[1:]
        return bytes(passed)
