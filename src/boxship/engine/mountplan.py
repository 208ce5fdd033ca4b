"""Which binds, volumes and tmpfs a container gets: from what was asked for to resolved mount points.

Later sources override earlier ones for the same destination, as in dockerd: image volumes, then --volumes-from,
then -v, then --mount.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from boxship.errors import InvalidArgument

from . import parse
from .models import ContainerConfig, HostConfig, MountPoint, MountRequest, Record
from .volumes import Volumes


@dataclass
class MountPlan:
    points: list[MountPoint]
    anonymous: list[str]  # names of volumes that were made for this container alone
    copy_up: list[MountPoint]  # new volumes, which get what the image has at their destination


def plan(config: ContainerConfig, host: HostConfig, volumes: Volumes, find: Callable[[str], Record]) -> MountPlan:
    """Resolve, making the volumes that do not exist; raises InvalidArgument that names the option."""
    points: dict[str, MountPoint] = {}
    fresh: dict[str, MountPoint] = {}
    anonymous: dict[str, str] = {}

    def volume(name: str, destination: str, writable: bool, mode: str, copy: bool, **more: Any) -> None:
        existed = bool(name) and volumes.find(name) is not None
        made = volumes.create(name, host.VolumeDriver or more.get("driver", ""), more.get("labels"))
        point = MountPoint(
            "volume", made.Mountpoint, destination, Name=made.Name, Driver="local", Mode=mode, RW=writable,
            Propagation="",
        )  # fmt: skip
        points[destination] = point
        fresh.pop(destination, None)
        if not existed:
            if copy:
                fresh[destination] = point
            if not name:
                anonymous[destination] = made.Name

    for destination in config.Volumes or {}:
        clean = _destination(destination, f"volume {destination}")
        volume("", clean, True, "", True)
    for text in host.VolumesFrom or []:
        reference, _, mode = text.partition(":")
        for point in find(reference).Mounts:
            if point.Type in ("bind", "volume"):
                points[point.Destination] = MountPoint(
                    point.Type, point.Source, point.Destination, Name=point.Name, Driver=point.Driver,
                    Mode=point.Mode, RW=point.RW and mode != "ro", Propagation=point.Propagation,
                )  # fmt: skip
    for text in host.Binds or []:
        source, target, modes = parse.bind(text)
        destination = _destination(target, f"volume specification '{text}'")
        writable = "ro" not in modes
        mode = ",".join(modes)
        if source.startswith("/"):
            propagation = next((m for m in modes if m in parse.PROPAGATIONS), "rprivate")
            # -v makes the directory that it binds, --mount does not: both as dockerd.
            os.makedirs(source, exist_ok=True) if not os.path.lexists(source) else None
            points[destination] = MountPoint(
                "bind", source, destination, Mode=mode, RW=writable, Propagation=propagation
            )
        else:
            volume(source, destination, writable, mode or "z", "nocopy" not in modes)
    for request in host.Mounts or []:
        _mount_request(request, points, volume)
    return MountPlan(
        sorted(points.values(), key=lambda point: point.Destination),
        [name for destination, name in anonymous.items() if points[destination].Name == name],
        [point for destination, point in fresh.items() if points[destination] is point],
    )


def _destination(path: str, what: str) -> str:
    if not path.startswith("/"):
        raise InvalidArgument(f"invalid {what}: mount path must be absolute")
    clean = os.path.normpath(path)
    if clean in ("/", "//"):
        raise InvalidArgument(f"invalid {what}: destination can't be '/'")
    return clean


def _mount_request(request: MountRequest, points: dict[str, MountPoint], volume: Callable[..., None]) -> None:
    what = f'mount config for type "{request.Type}"'
    if not request.Target:
        raise InvalidArgument(f"invalid {what}: field Target must not be empty")
    destination = _destination(request.Target, what)
    if request.Type == "bind":
        if not request.Source:
            raise InvalidArgument(f"invalid {what}: field Source must not be empty")
        if not request.Source.startswith("/"):
            raise InvalidArgument(
                f"invalid {what}: invalid mount path: '{request.Source}' mount path must be absolute"
            )
        options = request.BindOptions or {}
        if not os.path.lexists(request.Source):
            if not options.get("CreateMountpoint"):
                raise InvalidArgument(f"invalid {what}: bind source path does not exist: {request.Source}")
            os.makedirs(request.Source, exist_ok=True)
        points[destination] = MountPoint(
            "bind", request.Source, destination, Mode="", RW=not request.ReadOnly,
            Propagation=options.get("Propagation") or "rprivate",
        )  # fmt: skip
    elif request.Type == "volume":
        options = request.VolumeOptions or {}
        driver = options.get("DriverConfig") or {}
        volume(
            request.Source, destination, not request.ReadOnly, "z", not options.get("NoCopy"),
            labels=options.get("Labels"), driver=driver.get("Name", ""),
        )  # fmt: skip
    elif request.Type == "tmpfs":
        options = request.TmpfsOptions or {}
        modes = []
        if options.get("SizeBytes"):
            modes.append(f"size={options['SizeBytes']}")
        if options.get("Mode"):
            modes.append(f"mode={options['Mode']:o}")
        points[destination] = MountPoint(
            "tmpfs", "", destination, Mode=",".join(modes), RW=not request.ReadOnly, Propagation=""
        )
    else:
        raise InvalidArgument(
            f'invalid mount config for type "{request.Type}": mount type unknown', remedy="bind, volume, tmpfs"
        )
