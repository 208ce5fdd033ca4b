"""linux.netDevices: devices of the host that become the container's.

The creator moves them, because only it is privileged over both namespaces; inside they get their addresses back and
come up (runtime-spec, config-linux.md, Network Devices).
"""

from errno import ENODEV

from boxship.errors import InvalidArgument
from boxship.libcontainer.plan.ops import Await, Netlink

from .context import Context
from .namespaces import NET_DEVICES

LONGEST_NAME = 15  # IFNAMSIZ without its NUL


def _check_name(name: object, where: str) -> str:
    """What the kernel takes for a name (dev_valid_name)."""
    if not isinstance(name, str) or not 0 < len(name.encode()) <= LONGEST_NAME or name in (".", ".."):
        raise InvalidArgument(f"{where}: {name!r} is not a name of 1 to {LONGEST_NAME} bytes")
    if any(char in "/:" or char.isspace() for char in name):
        raise InvalidArgument(f"{where}: {name!r} has a character that names of network devices cannot have")
    return name


def net_devices(c: Context) -> None:
    """Meet the creator, who moves them; then addresses and up."""
    devices = c.linux.get("netDevices") or {}
    if not devices:
        return
    if "network" not in c.created and "network" not in c.joined:
        raise InvalidArgument(
            "linux.netDevices: the container has no network namespace of its own",
            remedy="add one to linux.namespaces",
        )
    if not c.privileged:
        raise InvalidArgument("linux.netDevices: moving network devices needs root", remedy="leave netDevices away")
    names: list[str] = []
    for name, settings in devices.items():
        _check_name(name, "linux.netDevices")
        wanted = _check_name((settings or {}).get("name") or name, f"linux.netDevices.{name}.name")
        if wanted in names:
            raise InvalidArgument(f"linux.netDevices: two devices would be called {wanted!r}")
        if "%" not in wanted:
            names.append(wanted)
    from boxship.libcontainer import netdevices

    found = {name: c.host_now.network_device(name) for name in devices}
    # A device that is moved and then cannot be renamed would be lost with the namespace.
    for wanted in names:
        c.purpose(f"look whether the name {wanted} is free in the container's network namespace")
        c.add(Netlink(netdevices.get_link(wanted), tolerate=(ENODEV,)))
    c.purpose(f"wait for the network devices {', '.join(devices)}")
    c.add(Await(NET_DEVICES))
    for name, (index, addresses) in found.items():
        c.purpose(f"set up the network device {name}")
        for address in addresses:
            c.add(Netlink(netdevices.add_address(index, address)))
        c.add(Netlink(netdevices.set_up(index)))
