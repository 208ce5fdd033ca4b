"""HPACK (RFC 7541): how HTTP/2 packs header lists. A decoder, and the few fixed blocks that a server answers.

The decoder keeps the connection's dynamic table. Huffman-coded strings are decoded bit by bit once and then
remembered, because every client of ours sends the same few over and over.
"""

from collections import deque

from boxship.errors import PeerError

TABLE_SIZE = 4096  # of the dynamic table, the default of SETTINGS_HEADER_TABLE_SIZE, which we do not change
_ENTRY_OVERHEAD = 32  # RFC 7541, section 4.1
_REMEMBERED = 4096

# RFC 7541, appendix A: index 1 is the first.
_STATIC: "tuple[tuple[str, str], ...]" = (
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
)

# RFC 7541, appendix B: the length in bits of each byte's code. The code is canonical (equal lengths count up in
# order of the bytes), so the lengths are all there is to it. The end-of-string symbol has 30 bits.
_HUFFMAN_LENGTHS = """
    13 23 28 28 28 28 28 28 28 24 30 28 28 30 28 28 28 28 28 28 28 28 30 28 28 28 28 28 28 28 28 28
    6 10 10 12 13 6 8 11 10 10 8 11 8 6 6 6 5 5 5 6 6 6 6 6 6 6 7 8 15 6 12 10
    13 6 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 8 7 8 13 19 13 14 6
    15 5 6 5 6 5 6 6 6 5 7 7 6 6 6 5 6 7 6 5 5 6 7 7 7 7 7 15 11 14 13 28
    20 22 20 20 22 22 22 23 22 23 23 23 23 23 24 23 24 24 22 23 24 23 23 23 23 21 22 23 22 23 23 24
    22 21 20 22 22 23 23 21 23 22 22 24 21 22 23 23 21 21 22 21 23 22 23 23 20 22 22 22 23 22 22 23
    26 26 20 19 22 23 22 25 26 26 26 27 27 26 24 25 19 21 26 27 27 26 27 24 21 21 26 26 28 27 27 27
    20 24 20 21 22 21 21 23 22 22 25 25 24 24 26 23 26 27 26 26 27 27 27 27 27 28 27 27 27 27 27 26
"""


def _huffman() -> "dict[int, int]":
    """Code with a 1 in front of it -> byte; 256 is the end-of-string symbol."""
    lengths = [*map(int, _HUFFMAN_LENGTHS.split()), 30]
    table: dict[int, int] = {}
    code = previous = 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths)):
        code <<= length - previous
        previous = length
        table[1 << length | code] = symbol
        code += 1
    return table


_CODES = _huffman()
_remembered: "dict[bytes, str]" = {}


def huffman_decode(data: bytes) -> str:
    """Raises PeerError for padding that is not the beginning of the end-of-string symbol."""
    known = _remembered.get(data)
    if known is not None:
        return known
    out = bytearray()
    code = 1
    for byte in data:
        for shift in (7, 6, 5, 4, 3, 2, 1, 0):
            code = code << 1 | byte >> shift & 1
            symbol = _CODES.get(code)
            if symbol is not None:
                if symbol == 256:
                    raise PeerError("hpack: end-of-string symbol inside a string")
                out.append(symbol)
                code = 1
    if code.bit_length() > 8 or code & code + 1:
        raise PeerError("hpack: bad padding of a Huffman-coded string")
    text = _text(bytes(out))
    if len(_remembered) >= _REMEMBERED:
        _remembered.clear()
    _remembered[bytes(data)] = text
    return text


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


class Decoder:
    """One direction of one connection. Any error is a PeerError and ends the connection (section 4.3.3)."""

    def __init__(self) -> None:
        self._dynamic: "deque[tuple[str, str]]" = deque()
        self._size = 0
        self._limit = TABLE_SIZE

    def decode(self, block: bytes) -> "list[tuple[str, str]]":
        headers: list[tuple[str, str]] = []
        at = 0
        try:
            while at < len(block):
                first = block[at]
                if first & 0x80:
                    index, at = _integer(block, at, 7)
                    headers.append(self._entry(index))
                elif first & 0xE0 == 0x20:
                    limit, at = _integer(block, at, 5)
                    if limit > TABLE_SIZE:
                        raise PeerError("hpack: dynamic table larger than agreed")
                    self._limit = limit
                    self._evict()
                else:
                    indexed = first & 0xC0 == 0x40
                    index, at = _integer(block, at, 6 if indexed else 4)
                    if index:
                        name = self._entry(index)[0]
                    else:
                        name, at = _string(block, at)
                    value, at = _string(block, at)
                    headers.append((name, value))
                    if indexed:
                        self._dynamic.appendleft((name, value))
                        self._size += len(name) + len(value) + _ENTRY_OVERHEAD
                        self._evict()
        except IndexError:
            raise PeerError("hpack: the header block is cut short") from None
        return headers

    def _entry(self, index: int) -> "tuple[str, str]":
        if 1 <= index <= len(_STATIC):
            return _STATIC[index - 1]
        place = index - len(_STATIC) - 1
        if not 0 <= place < len(self._dynamic):
            raise PeerError(f"hpack: no header with index {index}")
        return self._dynamic[place]

    def _evict(self) -> None:
        while self._size > self._limit:
            name, value = self._dynamic.pop()
            self._size -= len(name) + len(value) + _ENTRY_OVERHEAD


def _integer(block: bytes, at: int, prefix: int) -> "tuple[int, int]":
    mask = (1 << prefix) - 1
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 28:
            raise PeerError("hpack: an integer is too large")


def _string(block: bytes, at: int) -> "tuple[str, int]":
    huffman = block[at] & 0x80
    length, at = _integer(block, at, 7)
    end = at + length
    if end > len(block):
        raise PeerError("hpack: a string is cut short")
    data = block[at:end]
    return (huffman_decode(data) if huffman else _text(data)), end


def literal(name: str, value: str) -> bytes:
    """A header that enters no table (section 6.2.2): decoders need to remember nothing."""
    return b"\0" + _plain(name) + _plain(value)


def _plain(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    length = len(data)
    if length < 127:
        return bytes((length,)) + data
    out = bytearray((127,))
    length -= 127
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    return bytes(out) + data
