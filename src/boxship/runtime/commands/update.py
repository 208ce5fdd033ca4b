"""``update``: change limits of a running container."""

import sys

from boxship.errors import InvalidArgument
from boxship.libcontainer import validate
from boxship.libcontainer.container import STOPPED, Container
from boxship.oci import cold_json

from ..main import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# flag: where it goes in runtime-spec's linux.resources
TABLE = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "cpuset-cpus": ("cpu", "cpus"),
    "cpuset-mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "pids-limit": ("pids", "limit"),
}
RDT = {"l3-cache-schema": "l3CacheSchema", "mem-bw-schema": "memBwSchema"}
UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def size(text: str, flag: str) -> int:
    """Bytes of a text like 512m; -1 is no limit."""
    number = text.lower().rstrip("b").rstrip("i")
    unit = number[-1:] if number[-1:].isalpha() else ""
    try:
        return int(float(number.removesuffix(unit)) * UNITS[unit])
    except (ValueError, KeyError) as error:
        raise InvalidArgument(f"invalid value {text!r} for --{flag}: must be a size like 512m") from error


def resources(call: Call) -> "dict[str, Any]":
    """linux.resources from --resources, or from the single flags."""
    source = call.options.text("resources")
    if source:
        if source == "-":
            text = sys.stdin.read()
        else:
            try:
                with open(source) as f:
                    text = f.read()
            except OSError as error:
                raise InvalidArgument(f"--resources {source}", cause=error.strerror or "") from error
        value = cold_json.loads(text, f"--resources {source}")
        if not isinstance(value, dict):
            raise InvalidArgument(f"--resources {source}: must be a JSON object")
        validate.check_resources(value)
        return value
    found: dict[str, dict[str, Any]] = {}
    for flag, (section, key) in TABLE.items():
        if flag in call.options.flags:
            given = call.options.flags[flag]
            if section == "memory" and isinstance(given, str):
                given = size(given, flag)
            found.setdefault(section, {})[key] = given
    validate.check_resources(found)
    return found


def run(call: Call) -> int:
    container = Container.load(call.id(), root=call.root)
    if container.status() == STOPPED:
        raise InvalidArgument("cannot update a container that is stopped")
    schemata = {key: call.options.text(flag) for flag, key in RDT.items() if call.options.text(flag)}
    for flag in ("kernel-memory", "kernel-memory-tcp"):
        if flag in call.options.flags:
            call.log.warning(f"--{flag} is ignored: Linux 5.16 took that limit away")
    changed = resources(call)
    if schemata:
        container.update_rdt(schemata)
    if changed:
        container.update(changed)
    return 0
