"""Creating a container: from the request and the image to a record and a snapshot. Nothing runs yet.

The order, which is also the order of undoing: name reserved, volumes made, snapshot prepared, files written, record
announced.  Until the record is there, a failure takes all of it back.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from dataclasses import dataclass
from typing import Protocol

import msgspec

from boxship.api.containerd import Client
from boxship.api.containerd.snapshots import MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest
from boxship.api.containerd.types import Mount
from boxship.errors import InvalidArgument, NotFound, Unimplemented
from boxship.image.rooted import open_in_root

from . import mountplan, names, parse, rootview, spec
from .clock import now
from .config import EngineConfig
from .models import (
    MASKED_PATHS,
    READONLY_PATHS,
    ContainerConfig,
    CreateRequest,
    HostConfig,
    LogConfig,
    MountPoint,
    Record,
    RestartPolicy,
    words,
)
from .store import ContainerStore
from .volumes import Volumes

SNAPSHOTTER = "overlayfs"
GC_ROOT = "containerd.io/gc.root"
LOG_OPTIONS = frozenset({"compress", "env", "env-regex", "labels", "labels-regex", "max-file", "max-size", "tag"})
MIN_MEMORY = 6 * 1024 * 1024  # dockerd refuses less: a process cannot start in it


@dataclass(frozen=True)
class ImageFacts:
    """What creating a container needs of an image."""

    id: str  # digest of the config
    ground: str  # the snapshot that a container's own is made on
    config: ContainerConfig
    platform: tuple[str, str, str] = ("linux", "", "")  # os, architecture, variant


class ImageSource(Protocol):
    async def facts(self, reference: str) -> ImageFacts:
        """Raises NotFound, worded ``No such image: ...``."""


class Creator:
    """The one door through which containers come to be."""

    def __init__(
        self,
        client: Client,
        store: ContainerStore,
        images: ImageSource,
        volumes: Volumes,
        config: EngineConfig,
        host: spec.HostFacts,
    ) -> None:
        self._client = client
        self._store = store
        self._images = images
        self._volumes = volumes
        self._config = config
        self._host = host

    async def create(self, name: str, request: CreateRequest, platform: str = "") -> tuple[Record, list[str]]:
        """A new container's record, and warnings; raises InvalidArgument, NotFound (image), AlreadyExists (name).

        ``platform`` (``linux/arm64``) is what the image must be for, "" is any.
        """
        host_config = request.HostConfig or HostConfig()
        _refuse_not_offered(request, host_config)
        config = msgspec.convert(
            msgspec.to_builtins(request), type=ContainerConfig
        )  # without the two parts that are not configuration
        image = await self._images.facts(request.Image)
        if platform:
            _check_platform(request.Image, image.platform, platform)
        _merge(config, image.config)
        warnings = self._check(config, host_config)
        id = names.new_id()
        name = name.removeprefix("/") or names.new_name(self._store.name_is_free)
        self._store.reserve(name, id)
        try:
            return await self._create(id, name, request, config, host_config, image), warnings
        except BaseException:
            self._store.release(name, id)
            raise

    async def _create(
        self,
        id: str,
        name: str,
        request: CreateRequest,
        config: ContainerConfig,
        host_config: HostConfig,
        image: ImageFacts,
    ) -> Record:
        argv = [*(words(config.Entrypoint) or []), *(words(config.Cmd) or [])]
        config.Hostname = self._hostname(config, host_config, id)
        plan = mountplan.plan(config, host_config, self._volumes, self._other)
        prepared = False
        directory = self._store.directory(id)
        try:
            record = Record(
                Id=id,
                Name=name,
                Created=now(),
                Config=config,
                HostConfig=host_config,
                Path=argv[0],
                Args=argv[1:],
                Image=image.id,
                ImageName=request.Image,
                Mounts=plan.points,
                AnonymousVolumes=plan.anonymous,
            )
            if request.NetworkingConfig and request.NetworkingConfig.EndpointsConfig:
                record.Networks = {
                    key: value for key, value in request.NetworkingConfig.EndpointsConfig.items() if value
                }
            await self._client.snapshots.Prepare(
                PrepareSnapshotRequest(
                    snapshotter=SNAPSHOTTER, key=id, parent=image.ground, labels={GC_ROOT: record.Created}
                )
            )
            prepared = True
            if plan.copy_up or config.WorkingDir not in ("", "/"):
                response = await self._client.snapshots.Mounts(MountsRequest(snapshotter=SNAPSHOTTER, key=id))
                await asyncio.to_thread(self._prepare_rootfs, response.mounts, config.WorkingDir, plan.copy_up)
            directory.mkdir(mode=0o710)
            await self._store.add(record)
        except BaseException:
            if prepared:
                await self._client.snapshots.Remove(RemoveSnapshotRequest(snapshotter=SNAPSHOTTER, key=id))
            for volume in plan.anonymous:
                self._volumes.remove(volume, force=True)
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return record

    def _prepare_rootfs(self, mounts: list[Mount], working_dir: str, copy_up: list[MountPoint]) -> None:
        """Make the working directory, and give new volumes what the image has in their place."""
        with rootview.of_mounts(mounts) as root:
            if working_dir not in ("", "/"):
                make_directories(root, working_dir)
            for point in copy_up:
                copy_into_volume(root, point.Destination, point.Source)

    def _hostname(self, config: ContainerConfig, host_config: HostConfig, id: str) -> str:
        if host_config.NetworkMode == "host" or host_config.UTSMode == "host":
            return config.Hostname or os.uname().nodename
        if host_config.NetworkMode.startswith("container:"):
            return self._other(host_config.NetworkMode.partition(":")[2]).Config.Hostname
        return config.Hostname or id[:12]

    def _other(self, reference: str) -> Record:
        """A container that an option names. Not NotFound: the CLI would take it for the image and pull."""
        try:
            return self._store.get(reference)
        except NotFound as error:
            raise InvalidArgument(str(error)) from error

    def _check(self, config: ContainerConfig, host: HostConfig) -> list[str]:
        """Fill in the defaults, refuse what cannot work; gives warnings."""
        warnings: list[str] = []
        if not (words(config.Entrypoint) or []) and not (words(config.Cmd) or []):
            raise InvalidArgument("No command specified")
        if config.WorkingDir and not config.WorkingDir.startswith("/"):
            raise InvalidArgument(
                f"the working directory '{config.WorkingDir}' is invalid, it needs to be an absolute path"
            )
        if config.WorkingDir:
            config.WorkingDir = os.path.normpath(config.WorkingDir)
        for entry in config.Env or []:
            if not entry or entry.startswith("="):
                raise InvalidArgument(f"invalid environment variable: {entry}")
        if config.StopSignal:
            parse.signal_number(config.StopSignal)
        if len(config.Hostname) > 63 or any(not (c.isalnum() or c in "-.") for c in config.Hostname):
            raise InvalidArgument(f"invalid hostname format: {config.Hostname}")
        for text in [*(config.ExposedPorts or {}), *(host.PortBindings or {})]:
            parse.port(text)
        for bindings in (host.PortBindings or {}).values():
            for binding in bindings or []:
                parse.port_range(binding.HostPort)
        self._check_host(host, warnings)
        _check_conflicts(config, host)
        return warnings

    def _check_host(self, host: HostConfig, warnings: list[str]) -> None:
        if host.NetworkMode in ("", "default"):
            host.NetworkMode = "bridge"
        if not host.Runtime:
            host.Runtime = self._config.default_runtime
        if not host.LogConfig.Type:
            defaults = self._config.log_opts if not host.LogConfig.Config else {}
            host.LogConfig = LogConfig(self._config.log_driver, {**defaults, **(host.LogConfig.Config or {})})
        if host.LogConfig.Config is None:
            host.LogConfig.Config = {}
        if host.LogConfig.Type not in ("json-file", "none"):
            raise InvalidArgument(f"logger: no log driver named '{host.LogConfig.Type}' is registered")
        policy = host.RestartPolicy
        _check_log_options(host.LogConfig)
        if host.DeviceRequests:
            asked = host.DeviceRequests[0]
            raise InvalidArgument(
                f'could not select device driver "{asked.get("Driver") or ""}" with capabilities: '
                f"{_brackets(asked.get('Capabilities') or [])}"
            )
        if policy.Name not in ("", "no", "always", "on-failure", "unless-stopped"):
            raise InvalidArgument(f"invalid restart policy: unknown policy '{policy.Name}'")
        if policy.MaximumRetryCount < 0:
            raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
        if policy.MaximumRetryCount and policy.Name != "on-failure":
            raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
        if not policy.Name:
            host.RestartPolicy = RestartPolicy("no", 0)
        if host.AutoRemove and host.RestartPolicy.Name != "no":
            raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
        if 0 < host.Memory < MIN_MEMORY:
            raise InvalidArgument("Minimum memory limit allowed is 6MB")
        if host.MemorySwap > 0 and not host.Memory:
            raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
        if host.MemorySwap > 0 and host.MemorySwap < host.Memory:
            raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit")
        if host.NanoCpus and (host.CpuQuota or host.CpuPeriod):
            raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set")
        if host.NanoCpus < 0 or host.NanoCpus > self._host.cpus * 10**9:
            raise InvalidArgument(
                f"Range of CPUs is from 0.01 to {self._host.cpus}.00, as there are only {self._host.cpus} CPUs "
                "available"
            )
        _check_cpuset(host.CpusetCpus, self._host.cpus)
        for capability in [*(host.CapAdd or []), *(host.CapDrop or [])]:
            spec.normal_capability(capability)
        if host.OomKillDisable and not host.Memory:
            warnings.append("OOM killer is disabled for the container, but no memory limit is set")
        if host.ShmSize is None:
            host.ShmSize = spec.DEFAULT_SHM
        if host.ShmSize < 0:
            raise InvalidArgument("SHM size can not be less than 0")
        host.CgroupnsMode = host.CgroupnsMode or spec.default_cgroupns(self._host, host.Privileged)
        host.IpcMode = host.IpcMode or "private"
        if host.PortBindings and host.NetworkMode in ("host", "none"):
            warnings.append(f"Published ports are discarded when using {host.NetworkMode} network mode")
            if host.NetworkMode == "none":
                warnings.pop()
        if not host.Privileged:
            if host.MaskedPaths is None:
                host.MaskedPaths = list(MASKED_PATHS)
            if host.ReadonlyPaths is None:
                host.ReadonlyPaths = list(READONLY_PATHS)


def _check_conflicts(config: ContainerConfig, host: HostConfig) -> None:
    """Options that cannot be had together with a namespace of somebody else (moby's runconfig)."""
    if host.UTSMode == "host" and config.Hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if not host.NetworkMode.startswith("container:"):
        return
    for given, text in (
        (config.Hostname, "hostname and the network mode"),
        (host.Links, "container type network can't be used with links. This would result in undefined behavior"),
        (host.Dns, "dns and the network mode"),
        (host.ExtraHosts, "custom host-to-IP mapping and the network mode"),
        (config.MacAddress, "mac-address and the network mode"),
        (host.PortBindings or host.PublishAllPorts, "port publishing and the container type network mode"),
    ):
        if given:
            raise InvalidArgument(f"conflicting options: {text}")


def _check_log_options(log: LogConfig) -> None:
    if log.Type != "json-file":
        return
    options = log.Config or {}
    for key in options:
        if key not in LOG_OPTIONS:
            raise InvalidArgument(f"unknown log opt '{key}' for json-file log driver")
    parse.size(options.get("max-size", ""))
    files = options.get("max-file", "1")
    if not files.isdigit() or not int(files):
        raise InvalidArgument(f"max-file must be a number that is not less than 1: {files!r}")


def _check_platform(reference: str, has: tuple[str, str, str], wanted: str) -> None:
    """``OS[/ARCH[/VARIANT]]`` against what an image says; raises NotFound, as dockerd does, so clients may pull."""
    parts = wanted.lower().split("/")
    known = ("linux", "windows", "darwin", "freebsd")
    if len(parts) == 1 and parts[0] not in known:
        parts = ["linux", *parts]  # an architecture alone
    aliases = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}
    parts[1:2] = [aliases.get(part, part) for part in parts[1:2]]
    if any(there and asked != there for asked, there in zip(parts, has, strict=False)):
        raise NotFound(
            f"image with reference {reference} was found but does not match the specified platform: "
            f"wanted {'/'.join(parts)}, actual: {'/'.join(part for part in has if part)}"
        )


