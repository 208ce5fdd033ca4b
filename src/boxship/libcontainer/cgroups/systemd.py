"""Cgroups by systemd: the container is a transient scope, asked for over D-Bus.

systemd owns the tree then, so it makes the group (``StartTransientUnit`` with the executor's pid, whose child the
container's process becomes), is told the limits as unit properties, so that a reload does not undo them, and removes
the group when the unit stops.
Below the scope the tree is ours (``Delegate``), and what systemd has no property for is written by the v1 or v2
manager inside this one, which also does all the reading.

``linux.cgroupsPath`` is ``slice:prefix:name``; annotations ``org.systemd.property.NAME`` add properties
(systemd.resource-control(5), org.freedesktop.systemd1(5)).
"""

import os

from boxship.errors import AlreadyExists, BoxshipError, FailedPrecondition, Internal, InvalidArgument, Unavailable
from boxship.libcontainer.resources import for_cgroups

from . import cpuset, dbus, tree
from .devices import ANY, Rules, rules
from .layout import Layout
from .writes import UNLIMITED, number, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from .manager import Manager, Stats
    from .v1 import V1Manager
    from .v2 import V2Manager
    from .writes import Write

    Property: TypeAlias = "tuple[str, tuple[str, Any]]"  # name, (signature, value)

DESTINATION, PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
ANNOTATION = "org.systemd.property."
SYSTEM_BUS, PRIVATE = "unix:path=/run/dbus/system_bus_socket", "/run/systemd/private"
PERIOD = 100_000  # microseconds: the kernel's default for a quota's period
STEP = 10_000  # microseconds a second: systemd keeps quotas in whole percents

# What a file's text is as a property; the same file may come from a word of the spec or from ``unified``.
NUMBERS = {
    "memory.limit_in_bytes": "MemoryLimit",
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "cpu.shares": "CPUShares",
    "cpu.weight": "CPUWeight",
    "blkio.weight": "BlockIOWeight",
    "blkio.bfq.weight": "BlockIOWeight",
    "pids.max": "TasksMax",
}
SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
# First version of systemd that knows a property; an older one does without, the file is written all the same.
SINCE = {"AllowedCPUs": 244, "AllowedMemoryNodes": 244, "CPUQuotaPeriodUSec": 242}
IDLE_SINCE, OOM_POLICY_SINCE, MAJOR_ONLY_SINCE = 252, 253, 240


def slice_path(slice: str) -> str:
    """The path of a slice in the tree: ``a-b.slice`` is ``a.slice/a-b.slice``. Raises InvalidArgument."""
    name = slice.removesuffix(".slice")
    if name == "-" and slice.endswith(".slice"):
        return ""
    parts = name.split("-")
    if not slice.endswith(".slice") or "/" in slice or "" in parts:
        raise InvalidArgument(f"linux.cgroupsPath: invalid slice name {slice!r}", remedy="like machine-web.slice")
    return "/".join("-".join(parts[: n + 1]) + ".slice" for n in range(len(parts)))


def split_path(id: str, path: str, user: bool) -> "tuple[str, str]":
    """(slice, unit) that ``linux.cgroupsPath`` names. Raises InvalidArgument."""
    default = "user.slice" if user else "system.slice"
    if not path:
        return default, f"boxship-{id}.scope"
    parts = path.split(":")
    if len(parts) != 3:
        raise InvalidArgument(
            'expected linux.cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
            f"got {path!r} instead"
        )
    slice, prefix, name = parts
    if not name or "/" in prefix + name:
        raise InvalidArgument(f"linux.cgroupsPath {path!r} names no unit")
    if name.endswith(".slice"):
        return slice or default, name
    return slice or default, f"{prefix}-{name}.scope" if prefix else f"{name}.scope"


