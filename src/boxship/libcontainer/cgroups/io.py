"""Block I/O counters: blkio on v1, io on v2.  Limits come later.

Each entry is ``(major, minor, read bytes, written bytes, read operations, write operations)``.
"""

from .writes import Read

TYPE_CHECKING = False
if TYPE_CHECKING:
    Entry = tuple[int, int, int, int, int, int]


def _v1_file(text: str) -> "dict[tuple[int, int], tuple[int, int]]":
    found: dict[tuple[int, int], list[int]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] in ("Read", "Write"):
            major, _, minor = words[0].partition(":")
            pair = found.setdefault((int(major), int(minor)), [0, 0])
            pair[words[1] == "Write"] = int(words[2])
    return {device: (pair[0], pair[1]) for device, pair in found.items()}


def stats_v1(read: Read) -> "list[Entry]":
    sizes = _v1_file(read("blkio", "blkio.throttle.io_service_bytes_recursive"))
    counts = _v1_file(read("blkio", "blkio.throttle.io_serviced_recursive"))
    return [(*device, *size, *counts.get(device, (0, 0))) for device, size in sorted(sizes.items())]


def stats_v2(read: Read) -> "list[Entry]":
    entries: list[Entry] = []
    for line in read("io", "io.stat").splitlines():
        device, *words = line.split()
        major, _, minor = device.partition(":")
        values = dict(word.split("=", 1) for word in words if "=" in word)
        entries.append(
            (
                int(major),
                int(minor),
                int(values.get("rbytes", 0)),
                int(values.get("wbytes", 0)),
                int(values.get("rios", 0)),
                int(values.get("wios", 0)),
            )
        )
    return entries
