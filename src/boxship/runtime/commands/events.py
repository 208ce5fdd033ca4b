"""``events``: a container's counters as JSON lines, in runc's layout; ``--stats`` prints one and ends."""

from time import sleep

from boxship.errors import InvalidArgument
from boxship.libcontainer.container import STOPPED, Container
from boxship.oci import cold_json

from ..main import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """A Go duration of one unit, like 5s or 100ms."""
    for unit in ("ms", "s", "m", "h"):
        number = text.removesuffix(unit)
        if number != text:
            try:
                value = float(number) * UNITS[unit]
            except ValueError:
                continue
            if value > 0:
                return value
    raise InvalidArgument(f"--interval {text!r}: must be a duration like 5s, above zero")


def reading(container: Container) -> "dict[str, Any]":
    """One reading, with runc's names."""
    stats = container.stats()
    entries: dict[str, list[dict[str, Any]]] = {}
    for entry in stats.io:
        major, _, minor = str(getattr(entry, "device", "0:0")).partition(":")
        for op in ("read", "write"):
            value = getattr(entry, f"{op}_bytes", None)
            if value is not None:
                entries.setdefault("ioServiceBytesRecursive", []).append(
                    {"major": int(major or 0), "minor": int(minor or 0), "op": op.title(), "value": value}
                )
    detail = stats.memory.detail
    return {
        "type": "stats",
        "id": container.id,
        "data": {
            "cpu": {
                "usage": {"total": stats.cpu.total, "kernel": stats.cpu.system, "user": stats.cpu.user},
                "throttling": {
                    "periods": stats.cpu.periods,
                    "throttledPeriods": stats.cpu.throttled_periods,
                    "throttledTime": stats.cpu.throttled_time,
                },
            },
            "memory": {
                "cache": detail.get("total_cache", detail.get("cache", detail.get("file", 0))),
                "usage": {
                    "limit": stats.memory.limit,
                    "usage": stats.memory.usage,
                    "max": stats.memory.max_usage,
                    "failcnt": stats.memory.failcnt,
                },
                "raw": detail,
            },
            "pids": {"current": stats.pids.current, "limit": stats.pids.limit},
            "blkio": entries,
        },
    }


def run(call: Call) -> int:
    container = Container.load(call.id(), root=call.root)
    interval = seconds(call.options.text("interval", "5s"))
    if container.status() == STOPPED:
        raise InvalidArgument(f"container {container.id!r} is not running")
    print(cold_json.dumps(reading(container)), flush=True)
    while not call.options.flag("stats"):
        sleep(interval)
        if container.status() == STOPPED:
            break
        print(cold_json.dumps(reading(container)), flush=True)
    return 0