def annotated(annotations: "dict[str, Any]") -> "list[Property]":
    """Properties that the container's annotations ask for. Raises InvalidArgument naming the annotation."""
    found: list[Property] = []
    for key, text in annotations.items():
        if not key.startswith(ANNOTATION):
            continue
        name = key[len(ANNOTATION) :]
        if len(name) < 3 or not (name.isascii() and name.isalpha()):
            raise InvalidArgument(f"annotations: {key}: name incorrect", remedy="three or more latin letters")
        try:
            signature, value = dbus.parse_variant(text)
        except BoxshipError as error:
            raise InvalidArgument(f"annotations: {key}={text}: value parse error", cause=str(error)) from error
        if name.endswith("Sec") and name[-4:-3].islower():
            # Documented in seconds, but taken in microseconds under another name.
            if signature not in ("y", "n", "q", "i", "u", "x", "t", "d"):
                raise InvalidArgument(f"annotations: {key}={text}: value parse error", cause="not a number")
            name, signature, value = name[:-3] + "USec", "t", int(value * 1_000_000)
        found.append((name, (signature, value)))
    return found


def bits(ranges: str) -> bytes:
    """``0-2,5`` as a bit mask, lowest first, as AllowedCPUs takes it. Raises InvalidArgument."""
    mask = 0
    try:
        for number in cpuset.numbers(ranges):
            mask |= 1 << number
    except ValueError as error:
        raise InvalidArgument(f"{ranges!r} is no list of numbers and ranges", remedy="like 0-2,5") from error
    if not mask:
        raise InvalidArgument(f"{ranges!r}: empty value")
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def device_properties(value: Rules, version: int) -> "list[Property]":
    """Device rules; systemd knows only "these, and no others", and that all are allowed."""
    clear: Property = ("DeviceAllow", ("a(ss)", []))
    if value.allow and not value.exceptions:
        return [clear, ("DevicePolicy", ("s", "auto"))]
    found: list[Property] = [clear, ("DevicePolicy", ("s", "strict"))]
    if value.allow:
        return found  # all but some: our own program or rules say that, behind this
    allowed = []
    for (type, major, minor), access in value.exceptions.items():
        kind = {"b": "block", "c": "char"}[type]
        if major != ANY and minor != ANY:
            path = f"/dev/{kind}/{major}:{minor}"
        elif major == ANY and minor == ANY:
            path = f"{kind}-*"
        elif minor == ANY and version >= MAJOR_ONLY_SINCE:
            path = f"{kind}-{major}"
        else:
            continue  # it cannot say that; the rules behind this can
        letters = "".join(letter for letter, bit in (("r", 1), ("w", 2), ("m", 4)) if access & bit)
        allowed.append((path, letters))
    return [*found, ("DeviceAllow", ("a(ss)", allowed))]