def _brackets(value: object) -> str:
    """Nested lists as Go prints them: ``[[gpu]]``."""
    return f"[{' '.join(map(_brackets, value))}]" if isinstance(value, list) else str(value)


# Options that would be ignored: they are refused, because a container without them is not what was asked for.
NOT_OFFERED = (
    "Links", "BlkioWeight", "BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps", "StorageOpt", "UsernsMode",
)  # fmt: skip
HARMLESS_USERNS = ("", "host")


def _refuse_not_offered(request: CreateRequest, host: HostConfig) -> None:
    for name in NOT_OFFERED:
        value = getattr(host, name)
        if value and not (name == "UsernsMode" and value in HARMLESS_USERNS):
            raise Unimplemented(f"HostConfig.{name} is not supported by this engine yet", remedy="leave it out")
    endpoints = (request.NetworkingConfig.EndpointsConfig or {}) if request.NetworkingConfig else {}
    if request.MacAddress or any(endpoint and endpoint.MacAddress for endpoint in endpoints.values()):
        raise Unimplemented("MacAddress is not supported by this engine yet", remedy="leave it out")
    for mount in host.Mounts or []:
        if (mount.VolumeOptions or {}).get("Subpath"):
            raise Unimplemented(f"mount {mount.Target}: volume-subpath is not supported by this engine yet")


