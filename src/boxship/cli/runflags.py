"""The flags that ``run`` and ``create`` share, and the create request that they make."""

from __future__ import annotations

import os

from boxship.errors import InvalidArgument
from boxship.flags import Flag, UsageError

from .output import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from boxship.flags import Parsed

FLAGS = (
    Flag("add-host", "", "list", "Add a custom host-to-IP mapping (host:ip)"),
    Flag("annotation", "", "list", "Add an annotation to the container"),
    Flag("attach", "a", "list", "Attach to STDIN, STDOUT or STDERR"),
    Flag("cap-add", "", "list", "Add Linux capabilities"),
    Flag("cap-drop", "", "list", "Drop Linux capabilities"),
    Flag("cgroup-parent", "", "string", "Optional parent cgroup for the container"),
    Flag("cgroupns", "", "string", "Cgroup namespace to use (host|private)"),
    Flag("cidfile", "", "string", "Write the container ID to the file"),
    Flag("cpu-period", "", "int", "Limit CPU CFS (Completely Fair Scheduler) period"),
    Flag("cpu-quota", "", "int", "Limit CPU CFS (Completely Fair Scheduler) quota"),
    Flag("cpu-shares", "c", "int", "CPU shares (relative weight)"),
    Flag("cpus", "", "string", "Number of CPUs", value="decimal"),
    Flag("cpuset-cpus", "", "string", "CPUs in which to allow execution (0-3, 0,1)"),
    Flag("cpuset-mems", "", "string", "MEMs in which to allow execution (0-3, 0,1)"),
    Flag("device", "", "list", "Add a host device to the container"),
    Flag("device-cgroup-rule", "", "list", "Add a rule to the cgroup allowed devices list"),
    Flag("dns", "", "list", "Set custom DNS servers"),
    Flag("dns-option", "", "list", "Set DNS options"),
    Flag("dns-search", "", "list", "Set custom DNS search domains"),
    Flag("domainname", "", "string", "Container NIS domain name"),
    Flag("entrypoint", "", "string", "Overwrite the default ENTRYPOINT of the image"),
    Flag("env", "e", "list", "Set environment variables"),
    Flag("env-file", "", "list", "Read in a file of environment variables"),
    Flag("expose", "", "list", "Expose a port or a range of ports"),
    Flag("group-add", "", "list", "Add additional groups to join"),
    Flag("help", "", "bool", "Print usage"),
    Flag("hostname", "h", "string", "Container host name"),
    Flag("init", "", "bool", "Run an init inside the container that forwards signals and reaps processes"),
    Flag("interactive", "i", "bool", "Keep STDIN open even if not attached"),
    Flag("ipc", "", "string", "IPC mode to use"),
    Flag("label", "l", "list", "Set meta data on a container"),
    Flag("label-file", "", "list", "Read in a line delimited file of labels"),
    Flag("log-driver", "", "string", "Logging driver for the container"),
    Flag("log-opt", "", "list", "Log driver options"),
    Flag("memory", "m", "string", "Memory limit", value="bytes"),
    Flag("memory-reservation", "", "string", "Memory soft limit", value="bytes"),
    Flag(
        "memory-swap",
        "",
        "string",
        "Swap limit equal to memory plus swap: -1 to enable unlimited swap",
        value="bytes",
    ),
    Flag("memory-swappiness", "", "int", "Tune container memory swappiness (0 to 100)"),
    Flag("mount", "", "list", "Attach a filesystem mount to the container", value="mount"),
    Flag("name", "", "string", "Assign a name to the container"),
    Flag("network", "", "string", "Connect a container to a network", value="network"),
    Flag("net", "", "string", "Connect a container to a network", value="network"),
    Flag("oom-kill-disable", "", "bool", "Disable OOM Killer"),
    Flag("oom-score-adj", "", "int", "Tune host's OOM preferences (-1000 to 1000)"),
    Flag("pid", "", "string", "PID namespace to use"),
    Flag("pids-limit", "", "int", "Tune container pids limit (set -1 for unlimited)"),
    Flag("platform", "", "string", "Set platform if server is multi-platform capable"),
    Flag("privileged", "", "bool", "Give extended privileges to this container"),
    Flag("publish", "p", "list", "Publish a container's port(s) to the host"),
    Flag("publish-all", "P", "bool", "Publish all exposed ports to random ports"),
    Flag("pull", "", "string", "Pull image before running (always, missing, never)", "missing"),
    Flag("quiet", "q", "bool", "Suppress the pull output"),
    Flag("read-only", "", "bool", "Mount the container's root filesystem as read only"),
    Flag("restart", "", "string", "Restart policy to apply when a container exits", "no"),
    Flag("rm", "", "bool", "Automatically remove the container when it exits"),
    Flag("runtime", "", "string", "Runtime to use for this container"),
    Flag("security-opt", "", "list", "Security Options"),
    Flag("shm-size", "", "string", "Size of /dev/shm", value="bytes"),
    Flag("stop-signal", "", "string", "Signal to stop the container"),
    Flag("stop-timeout", "", "int", "Timeout (in seconds) to stop a container"),
    Flag("sysctl", "", "list", "Sysctl options", value="map"),
    Flag("tmpfs", "", "list", "Mount a tmpfs directory"),
    Flag("tty", "t", "bool", "Allocate a pseudo-TTY"),
    Flag("ulimit", "", "list", "Ulimit options"),
    Flag("user", "u", "string", "Username or UID (format: <name|uid>[:<group|gid>])"),
    Flag("userns", "", "string", "User namespace to use"),
    Flag("uts", "", "string", "UTS namespace to use"),
    Flag("volume", "v", "list", "Bind mount a volume"),
    Flag("volume-driver", "", "string", "Optional volume driver for the container"),
    Flag("volumes-from", "", "list", "Mount volumes from the specified container(s)"),
    Flag("workdir", "w", "string", "Working directory inside the container"),
)


