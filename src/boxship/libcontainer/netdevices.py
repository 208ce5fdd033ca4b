"""linux.netDevices on the creator's side: what a network device has, and its move into the container's namespace.

rtnetlink(7). A device that moves loses its addresses: they are read before, and the plan gives them back inside.
"""

from _socket import AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW, if_nametoindex, socket
from errno import errorcode
from struct import pack, unpack_from

from boxship.errors import FailedPrecondition, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 20, 22
REQUEST, ACK, DUMP, CREATE, EXCLUSIVE = 1, 4, 0x300, 0x400, 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
IFLA_IFNAME, IFLA_NET_NS_PID, IFLA_NEW_IFINDEX = 3, 19, 49
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
KEPT = (IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS)
PERMANENT = 0x80  # IFA_F_PERMANENT
UNIVERSE = 0  # RT_SCOPE_UNIVERSE
UP = 1  # IFF_UP


def message(type: int, flags: int, body: bytes) -> bytes:
    """One request, with its header (struct nlmsghdr)."""
    return pack("<IHHII", 16 + len(body), type, flags | REQUEST, 1, 0) + body


def attribute(type: int, value: bytes) -> bytes:
    """One attribute (struct rtattr), padded."""
    return pack("<HH", 4 + len(value), type) + value + bytes(-len(value) % 4)


def get_link(name: str) -> bytes:
    """The request for a device by its name."""
    return message(RTM_GETLINK, 0, pack("<BxHiII", 0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name.encode() + b"\0"))


def set_up(index: int) -> bytes:
    """The request that brings a device up."""
    return message(RTM_NEWLINK, ACK, pack("<BxHiII", 0, 0, index, UP, UP))


def add_address(index: int, address: "tuple[int, int, bytes]") -> bytes:
    """The request that gives a device one of the addresses that ``describe`` found."""
    family, prefix, attributes = address
    body = pack("<BBBBI", family, prefix, 0, UNIVERSE, index) + attributes
    return message(RTM_NEWADDR, ACK | CREATE | EXCLUSIVE, body)


def describe(name: str) -> "tuple[int, list[tuple[int, int, bytes]]]":
    """(index, its permanent addresses of global scope) of a device here; raises NotFound.

    An address is (family, prefix length, attributes as they are set).
    """
    try:
        index = if_nametoindex(name)
    except OSError as error:
        raise NotFound(f"linux.netDevices: there is no network device {name!r} here") from error
    found = []
    connection = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0)
    try:
        connection.send(message(RTM_GETADDR, DUMP, pack("<BBBBI", 0, 0, 0, 0, 0)))
        done = False
        while not done:
            data = connection.recv(1 << 18)
            at = 0
            while at + 16 <= len(data):
                size, type = unpack_from("<IH", data, at)
                if type in (NLMSG_DONE, NLMSG_ERROR) or size < 16:
                    done = True
                    break
                address = _address(data[at + 16 : at + size], index)
                if address:
                    found.append(address)
                at += (size + 3) & ~3
    finally:
        connection.close()
    return index, found


def _address(body: bytes, index: int) -> "tuple[int, int, bytes] | None":
    family, prefix, flags, scope, owner = unpack_from("<BBBBI", body)
    attributes, at = b"", 8
    while at + 4 <= len(body):
        size, type = unpack_from("<HH", body, at)
        if size < 4:
            break
        value = body[at + 4 : at + size]
        if type == IFA_FLAGS:
            flags = int.from_bytes(value, "little")
        if type in KEPT:
            attributes += attribute(type, value)
        at += (size + 3) & ~3
    if owner != index or scope != UNIVERSE or not flags & PERMANENT:
        return None
    return family, prefix, attributes


def move(devices: "dict[str, Any]", pid: int) -> None:
    """Move every device into the network namespace of a process, under its new name and with its index.

    Raises FailedPrecondition with the kernel's reason.
    """
    connection = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0)
    try:
        for name, settings in devices.items():
            index = if_nametoindex(name)
            wanted = (settings or {}).get("name") or name
            attributes = (
                attribute(IFLA_NET_NS_PID, pack("<I", pid))
                + attribute(IFLA_IFNAME, wanted.encode() + b"\0")
                + attribute(IFLA_NEW_IFINDEX, pack("<i", index))
            )
            connection.send(message(RTM_NEWLINK, ACK, pack("<BxHiII", 0, 0, index, 0, 0) + attributes))
            error = -int(unpack_from("<i", connection.recv(4096), 16)[0])
            if error:
                raise FailedPrecondition(
                    f"linux.netDevices: move {name} into the container as {wanted}",
                    cause=errorcode.get(error, str(error)),
                    remedy="EEXIST: the name, or the index, is taken there" if error == 17 else "",
                )
    finally:
        connection.close()