def _check_cpuset(text: str, cpus: int) -> None:
    """``0-2,4`` must name processors that there are; raises InvalidArgument."""
    for part in text.split(",") if text else []:
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdigit() and last.isdigit()):
            raise InvalidArgument(f"Invalid value {text} for cpuset cpus")
        if int(last) >= cpus or int(first) > int(last):
            raise InvalidArgument(f"Requested CPUs are not available - requested {text}, available: 0-{cpus - 1}")


def _merge(config: ContainerConfig, image: ContainerConfig) -> None:
    """What the request leaves open comes from the image (dockerd's runconfig merge)."""
    if not config.User:
        config.User = image.User
    if image.ExposedPorts:
        config.ExposedPorts = {**image.ExposedPorts, **(config.ExposedPorts or {})}
    names_given = {entry.partition("=")[0] for entry in config.Env or []}
    config.Env = [*(config.Env or [])] + [
        entry for entry in image.Env or [] if entry.partition("=")[0] not in names_given
    ]
    config.Labels = {**(image.Labels or {}), **(config.Labels or {})}
    entrypoint = words(config.Entrypoint)
    if entrypoint == [""]:
        # --entrypoint "" takes the image's away, and with it the image's Cmd
        config.Entrypoint = None
    elif not entrypoint:
        if config.Cmd is None:
            config.Cmd = words(image.Cmd)
        config.Entrypoint = words(image.Entrypoint)
    if not config.WorkingDir:
        config.WorkingDir = image.WorkingDir
    if image.Volumes:
        config.Volumes = {**image.Volumes, **(config.Volumes or {})}
    if not config.StopSignal:
        config.StopSignal = image.StopSignal
    if config.Healthcheck is None:
        config.Healthcheck = image.Healthcheck
    if config.Shell is None:
        config.Shell = image.Shell
    config.Cmd = words(config.Cmd)
    config.Entrypoint = words(config.Entrypoint)