class SystemdManager:
    """A container's scope; ``inner`` is the manager of its directories.

    ``unit`` is what the state keeps: the unit's name, its slice, whether it is the user's systemd, and what was asked
    for at the start.
    """

    def __init__(
        self, inner: "V1Manager | V2Manager", unit: "dict[str, Any]", first_rules: "Rules | None" = None
    ) -> None:
        self.inner = inner
        self.unit = unit
        self._first_rules = first_rules
        self._version = 0

    @property
    def paths(self) -> "dict[str, str]":
        return self.inner.paths

    # ── Talking to systemd ──

    def _bus(self) -> dbus.Bus:
        return connect(bool(self.unit["user"]))

    def _call(self, bus: dbus.Bus, member: str, signature: str = "", *values: "Any") -> "tuple[Any, ...]":
        return bus.call(DESTINATION, PATH, MANAGER, member, signature, *values)

    def version(self, bus: dbus.Bus) -> int:
        """systemd's version; 0 when it has none that we can read."""
        if not self._version:
            digits = ""
            for letter in manager_property(bus, "Version").lstrip("v"):
                if not letter.isdigit():
                    break
                digits += letter
            self._version = int(digits or 0)
        return self._version

    def _job(self, bus: dbus.Bus, member: str, signature: str, *values: "Any") -> str:
        """Call a method that starts a job, and wait for the job's result."""
        (job,) = self._call(bus, member, signature, *values)
        _, _, _, result = bus.signal("JobRemoved", lambda body: len(body) == 4 and body[1] == job)
        return str(result)

    def _subscribe(self, bus: dbus.Bus) -> None:
        match = f"type='signal',interface='{MANAGER}',member='JobRemoved'"
        bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", match)
        self._call(bus, "Subscribe")

    def _reset_failed(self, bus: dbus.Bus) -> None:
        try:
            self._call(bus, "ResetFailedUnit", "s", self.unit["name"])
        except dbus.CallFailed:
            return  # nothing has failed

    # ── The manager's protocol ──

    def claim(self) -> None:
        """In every hierarchy, as systemd may keep processes out of one of them."""
        self.inner.claim()
        for directory in dict.fromkeys(self.inner.paths.values()):
            if os.path.isdir(directory) and tree.processes(directory):
                raise AlreadyExists(
                    f"container's cgroup is not empty: {directory}", remedy="choose another cgroupsPath"
                )

    def create_target(self, pid: int = 0) -> bool:
        """Start the scope with the process ``pid`` in it. Raises FailedPrecondition, Unavailable."""
        if pid <= 0:
            raise Internal("a scope needs the pid of a process: 0 would be ourselves")
        name = self.unit["name"]
        with self._bus() as bus:
            self._subscribe(bus)
            properties = self._at_start(bus, pid)
            arguments: tuple[Any, ...] = ("ssa(sv)a(sa(sv))", name, "replace", properties, [])
            try:
                result = self._job(bus, "StartTransientUnit", *arguments)
            except dbus.CallFailed as error:
                if not error.name.endswith(".UnitExists"):
                    raise
                # One that failed stays until somebody takes note of it.
                self._reset_failed(bus)
                try:
                    result = self._job(bus, "StartTransientUnit", *arguments)
                except dbus.CallFailed as again:
                    if not again.name.endswith(".UnitExists"):
                        raise
                    raise AlreadyExists(
                        f"systemd unit {name} already exists", remedy="choose another cgroupsPath"
                    ) from again
            if result != "done":
                self._reset_failed(bus)
                raise FailedPrecondition(f"create systemd unit {name}: got {result!r}", remedy="see journalctl -u")
        if self.inner.create_target():
            return True
        self.inner.create()
        return False

    def create(self) -> None:
        """``create_target`` has made all; this only finds that it is there."""
        self.inner.create()

    def _at_start(self, bus: dbus.Bus, pid: int) -> "list[Property]":
        slice, name = self.unit["slice"], self.unit["name"]
        properties: list[Property] = [("Description", ("s", f"boxship container {name}"))]
        if name.endswith(".slice"):
            properties.append(("Wants", ("as", [slice])))
        else:
            properties += [("Slice", ("s", slice)), ("Delegate", ("b", True)), ("PIDs", ("au", [pid]))]
        io = "IOAccounting" if self._is_v2() else "BlockIOAccounting"
        for accounting in ("MemoryAccounting", "CPUAccounting", io, "TasksAccounting"):
            properties.append((accounting, ("b", True)))
        properties.append(("DefaultDependencies", ("b", False)))
        properties += [(key, (signature, value)) for key, (signature, value) in self.unit["properties"]]
        if self._first_rules is not None:
            # On v1 a scope that gets its first device rule later has its processes moved, and not into itself.
            properties += device_properties(self._first_rules, self.version(bus))
        # It can be said at the start only.
        policy = {"0": "continue", "1": "kill"}.get(self.unit.get("oom_group", ""))
        if policy and self.version(bus) >= OOM_POLICY_SINCE:
            properties.append(("OOMPolicy", ("s", policy)))
        return properties

    def own(self, uid: int) -> None:
        self.inner.own(uid)

    def _is_v2(self) -> bool:
        return [*self.inner.paths] == [""]

    def apply(self, resources: "dict[str, object]") -> None:
        """Tell systemd what it has words for, then write all of it. Raises as the inner manager's ``apply``."""
        resources = self._whole_percents(resources)
        writes = self.inner.writes(resources)
        given = resources.get("unified")
        unified = [("", file, str(text).strip()) for file, text in given.items()] if isinstance(given, dict) else []
        with self._bus() as bus:
            properties = self._properties(bus, [*writes, *unified])
            if resources.get("devices") is not None:
                properties += device_properties(rules(resources["devices"]), self.version(bus))
            if properties:
                # systemd writes v1's rules as "none, then these": a process that runs would see the "none".
                hold = not self._is_v2() and any(name == "DevicePolicy" for name, _ in properties)
                hold = hold and "freezer" in self.inner.paths and not self.inner.frozen() and bool(self.inner.procs())
                if hold:
                    self.inner.freeze()
                try:
                    self._call(bus, "SetUnitProperties", "sba(sv)", self.unit["name"], True, properties)
                finally:
                    if hold:
                        self.inner.thaw()
        self.inner.apply(resources)

    def _properties(self, bus: dbus.Bus, writes: "list[Write]") -> "list[Property]":
        found: dict[str, tuple[str, Any]] = {}
        texts = {file: text for _, file, text, *_ in writes}
        idle = texts.get("cpu.idle") == "1" and self.version(bus) >= IDLE_SINCE
        for file, text in texts.items():
            if file in NUMBERS:
                found[NUMBERS[file]] = ("t", self._number(file, text))
            elif file in SETS:
                found[SETS[file]] = ("ay", bits(text))
        if idle:
            found["CPUWeight"] = ("t", 0)  # systemd's word for cpu.idle
        if found.get("TasksMax") == ("t", 0):
            found["TasksMax"] = ("t", 1)  # it takes no 0
        found.update(self._quota(texts))
        return [
            (name, value) for name, value in found.items() if name not in SINCE or self.version(bus) >= SINCE[name]
        ]

    def _number(self, file: str, text: str) -> int:
        if text in ("max", "-1"):
            return UNLIMITED
        if not text.isdigit():
            raise InvalidArgument(f"linux.resources: {file} must be a number or max, not {text!r}")
        return int(text)

    def _whole_percents(self, resources: "dict[str, object]") -> "dict[str, object]":
        """A quota rounded up as systemd does it, so that both write the same."""
        cpu = table(resources, "cpu")
        quota, period = number(cpu, "cpu", "quota"), number(cpu, "cpu", "period")
        if not quota or quota < 0:
            return resources
        if not period:
            now = self.inner._text("cpu", "cpu.max").split()
            text = now[1] if len(now) > 1 else self.inner._text("cpu", "cpu.cfs_period_us").strip()
            period = int(text or PERIOD)
        second = -(-(quota * 1_000_000 // period) // STEP) * STEP
        return {**resources, "cpu": {**cpu, "quota": second * period // 1_000_000}}

    def _quota(self, texts: "dict[str, str]") -> "dict[str, tuple[str, Any]]":
        """Quota and period: systemd wants the quota a second, and needs both to say one of them."""
        if "cpu.max" in texts:
            words = texts["cpu.max"].split()
            now = self.inner._text("cpu", "cpu.max").split()
            quota = words[0] if words else "max"
            period = words[1] if len(words) > 1 else now[1] if len(now) > 1 else str(PERIOD)
        elif "cpu.cfs_quota_us" in texts or "cpu.cfs_period_us" in texts:
            quota, period = (
                texts.get(file) or self.inner._text("cpu", file).strip()
                for file in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        else:
            return {}
        every = int(period or PERIOD)
        found = {"CPUQuotaPeriodUSec": ("t", every)}
        if quota in ("max", "-1", ""):
            return {**found, "CPUQuotaPerSecUSec": ("t", UNLIMITED)}
        second = int(quota) * 1_000_000 // every
        return {**found, "CPUQuotaPerSecUSec": ("t", -(-second // STEP) * STEP)}

    def tasks_files(self, below: "dict[str, str] | None" = None) -> "list[str]":
        return self.inner.tasks_files(below)

    def directory(self) -> str:
        return self.inner.directory()

    def exec_directory(self, init: int, below: "dict[str, str] | None" = None) -> str:
        return self.inner.exec_directory(init, below)

    def procs(self) -> "list[int]":
        return self.inner.procs()

    def freeze(self) -> None:
        self.inner.freeze()

    def thaw(self) -> None:
        self.inner.thaw()

    def frozen(self) -> bool:
        return self.inner.frozen()

    def kill(self, signal: int) -> None:
        self.inner.kill(signal)

    def stats(self, whole: bool = False) -> "Stats":
        return self.inner.stats(whole)

    def oom_directory(self) -> str:
        return self.inner.oom_directory()

    def delete(self) -> None:
        """Stop the unit, and remove what systemd leaves; a unit that is gone is fine."""
        try:
            with self._bus() as bus:
                self._subscribe(bus)
                try:
                    self._job(bus, "StopUnit", "ss", self.unit["name"], "replace")
                except dbus.CallFailed:
                    pass  # not loaded: systemd has removed the scope with its last process
                self._reset_failed(bus)
        except Unavailable:
            if os.path.isdir("/run/systemd/system"):
                raise
            # systemd is gone, and its units with it: the directories are what is left.
        self.inner.delete()


def manager_property(bus: dbus.Bus, name: str) -> str:
    """A property of systemd itself, as text."""
    (value,) = bus.call(DESTINATION, PATH, "org.freedesktop.DBus.Properties", "Get", "ss", MANAGER, name)
    return str(value[1])


def connect(user: bool) -> dbus.Bus:
    """The bus of the system's systemd, or of this user's. Raises Unavailable."""
    if user:
        address = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")
        if not address and os.environ.get("XDG_RUNTIME_DIR"):
            address = f"unix:path={os.environ['XDG_RUNTIME_DIR']}/bus"
        if not address:
            raise Unavailable(
                "find the user's D-Bus", remedy="set DBUS_SESSION_BUS_ADDRESS, or log in with a user session"
            )
        return dbus.Bus(dbus.addresses(address))
    address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS
    return dbus.Bus(dbus.addresses(address))


def manager(layout: Layout, id: str, path: str, spec: "dict[str, Any]") -> "Manager":
    """The manager of container ``id`` below systemd.

    Raises InvalidArgument for a ``linux.cgroupsPath`` that is not ``slice:prefix:name`` and for annotations that
    cannot be read, FailedPrecondition without cgroups, Unavailable when systemd is not running.
    """
    if not os.path.isdir("/run/systemd/system") and not os.environ.get("DBUS_SYSTEM_BUS_ADDRESS"):
        raise Unavailable(
            "systemd is not running on this host, cannot use systemd cgroups manager", remedy="use cgroupfs"
        )
    user = os.geteuid() != 0
    slice, name = split_path(id, path, user)
    parent = slice_path(slice)
    linux = spec.get("linux") or {}
    first = rules(for_cgroups(linux)["devices"])
    unified = (linux.get("resources") or {}).get("unified")
    unit: dict[str, Any] = {
        "name": name,
        "slice": slice,
        "user": user,
        "properties": annotated(spec.get("annotations") or {}),
    }
    if isinstance(unified, dict) and "memory.oom.group" in unified:
        unit["oom_group"] = str(unified["memory.oom.group"])
    if layout.mode == "v2":
        if user:
            with connect(True) as bus:
                parent = manager_property(bus, "ControlGroup").strip("/") + "/" + parent
        from .v2 import V2Manager

        path = "/".join(p for p in (layout.unified, parent, name) if p)
        return SystemdManager(V2Manager({"": path}, layout.unified), unit, first)
    if layout.mode == "none":
        raise FailedPrecondition("use the systemd cgroups manager: no cgroup hierarchy is mounted")
    if user:
        raise FailedPrecondition("cannot use rootless systemd cgroups manager on cgroup v1")
    from .v1 import V1Manager

    paths = {key: "/".join(p for p in (mount, parent, name) if p) for key, mount in layout.v1.items()}
    return SystemdManager(V1Manager(paths), unit, first)
