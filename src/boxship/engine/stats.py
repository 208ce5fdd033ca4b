"""``docker stats``: a task's counters, from containerd's metrics, as the Engine API's document."""

from __future__ import annotations

import os
import time
from typing import Any

from boxship.api.containerd import Client
from boxship.api.containerd.tasks import MetricsRequest
from boxship.api.task.metrics import MetricsV1, MetricsV2
from boxship.errors import BoxshipError

from .clock import ZERO, rfc3339
from .models import Record

NO_LIMIT = 2**62  # a v1 limit above this is the kernel's way to say that there is none
TICKS = os.sysconf("SC_CLK_TCK")

Document = dict[str, Any]


def system_cpu() -> int:
    """Nanoseconds that all processors were in use or idle since boot: the first line of /proc/stat."""
    with open("/proc/stat") as f:
        fields = f.readline().split()[1:8]
    return sum(map(int, fields)) * 1_000_000_000 // TICKS


def network(pid: int) -> dict[str, Document]:
    """Counters of each interface but lo, as the process's network namespace has them (proc_net(5))."""
    found: dict[str, Document] = {}
    try:
        with open(f"/proc/{pid}/net/dev") as f:
            lines = f.read().splitlines()[2:]
    except OSError:
        return found
    for line in lines:
        name, _, rest = line.partition(":")
        n = [int(word) for word in rest.split()]
        if name.strip() != "lo":
            found[name.strip()] = {
                "rx_bytes": n[0], "rx_packets": n[1], "rx_errors": n[2], "rx_dropped": n[3],
                "tx_bytes": n[8], "tx_packets": n[9], "tx_errors": n[10], "tx_dropped": n[11],
            }  # fmt: skip
    return found


def empty_cpu() -> Document:
    return {
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }


class Stats:
    """Reads stats; each reading carries the one before it, which clients compute percentages from."""

    def __init__(self, client: Client, memory: int) -> None:
        self._client = client
        self._memory = memory

    async def read(self, record: Record, before: Document | None) -> Document:
        """One document; all zeros when the container does not run, as dockerd has it."""
        document: Document = {
            "id": record.Id,
            "name": f"/{record.Name}",
            "os_type": "linux",
            "read": rfc3339(time.time_ns()),
            "preread": before["read"] if before else ZERO,
            "pids_stats": {},
            "blkio_stats": _blkio([], []),
            "num_procs": 0,
            "storage_stats": {},
            "cpu_stats": empty_cpu(),
            "precpu_stats": before["cpu_stats"] if before else empty_cpu(),
            "memory_stats": {},
        }
        if not record.State.Running:
            document["read"] = ZERO
            return document
        try:
            response = await self._client.tasks.Metrics(MetricsRequest(filters=[f"id=={record.Id}"]))
        except BoxshipError:
            return document  # it ended while we asked
        data = response.metrics[0].data if response.metrics else None
        if data is None:
            return document
        if data.holds(MetricsV2):
            self._fill_v2(document, data.unpack(MetricsV2))
        elif data.holds(MetricsV1):
            self._fill_v1(document, data.unpack(MetricsV1))
        document["cpu_stats"]["system_cpu_usage"] = system_cpu()
        document["cpu_stats"]["online_cpus"] = os.cpu_count() or 1
        document["networks"] = network(record.State.Pid)
        return document

    def _limit(self, limit: int) -> int:
        return self._memory if limit <= 0 or limit > NO_LIMIT else min(limit, self._memory)

    def _fill_v1(self, document: Document, metrics: MetricsV1) -> None:
        if metrics.pids:
            document["pids_stats"] = {"current": metrics.pids.current}
            if metrics.pids.limit:
                document["pids_stats"]["limit"] = metrics.pids.limit
        if metrics.cpu and metrics.cpu.usage:
            usage, throttling = metrics.cpu.usage, metrics.cpu.throttling
            document["cpu_stats"]["cpu_usage"] = {
                "total_usage": usage.total,
                "usage_in_kernelmode": usage.kernel,
                "usage_in_usermode": usage.user,
            }
            if throttling:
                document["cpu_stats"]["throttling_data"] = {
                    "periods": throttling.periods,
                    "throttled_periods": throttling.throttled_periods,
                    "throttled_time": throttling.throttled_time,
                }
        if metrics.memory and metrics.memory.usage:
            memory, used = metrics.memory, metrics.memory.usage
            document["memory_stats"] = {
                "usage": used.usage,
                "max_usage": used.max,
                "limit": self._limit(used.limit),
                "failcnt": used.failcnt,
                "stats": {
                    "cache": memory.cache,
                    "rss": memory.rss,
                    "mapped_file": memory.mapped_file,
                    "inactive_anon": memory.inactive_anon,
                    "active_anon": memory.active_anon,
                    "inactive_file": memory.inactive_file,
                    "active_file": memory.active_file,
                    "total_inactive_file": memory.total_inactive_file,
                    "pgfault": memory.pg_fault,
                    "pgmajfault": memory.pg_maj_fault,
                },
            }
        if metrics.blkio:
            document["blkio_stats"] = _blkio(
                [_entry(e.major, e.minor, e.op, e.value) for e in metrics.blkio.io_service_bytes_recursive],
                [_entry(e.major, e.minor, e.op, e.value) for e in metrics.blkio.io_serviced_recursive],
            )

    def _fill_v2(self, document: Document, metrics: MetricsV2) -> None:
        if metrics.pids:
            document["pids_stats"] = {"current": metrics.pids.current}
            if metrics.pids.limit:
                document["pids_stats"]["limit"] = metrics.pids.limit
        if metrics.cpu:
            cpu = metrics.cpu
            document["cpu_stats"] = {
                "cpu_usage": {
                    "total_usage": cpu.usage_usec * 1000,
                    "usage_in_kernelmode": cpu.system_usec * 1000,
                    "usage_in_usermode": cpu.user_usec * 1000,
                },
                "throttling_data": {
                    "periods": cpu.nr_periods,
                    "throttled_periods": cpu.nr_throttled,
                    "throttled_time": cpu.throttled_usec * 1000,
                },
            }
        if metrics.memory:
            memory = metrics.memory
            document["memory_stats"] = {
                "usage": memory.usage,
                "limit": self._limit(memory.usage_limit),
                "stats": {
                    "anon": memory.anon,
                    "file": memory.file,
                    "inactive_anon": memory.inactive_anon,
                    "active_anon": memory.active_anon,
                    "inactive_file": memory.inactive_file,
                    "active_file": memory.active_file,
                    "pgfault": memory.pgfault,
                    "pgmajfault": memory.pgmajfault,
                },
            }
        entries = metrics.io.usage if metrics.io else []
        document["blkio_stats"] = _blkio(
            [_entry(e.major, e.minor, op, v) for e in entries for op, v in (("read", e.rbytes), ("write", e.wbytes))],
            [_entry(e.major, e.minor, op, v) for e in entries for op, v in (("read", e.rios), ("write", e.wios))],
        )


def _entry(major: int, minor: int, op: str, value: int) -> Document:
    return {"major": major, "minor": minor, "op": op.lower(), "value": value}


def _blkio(sizes: list[Document], counts: list[Document]) -> Document:
    return {
        "io_service_bytes_recursive": sizes or None,
        "io_serviced_recursive": counts or None,
        "io_queue_recursive": None,
        "io_service_time_recursive": None,
        "io_wait_time_recursive": None,
        "io_merged_recursive": None,
        "io_time_recursive": None,
        "sectors_recursive": None,
    }