def make_directories(root: int, path: str) -> None:
    """``mkdir -p path`` below ``root``; raises InvalidArgument when a part of it is a file."""
    current = ""
    for part in path.strip("/").split("/"):
        parent, current = current, f"{current}/{part}"
        try:
            os.close(open_in_root(root, current, os.O_RDONLY | os.O_DIRECTORY))
            continue
        except FileNotFoundError:
            pass  # made just below
        except NotADirectoryError as error:
            raise InvalidArgument(f"working directory {path}: {current} is not a directory") from error
        fd = open_in_root(root, parent or "/", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.mkdir(part, 0o755, dir_fd=fd)
        except FileExistsError as error:
            raise InvalidArgument(f"working directory {path}: {current} is a dangling symlink") from error
        finally:
            os.close(fd)


def copy_into_volume(root: int, source: str, target: str) -> None:
    """Fill a new, empty volume with what the image has at its destination; nothing when it has none."""
    if os.listdir(target):
        return
    try:
        fd = open_in_root(root, source, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        directory = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _copy_tree(fd, directory)
        finally:
            os.close(directory)
    finally:
        os.close(fd)


def _copy_tree(source: int, target: int) -> None:
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            os.mkdir(name, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner, copy = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
            try:
                _copy_tree(inner, copy)
            finally:
                os.close(inner)
                os.close(copy)
        elif stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISREG(mode):
            _copy_file(name, source, target)
        else:
            os.mknod(name, mode, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(mode):
            os.chmod(name, stat.S_IMODE(mode), dir_fd=target)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)
    root = os.fstat(source)
    os.fchown(target, root.st_uid, root.st_gid)
    os.fchmod(target, stat.S_IMODE(root.st_mode))


def _copy_file(name: str, source: int, target: int) -> None:
    inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
    try:
        while os.sendfile(copy, inner, None, 1 << 24):
            continue
        for key in os.listxattr(inner):
            if not key.startswith("trusted.overlay."):
                os.setxattr(copy, key, os.getxattr(inner, key))
    finally:
        os.close(inner)
        os.close(copy)