def request(o: Parsed) -> dict[str, Any]:
    """The body of ``POST /containers/create``; raises UsageError for a flag whose value is no such thing."""
    image, *command = o.args
    streams = {name.lower() for name in o.attach}
    if streams - {"stdin", "stdout", "stderr"}:
        raise UsageError(
            f'invalid argument "{o.attach[0]}" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR'
        )
    detached = bool(o.values.get("detach"))
    everything = not streams and not detached
    exposed = _exposed(o.expose)
    bindings = _published(o.publish)
    exposed.update({key: {} for key in bindings})
    body: dict[str, Any] = {
        "Image": image,
        "Hostname": o.hostname,
        "Domainname": o.domainname,
        "User": o.user,
        "AttachStdin": ("stdin" in streams) or (everything and o.interactive),
        "AttachStdout": ("stdout" in streams) or everything,
        "AttachStderr": ("stderr" in streams) or everything,
        "Tty": o.tty,
        "OpenStdin": o.interactive,
        "StdinOnce": o.interactive and not detached,
        "Env": environment(o.env, o.env_file),
        "Labels": _labels(o.label, o.label_file),
        "Volumes": {},
        "WorkingDir": o.workdir,
        "ExposedPorts": exposed,
        "HostConfig": _host_config(o, bindings),
    }
    if command:
        body["Cmd"] = command
    if "entrypoint" in o.given:
        body["Entrypoint"] = [o.entrypoint]
    if o.stop_signal:
        body["StopSignal"] = o.stop_signal
    if o.stop_timeout is not None:
        body["StopTimeout"] = o.stop_timeout
    return body


