"""The shim's log writer: docker's json-file format, one JSON object a line, with rotation.

::

    {"log":"hello\\n","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}

Output is cut into lines; a line of 16 KiB or more is cut into pieces, of which only the last ends in ``\\n``
(moby daemon/logger/copier.go).  Blocks of lines that need no escape, which is most, are put into the template at
once by one replace; others go line by line, which is five times slower.  All lines that one read brought share
its time.
"""

import os
from _json import encode_basestring
from time import gmtime, strftime, time_ns

PIECE = 16 * 1024
"""Bytes; docker's copier reads into a buffer of this size."""
_PLAIN = bytes(n for n in range(0x20, 0x7F) if n not in b'"\\')
"""What JSON takes as it is."""


class JsonFile:
    """Writes the lines of a container's streams to ``path``.

    ``max_size`` (bytes, 0 for no limit) is the size that starts a new file; ``max_files`` counts the current
    one, older ones are ``path.1`` (newest) and so on; with 1 the file starts over.
    A full disk loses lines and counts them in ``lost``; it never stops the container.
    """

    def __init__(
        self, path: str, *, max_size: int = 0, max_files: int = 1, attrs: "dict[str, str] | None" = None
    ) -> None:
        self.path = path
        self.lost = 0
        self._max_size = max_size
        self._max_files = max(1, max_files)
        self._attrs = ""
        if attrs:
            pairs = [encode_basestring(key) + ":" + encode_basestring(attrs[key]) for key in sorted(attrs)]
            self._attrs = ',"attrs":{' + ",".join(pairs) + "}"
        self._rest: dict[str, bytes] = {}
        self._second = 0
        self._second_text = ""
        self._fd = self._open()

    def _open(self) -> int:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(fd).st_size
        return fd

    def write(self, stream: str, data: bytes) -> None:
        """``data`` as it came from ``stream`` (``stdout`` or ``stderr``); an unfinished line is kept back."""
        rest = self._rest.get(stream)
        if rest:
            data = rest + data
        pos, end = 0, len(data)
        out = []
        tail = self._tail(stream)
        while True:
            # Hop from newline to newline, as far as no line is longer than a piece.
            cut = pos
            while hop := data.rfind(b"\n", cut, cut + PIECE) + 1:
                cut = hop
            if cut > pos:
                out.append(self._lines(data[pos:cut], tail))
                pos = cut
            elif end - pos >= PIECE:
                out.append(b'{"log":' + _escape(data[pos : pos + PIECE]) + tail[1:])
                pos += PIECE
            else:
                break
        self._rest[stream] = data[pos:]
        if out:
            self._append(b"".join(out))

    def finish(self, stream: str) -> None:
        """The stream ended; what has no newline is written without one."""
        rest = self._rest.pop(stream, b"")
        if rest:
            self._append(b'{"log":' + _escape(rest) + self._tail(stream)[1:])

    def close(self) -> None:
        """Write what is kept back and close the file.  Closing twice is fine."""
        for stream in list(self._rest):
            self.finish(stream)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _tail(self, stream: str) -> bytes:
        """What comes after the text of each line."""
        seconds, nanos = divmod(time_ns(), 1_000_000_000)
        if seconds != self._second:
            self._second = seconds
            self._second_text = strftime("%Y-%m-%dT%H:%M:%S.", gmtime(seconds))
        stamp = self._second_text + str(nanos).zfill(9)
        return ('","stream":"' + stream + '"' + self._attrs + ',"time":"' + stamp + 'Z"}\n').encode()

    @staticmethod
    def _lines(block: bytes, tail: bytes) -> bytes:
        """A block of complete lines as JSON lines."""
        strange = block.translate(None, _PLAIN)
        if strange.count(b"\n") == len(strange):
            # Nothing needs an escape but the newlines, which are template anyway.
            return b'{"log":"' + block[:-1].replace(b"\n", b"\\n" + tail + b'{"log":"') + b"\\n" + tail
        return b"".join([b'{"log":' + _escape(line + b"\n") + tail[1:] for line in block[:-1].split(b"\n")])

    def _append(self, data: bytes) -> None:
        if self._fd < 0:
            return
        if not self._max_size or self._size + len(data) <= self._max_size:
            self._put(data)
            return
        for line in data.splitlines(keepends=True):
            if self._size and self._size + len(line) > self._max_size:
                self._rotate()
            self._put(line)

    def _put(self, data: bytes) -> None:
        try:
            while data:
                written = os.write(self._fd, data)
                self._size += written
                data = data[written:]
        except OSError:
            self.lost += data.count(b"\n")

    def _rotate(self) -> None:
        os.close(self._fd)
        try:
            if self._max_files == 1:
                os.truncate(self.path, 0)
            for number in range(self._max_files - 1, 0, -1):
                older = self.path + "." + str(number - 1) if number > 1 else self.path
                try:
                    os.rename(older, self.path + "." + str(number))
                except FileNotFoundError:
                    continue  # not that many files yet
        finally:
            self._fd = self._open()


def _escape(data: bytes) -> bytes:
    """A JSON string, quotes included; bytes that are not UTF-8 become U+FFFD, as docker does."""
    return encode_basestring(data.decode("utf-8", "replace")).encode()
