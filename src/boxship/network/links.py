"""Bridges, veth pairs, addresses and routes, as rtnetlink messages (rtnetlink(7), linux/if_link.h)."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network
from struct import pack, unpack_from

from .netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Socket,
    attribute,
    attributes,
    nested,
    string,
    u32,
)

RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_GETROUTE = 16, 17, 20, 24, 26
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_PID = 1, 3, 4, 10, 18, 19
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BRPORT_MODE, VETH_INFO_PEER = 4, 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
IFF_UP = 1
RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 3, 0, 1


def _link(index: int = 0, up: bool = False) -> bytes:
    """struct ifinfomsg."""
    return pack("=BxHiII", socket.AF_UNSPEC, 0, index, IFF_UP if up else 0, IFF_UP if up else 0)


def bridge(name: str) -> Message:
    """A new bridge, up."""
    body = _link(up=True) + string(IFLA_IFNAME, name) + nested(IFLA_LINKINFO, string(IFLA_INFO_KIND, "bridge"))
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"make bridge {name}")


def set_up(name: str) -> Message:
    return Message(RTM_NEWLINK, 0, _link(up=True) + string(IFLA_IFNAME, name), f"set link {name} up")


def delete(name: str) -> Message:
    return Message(RTM_DELLINK, 0, _link() + string(IFLA_IFNAME, name), f"delete link {name}")


def veth(name: str, master: int, peer: str, pid: int, mac: bytes) -> list[Message]:
    """A pair in one message: our end up and on the bridge, the other end in the network namespace of ``pid``.

    The second message lets the bridge send frames back out of the port they came from: a container that calls its
    own published port is answered through it.
    """
    # The peer cannot be up yet: a veth is opened only when it knows its other end (ENOTCONN).
    inside = _link() + string(IFLA_IFNAME, peer) + attribute(IFLA_ADDRESS, mac) + u32(IFLA_NET_NS_PID, pid)
    body = (
        _link(up=True)
        + string(IFLA_IFNAME, name)
        + u32(IFLA_MASTER, master)
        + nested(
            IFLA_LINKINFO,
            string(IFLA_INFO_KIND, "veth"),
            nested(IFLA_INFO_DATA, nested(VETH_INFO_PEER, inside)),
        )
    )
    hairpin = (
        _link()
        + string(IFLA_IFNAME, name)
        + nested(
            IFLA_LINKINFO,
            string(IFLA_INFO_SLAVE_KIND, "bridge"),
            nested(IFLA_INFO_SLAVE_DATA, attribute(IFLA_BRPORT_MODE, b"\1")),
        )
    )
    return [
        Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"make veth pair {name}, {peer} of process {pid}"),
        Message(RTM_NEWLINK, 0, hairpin, f"set hairpin on {name}"),
    ]


def address(index: int, ip: IPv4Address, network: IPv4Network, what: str) -> Message:
    body = (
        pack("=BBBBI", socket.AF_INET, network.prefixlen, 0, 0, index)
        + attribute(IFA_LOCAL, ip.packed)
        + attribute(IFA_ADDRESS, ip.packed)
        + attribute(IFA_BROADCAST, network.broadcast_address.packed)
    )
    return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, f"add address {ip}/{network.prefixlen} to {what}")


def default_route(index: int, gateway: IPv4Address) -> Message:
    body = (
        pack(
            "=BBBBBBBBI",
            socket.AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0,
        )
        + attribute(RTA_GATEWAY, gateway.packed)
        + u32(RTA_OIF, index)
    )  # fmt: skip
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, f"add default route via {gateway}")


def routed_networks(netlink: Socket) -> list[IPv4Network]:
    """Every IPv4 network that this host has a route to, the default one left out."""
    body = pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
    found = []
    for answer in netlink.dump(RTM_GETROUTE, body):
        length = unpack_from("=BB", answer)[1]
        destination = attributes(answer[12:]).get(RTA_DST)
        if destination is not None and len(destination) == 4 and 0 < length < 32:
            found.append(IPv4Network((IPv4Address(destination), length), strict=False))
    return found