def _host_config(o: Parsed, bindings: dict[str, list[dict[str, str]]]) -> dict[str, Any]:
    binds, volumes = [], []
    for text in o.volume:
        if ":" in text:
            source, _, rest = text.partition(":")
            # A relative path that looks like one is the host's; a bare word is a volume's name.
            if source.startswith((".", "~")):
                source = os.path.abspath(os.path.expanduser(source))
            binds.append(f"{source}:{rest}")
        else:
            volumes.append(text)
    config: dict[str, Any] = {
        "Binds": binds or None,
        "NetworkMode": o.network or o.net or "default",
        "PortBindings": bindings,
        "PublishAllPorts": o.publish_all,
        "AutoRemove": o.rm,
        "RestartPolicy": _restart(o.restart),
        "CapAdd": o.cap_add or None,
        "CapDrop": o.cap_drop or None,
        "Dns": o.dns,
        "DnsOptions": o.dns_option,
        "DnsSearch": o.dns_search,
        "ExtraHosts": [text.replace("=", ":", 1) if "=" in text else text for text in o.add_host] or None,
        "GroupAdd": o.group_add or None,
        "IpcMode": o.ipc,
        "OomScoreAdj": o.oom_score_adj or 0,
        "PidMode": o.pid,
        "Privileged": o.privileged,
        "ReadonlyRootfs": o.read_only,
        "SecurityOpt": _security(o.security_opt) or None,
        "Tmpfs": {target: options for target, _, options in (text.partition(":") for text in o.tmpfs)} or None,
        "UTSMode": o.uts,
        "UsernsMode": o.userns,
        "ShmSize": parse_size(o.shm_size, "--shm-size") if o.shm_size else None,
        "Sysctls": dict(_pair(text, "--sysctl") for text in o.sysctl) or None,
        "Runtime": o.runtime,
        "CgroupParent": o.cgroup_parent,
        "CgroupnsMode": o.cgroupns,
        "CpuShares": o.cpu_shares or 0,
        "CpuPeriod": o.cpu_period or 0,
        "CpuQuota": o.cpu_quota or 0,
        "CpusetCpus": o.cpuset_cpus,
        "CpusetMems": o.cpuset_mems,
        "NanoCpus": _cpus(o.cpus),
        "Memory": _bytes(o.memory, "memory"),
        "MemoryReservation": _bytes(o.memory_reservation, "memory-reservation"),
        "MemorySwap": _bytes(o.memory_swap, "memory-swap"),
        "MemorySwappiness": o.memory_swappiness,
        "OomKillDisable": o.oom_kill_disable or None,
        "PidsLimit": o.pids_limit,
        "Init": True if o.init else None,
        "Devices": [_device(text) for text in o.device],
        "DeviceCgroupRules": o.device_cgroup_rule or None,
        "Ulimits": [_ulimit(text) for text in o.ulimit],
        "VolumeDriver": o.volume_driver,
        "VolumesFrom": o.volumes_from or None,
        "Mounts": [_mount(text) for text in o.mount] or None,
        "LogConfig": {"Type": o.log_driver, "Config": dict(_pair(text, "--log-opt") for text in o.log_opt)},
        "Annotations": dict(_pair(text, "--annotation") for text in o.annotation) or None,
    }
    for target in volumes:
        config.setdefault("Mounts", None)
        config["Mounts"] = [*(config["Mounts"] or []), {"Type": "volume", "Target": target}]
    return config


def _pair(text: str, flag: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f'invalid argument "{text}" for "{flag}" flag: it must look like KEY=VALUE')
    return key, value


