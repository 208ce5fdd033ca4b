"""``events``: a container's counters as JSON lines in runc's layout, and its OOMs; ``--stats`` prints one."""

from boxship.errors import InvalidArgument
from boxship.libcontainer.container import STOPPED, Container
from boxship.oci import cold_json

from ..main import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from boxship.libcontainer.cgroups import Stats
    from boxship.libcontainer.cgroups.cpu import Pressure
    from boxship.libcontainer.cgroups.memory import Usage

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
    raise InvalidArgument(f"--interval {text!r}: duration interval must be greater than 0, like 5s or 100ms")


def _some(**values: "Any") -> "dict[str, Any]":
    """Without zeros and empty values, which Go's ``omitempty`` leaves out."""
    return {key: value for key, value in values.items() if value}


def _usage(account: "Usage") -> "dict[str, Any]":
    return {
        "limit": account.limit,
        "failcnt": account.failcnt,
        **_some(usage=account.usage, max=account.max),
    }


def _pressure(found: "dict[str, Pressure] | None") -> "dict[str, Any]":
    if not found:
        return {}
    return {
        "psi": {
            kind: {"avg10": p.avg10, "avg60": p.avg60, "avg300": p.avg300, "total": p.total}
            for kind, p in found.items()
        }
    }


def data(stats: "Stats") -> "dict[str, Any]":
    """One reading, with runc's names."""
    cpu, memory = stats.cpu, stats.memory
    return {
        "cpu": {
            "usage": {
                **_some(total=cpu.total, percpu=cpu.per_cpu),
                **_some(percpu_kernel=cpu.per_cpu_kernel, percpu_user=cpu.per_cpu_user),
                "kernel": cpu.system,
                "user": cpu.user,
            },
            "throttling": _some(
                periods=cpu.periods, throttledPeriods=cpu.throttled_periods, throttledTime=cpu.throttled_time
            ),
            **_pressure(stats.pressure.get("cpu")),
        },
        "cpuset": _cpuset(stats),
        "memory": {
            **_some(cache=memory.cache),
            "usage": {
                "limit": memory.limit,
                "failcnt": memory.failcnt,
                **_some(usage=memory.usage, max=memory.max_usage),
            },
            "swap": _usage(memory.swap),
            "kernel": _usage(memory.kernel),
            "kernelTCP": _usage(memory.kernel_tcp),
            **_some(raw=memory.detail),
            **_pressure(stats.pressure.get("memory")),
        },
        "pids": _some(current=stats.pids.current, limit=stats.pids.limit),
        "blkio": {
            **{
                name: [_some(major=major, minor=minor, op=op, value=value) for major, minor, op, value in rows]
                for name, rows in stats.io_tables.items()
            },
            **_pressure(stats.pressure.get("io")),
        },
        "hugetlb": {
            size: {**_some(usage=pages.usage, max=pages.max), "failcnt": pages.failcnt}
            for size, pages in stats.hugetlb.items()
        },
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _cpuset(stats: "Stats") -> "dict[str, Any]":
    from boxship.libcontainer.cgroups.cpuset import CpusetStats

    found = stats.cpuset or CpusetStats()
    return {
        **_some(cpus=found.cpus, mems=found.mems),
        **found.flags,
        "sched_relax_domain_level": found.sched_relax_domain_level,
    }


def _print(id: str, kind: str, stats: "Stats | None") -> None:
    event: dict[str, Any] = {"type": kind, "id": id}
    if stats is not None:
        event["data"] = data(stats)
    print(cold_json.dumps(event), flush=True)


def run(call: Call) -> int:
    container = Container.load(call.id(), root=call.root)
    interval = seconds(call.options.text("interval", "5s"))
    if container.status() == STOPPED:
        raise InvalidArgument(f"container with id {container.id} is not running")
    if call.options.flag("stats"):
        _print(container.id, "stats", container.stats(whole=True))
        return 0
    from boxship.libcontainer.watch import events

    for event in events(container, interval):
        _print(container.id, event.kind, event.stats)
    return 0
