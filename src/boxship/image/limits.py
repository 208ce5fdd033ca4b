"""How much a layer may make: the bounds against archive bombs.

A few kilobytes of zstd or gzip can promise terabytes, and a header without data costs an inode. The defaults are far
above any image known; who unpacks strangers' images sets lower ones. A layer that passes a bound fails with
ResourceExhausted, which names the bound, before the bytes or the inode beyond it are made.
"""

from dataclasses import dataclass

from boxship.errors import ResourceExhausted


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one layer: ``size`` counts the bytes of its inflated tar, ``file_size`` those of one file (holes included),
    ``entries`` its members, ``ratio`` how many bytes one compressed byte may become once ``ratio_after`` bytes have
    been made (deflate cannot pass 1032, honest zstd layers of zeros can)."""

    size: int = 1 << 40
    file_size: int = 1 << 40
    entries: int = 10_000_000
    ratio: int = 20_000
    ratio_after: int = 4 << 30
    depth: int = 1024
    """How many directories deep a name may be."""

    def check_size(self, made: int, taken: int, what: str) -> None:
        """``taken`` compressed bytes have become ``made``."""
        if made > self.size:
            raise _too_much(what, "size", f"its tar is larger than {self.size} bytes")
        if made > self.ratio_after and made > taken * self.ratio:
            raise _too_much(what, "ratio", f"{taken} bytes become more than {made}: it looks like an archive bomb")

    def check_file(self, name: str, size: int, what: str) -> None:
        if size > self.file_size:
            raise _too_much(what, "file_size", f"{name!r} has {size} bytes, more than {self.file_size}")

    def check_entries(self, count: int, what: str) -> None:
        if count > self.entries:
            raise _too_much(what, "entries", f"it has more than {self.entries} entries")


def _too_much(what: str, limit: str, cause: str) -> ResourceExhausted:
    return ResourceExhausted(
        f"{what} passes the limit {limit!r}", cause=cause, remedy=f"raise Limits({limit}=...) if you trust this image"
    )


DEFAULT = Limits()