def _lines(path: str, what: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig") as f:
            lines = f.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"open {what} {path}", cause=getattr(error, "strerror", "") or str(error)) from error
    return [line.lstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def environment(given: list[str], files: list[str]) -> list[str]:
    """A name without a value takes the caller's; one that the caller does not have is left out of a file."""
    found = []
    for path in files:
        for line in _lines(path, "--env-file"):
            name, equals, _ = line.partition("=")
            if not name or name != name.strip():
                raise InvalidArgument(
                    f"invalid env file ({path}): variable '{name}' contains whitespaces or is empty"
                )
            if equals:
                found.append(line)
            elif name in os.environ:
                found.append(f"{name}={os.environ[name]}")
    for entry in given:
        name, equals, _ = entry.partition("=")
        if not name:
            raise UsageError(
                f'invalid argument "{entry}" for "-e, --env" flag: invalid environment variable: {entry}'
            )
        if equals:
            found.append(entry)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
        else:
            found.append(name)
    return found


def _labels(given: list[str], files: list[str]) -> dict[str, str]:
    lines = [line for path in files for line in _lines(path, "--label-file")]
    return {key: value for key, _, value in (text.partition("=") for text in [*lines, *given])}


def _cpus(text: str) -> int:
    if not text:
        return 0
    try:
        value = float(text)
    except ValueError:
        value = -1
    if value < 0:
        raise UsageError(f'invalid argument "{text}" for "--cpus" flag: failed to parse as a number of CPUs')
    return round(value * 10**9)


def _bytes(text: str, flag: str) -> int:
    if not text:
        return 0
    if text == "-1":
        return -1
    try:
        return parse_size(text, f"--{flag}")
    except InvalidArgument:
        raise UsageError(f'invalid argument "{text}" for "--{flag}" flag: invalid size: \'{text}\'') from None


def _restart(text: str) -> dict[str, Any]:
    name, colon, count = text.partition(":")
    if colon and not count.isdigit():
        raise UsageError(f"invalid restart policy format: maximum retry count must be an integer, not {count!r}")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def _ports(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (first.isdigit() and last.isdigit()) or not 0 < int(first) <= int(last) < 65536:
        raise UsageError(f"invalid {what}: {text}")
    return int(first), int(last)


def _exposed(values: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for value in values:
        text, _, protocol = value.partition("/")
        first, last = _ports(text, "port in --expose")
        found.update({f"{number}/{protocol or 'tcp'}": {} for number in range(first, last + 1)})
    return found


def _published(values: list[str]) -> dict[str, list[dict[str, str]]]:
    """``[[IP:]HOSTPORT:]PORT[/PROTOCOL]``, ranges included."""
    found: dict[str, list[dict[str, str]]] = {}
    for value in values:
        text, _, protocol = value.partition("/")
        protocol = protocol or "tcp"
        if protocol not in ("tcp", "udp", "sctp"):
            raise UsageError(f"invalid proto: {protocol}")
        rest, colon, inside = text.rpartition(":")
        ip, _, outside = rest.rpartition(":") if colon else ("", "", "")
        first, last = _ports(inside, f"containerPort in '{value}'")
        if outside:
            low, high = _ports(outside, f"hostPort in '{value}'")
            if high - low != last - first and first != last:
                raise UsageError(f"invalid ranges specified for container and host Ports: {inside} and {outside}")
        for number in range(first, last + 1):
            host = ""
            if outside:
                host = outside if first == last else str(low + number - first)
            found.setdefault(f"{number}/{protocol}", []).append({"HostIp": ip.strip("[]"), "HostPort": host})
    return found


def _device(text: str) -> dict[str, str]:
    parts = text.split(":")
    if not 1 <= len(parts) <= 3:
        raise UsageError(f"invalid device specification: {text}")
    target, permissions = parts[0], "rwm"
    if len(parts) == 2:
        if set(parts[1]) <= set("rwm"):
            permissions = parts[1]
        else:
            target = parts[1]
    elif len(parts) == 3:
        target, permissions = parts[1], parts[2]
    return {"PathOnHost": parts[0], "PathInContainer": target, "CgroupPermissions": permissions}


def _ulimit(text: str) -> dict[str, Any]:
    name, equals, values = text.partition("=")
    soft, _, hard = values.partition(":")
    hard = hard or soft
    if not equals or not soft.lstrip("-").isdigit() or not hard.lstrip("-").isdigit():
        raise UsageError(f'invalid argument "{text}" for "--ulimit" flag: invalid ulimit argument: {text}')
    return {"Name": name, "Soft": int(soft), "Hard": int(hard)}


def _security(values: list[str]) -> list[str]:
    """A seccomp profile is a file here and its text for the engine, which may be on another host."""
    found = []
    for value in values:
        key, _, path = value.partition("=")
        if key == "seccomp" and path not in ("unconfined", "builtin"):
            try:
                with open(path, encoding="utf-8") as f:
                    value = f"seccomp={f.read()}"
            except OSError as error:
                raise InvalidArgument(
                    f"opening seccomp profile ({path}) failed: open {path}: {(error.strerror or str(error)).lower()}"
                ) from error
        if value == "seccomp=builtin":
            continue
        found.append(value)
    return found


def _mount(text: str) -> dict[str, Any]:
    """``type=bind,source=/a,target=/b,readonly`` as an API mount; raises UsageError in docker's words."""
    mount: dict[str, Any] = {"Type": "volume"}
    options: dict[str, Any] = {}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        key = key.lower()
        if key == "type":
            mount["Type"] = value.lower()
        elif key in ("source", "src"):
            mount["Source"] = os.path.abspath(value) if value.startswith(".") else value
        elif key in ("target", "dst", "destination"):
            mount["Target"] = value
        elif key in ("readonly", "ro"):
            mount["ReadOnly"] = value.lower() not in ("false", "0") if equals else True
        elif key == "bind-propagation":
            options["Propagation"] = value
        elif key == "bind-create-src":
            options["CreateMountpoint"] = value.lower() not in ("false", "0")
        elif key == "volume-nocopy":
            options["NoCopy"] = value.lower() not in ("false", "0") if equals else True
        elif key == "volume-label":
            options.setdefault("Labels", {}).update([value.partition("=")[::2]])
        elif key == "volume-driver":
            options["DriverConfig"] = {"Name": value}
        elif key == "tmpfs-size":
            options["SizeBytes"] = parse_size(value, "tmpfs-size")
        elif key == "tmpfs-mode":
            options["Mode"] = int(value, 8)
        elif key == "consistency":
            mount["Consistency"] = value
        else:
            raise UsageError(f"invalid argument \"{text}\" for \"--mount\" flag: unexpected key '{key}' in '{field}'")
    if "Target" not in mount:
        raise UsageError(f'invalid argument "{text}" for "--mount" flag: target is required')
    if options:
        mount[{"bind": "BindOptions", "tmpfs": "TmpfsOptions"}.get(mount["Type"], "VolumeOptions")] = options
    return mount
