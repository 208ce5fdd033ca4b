"""The little languages inside the API's strings: binds, ports, tmpfs options, devices, signals."""

from __future__ import annotations

import signal as signals

from boxship.errors import InvalidArgument

from .models import DeviceMapping

PROPAGATIONS = ("shared", "slave", "private", "rshared", "rslave", "rprivate")
BIND_MODES = frozenset({"rw", "ro", "z", "Z", "nocopy", "cached", "delegated", "consistent", *PROPAGATIONS})


def bind(spec: str) -> tuple[str, str, list[str]]:
    """``SOURCE:TARGET[:MODE]`` as (source, target, modes); raises InvalidArgument."""
    parts = spec.split(":")
    if len(parts) not in (2, 3) or not all(parts[:2]):
        raise InvalidArgument(f"invalid volume specification: '{spec}'", remedy="SOURCE:TARGET[:ro]")
    modes = parts[2].split(",") if len(parts) == 3 else []
    for mode in modes:
        if mode not in BIND_MODES:
            raise InvalidArgument(f"invalid mode: {mode} in volume specification '{spec}'")
    if not parts[1].startswith("/"):
        raise InvalidArgument(f"invalid volume specification: '{spec}': mount path must be absolute")
    if parts[1].rstrip("/") == "":
        raise InvalidArgument(f"invalid volume specification: '{spec}': destination can't be '/'")
    return parts[0], parts[1], modes


def port(spec: str) -> tuple[int, str]:
    """``80``, ``80/tcp`` or ``53/udp`` as (number, protocol); raises InvalidArgument."""
    number, _, protocol = spec.partition("/")
    protocol = protocol or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid port specification {spec!r}: unknown protocol {protocol!r}")
    if not number.isdigit() or not 0 < int(number) < 65536:
        raise InvalidArgument(f"invalid port specification {spec!r}: a port is a number from 1 to 65535")
    return int(number), protocol


def port_range(spec: str) -> tuple[int, int]:
    """A host port: ``""`` (any: 0, 0), ``8080`` or ``8000-8010``; raises InvalidArgument."""
    if spec in ("", "0"):
        return 0, 0
    first, dash, last = spec.partition("-")
    last = last if dash else first
    if not (first.isdigit() and last.isdigit()) or not 0 < int(first) <= int(last) < 65536:
        raise InvalidArgument(f"invalid host port {spec!r}", remedy="a number from 1 to 65535, or FIRST-LAST")
    return int(first), int(last)


def signal_number(text: str) -> int:
    """``SIGTERM``, ``TERM`` or ``15``; raises InvalidArgument."""
    if text.isdigit():
        number = int(text)
        if 0 < number <= 64:
            return number
    else:
        name = text.upper().removeprefix("SIG")
        base, _, offset = name.partition("+")
        if base in ("RTMIN", "RTMAX") and (offset.isdigit() or not offset):
            return int(signals.SIGRTMIN if base == "RTMIN" else signals.SIGRTMAX) + int(offset or 0)
        try:
            return int(signals.Signals["SIG" + name])
        except KeyError:
            pass  # the error below names it
    raise InvalidArgument(f"Invalid signal: {text}")


def device(mapping: DeviceMapping) -> DeviceMapping:
    """With the defaults filled in; raises InvalidArgument for unknown permissions."""
    permissions = mapping.CgroupPermissions or "rwm"
    if set(permissions) - set("rwm"):
        raise InvalidArgument(f"invalid device mode {permissions!r} of {mapping.PathOnHost}")
    return DeviceMapping(mapping.PathOnHost, mapping.PathInContainer or mapping.PathOnHost, permissions)


SUFFIXES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


def size(text: str) -> int:
    """``10m`` as bytes, 0 for "" and -1; raises InvalidArgument."""
    if text in ("", "-1"):
        return 0
    digits = text.rstrip("bBkKmMgG")
    suffix = text[len(digits) :].lower()
    if not digits.isdigit() or suffix not in SUFFIXES:
        raise InvalidArgument(f"failed to initialize logging driver: invalid size: '{text}'")
    return int(digits) * SUFFIXES[suffix]
