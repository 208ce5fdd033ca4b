"""Block I/O: runtime-spec ``linux.resources.blockIO`` and its counters; blkio on v1, io on v2.

Kernel: admin-guide/cgroup-v1/blkio-controller.rst, block/bfq-iosched.rst, cgroup-v2.rst section IO.
Weights belong to the scheduler: bfq has its own files, and a v1 kernel without CFQ (5.0) has no others.
"""

from errno import ENOENT

from boxship.errors import InvalidArgument

from .writes import Read, Write, device, needed, number, objects, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Entry: TypeAlias = "tuple[int, int, int, int, int, int]"
    Row: TypeAlias = "tuple[int, int, str, int]"

# (spec key, v1 file, v2 word)
THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
)
LEAST_WEIGHT, MOST_WEIGHT = 10, 1000


def _weight(object: "dict[str, object]", name: str, key: str) -> int:
    """A weight, 0 when there is none; raises InvalidArgument outside the spec's range."""
    value = number(object, name, key)
    if value and not LEAST_WEIGHT <= value <= MOST_WEIGHT:
        raise InvalidArgument(f"linux.resources.{name}.{key} must be {LEAST_WEIGHT} to {MOST_WEIGHT}, not {value}")
    return value or 0


def v1(resources: "dict[str, object]", read: Read) -> "list[Write]":
    block = table(resources, "blockIO")
    if not block:
        return []
    writes: list[Write] = []
    weight = _weight(block, "blockIO", "weight")
    leaf = _weight(block, "blockIO", "leafWeight")
    devices = list(objects(block.get("weightDevice"), "blockIO.weightDevice"))
    prefix = "blkio." if not (weight or devices) or read("blkio", "blkio.weight") else "blkio.bfq."
    if weight:
        writes.append(("blkio", prefix + "weight", str(weight)))
    if leaf:
        writes.append(("blkio", "blkio.leaf_weight", str(leaf)))
    for path, rule in devices:
        for key, file in (("weight", prefix + "weight_device"), ("leafWeight", "blkio.leaf_weight_device")):
            value = _weight(rule, path, key)
            if value:
                writes.append(("blkio", file, f"{device(rule, path)} {value}"))
    for key, file, _ in THROTTLES:
        for path, rule in objects(block.get(key), f"blockIO.{key}"):
            writes.append(("blkio", file, f"{device(rule, path)} {needed(rule, path, 'rate')}"))
    return writes


def io_weight(weight: int) -> int:
    """v1's weight (10 to 1000) as io.weight (1 to 10000), in a straight line."""
    return 1 + (weight - LEAST_WEIGHT) * 9999 // 990


def v2(resources: "dict[str, object]", read: Read) -> "list[Write]":
    block = table(resources, "blockIO")
    if not block:
        return []
    writes: list[Write] = []
    weight = _weight(block, "blockIO", "weight")
    devices = list(objects(block.get("weightDevice"), "blockIO.weightDevice"))
    bfq = read("io", "io.bfq.weight") if weight or devices else ""
    if weight:
        file, value = ("io.bfq.weight", weight) if bfq else ("io.weight", io_weight(weight))
        writes.append(("io", file, str(value)))
    for path, rule in devices:
        value = _weight(rule, path, "weight")
        # bfq has weights by device since Linux 5.4; its file then begins with the word "default".
        if value and bfq.startswith("default"):
            writes.append(("io", "io.bfq.weight", f"{device(rule, path)} {value}"))
        elif value:
            writes.append(("io", "io.weight", f"{device(rule, path)} {io_weight(value)}", (ENOENT,)))
    for key, _, word in THROTTLES:
        for path, rule in objects(block.get(key), f"blockIO.{key}"):
            rate = needed(rule, path, "rate")
            writes.append(("io", "io.max", f"{device(rule, path)} {word}={rate or 'max'}"))
    return writes


# ── Counters ──

# v1's tables, by the name that runc's events have; bfq's files first, as they are exact where bfq is in use.
TABLES = {
    "ioServiceBytesRecursive": "io_service_bytes_recursive",
    "ioServicedRecursive": "io_serviced_recursive",
    "ioQueueRecursive": "io_queued_recursive",
    "ioServiceTimeRecursive": "io_service_time_recursive",
    "ioWaitTimeRecursive": "io_wait_time_recursive",
    "ioMergedRecursive": "io_merged_recursive",
    "ioTimeRecursive": "time_recursive",
    "sectorsRecursive": "sectors_recursive",
}
_PREFIXES = ("blkio.bfq.", "blkio.", "blkio.throttle.")


def _rows(text: str) -> "list[Row]":
    """(major, minor, operation, value) of each line but the totals."""
    rows = []
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if len(words) == 4:
            rows.append((int(words[0]), int(words[1]), words[2], int(words[3])))
        elif len(words) == 3 and words[0].isdigit():
            rows.append((int(words[0]), int(words[1]), "", int(words[2])))
    return rows


def tables_v1(read: Read) -> "dict[str, list[Row]]":
    """runc's tables by name, those that are not empty."""
    found = {}
    for name, file in TABLES.items():
        for prefix in _PREFIXES:
            rows = _rows(read("blkio", prefix + file))
            if rows:
                found[name] = rows
                break
    return found


_V2_WORDS = (
    ("rbytes", "ioServiceBytesRecursive", "Read"),
    ("wbytes", "ioServiceBytesRecursive", "Write"),
    ("rios", "ioServicedRecursive", "Read"),
    ("wios", "ioServicedRecursive", "Write"),
)


def _v2_lines(read: Read) -> "list[tuple[int, int, dict[str, str]]]":
    lines = []
    for line in read("io", "io.stat").splitlines():
        name, *words = line.split()
        major, _, minor = name.partition(":")
        lines.append((int(major), int(minor), dict(word.split("=", 1) for word in words if "=" in word)))
    return lines


def tables_v2(read: Read) -> "dict[str, list[Row]]":
    """io.stat in the form of v1's tables."""
    found: dict[str, list[Row]] = {}
    for major, minor, values in _v2_lines(read):
        for word, name, operation in _V2_WORDS:
            if word in values:
                found.setdefault(name, []).append((major, minor, operation, int(values[word])))
    return found


def stats_v1(read: Read) -> "list[Entry]":
    """(major, minor, read bytes, written bytes, read operations, write operations) of each device."""
    sizes, counts = (
        _by_device(_rows(read("blkio", f"blkio.throttle.{file}")))
        for file in ("io_service_bytes_recursive", "io_serviced_recursive")
    )
    return [(*device, *size, *counts.get(device, (0, 0))) for device, size in sorted(sizes.items())]


def _by_device(rows: "list[Row]") -> "dict[tuple[int, int], tuple[int, int]]":
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for major, minor, operation, value in rows:
        if operation in ("Read", "Write"):
            reads, writes = found.get((major, minor), (0, 0))
            found[major, minor] = (value, writes) if operation == "Read" else (reads, value)
    return found


def stats_v2(read: Read) -> "list[Entry]":
    """As ``stats_v1``."""
    return [
        (major, minor, *(int(values.get(word, 0)) for word in ("rbytes", "wbytes", "rios", "wios")))  # type: ignore[misc]  # four of them
        for major, minor, values in _v2_lines(read)
    ]
