"""Address translation for published ports and for traffic out, as one nftables table (linux/netfilter/nf_tables.h).

The table is made whole in one transaction; a published port is one element of a map, which costs 9 microseconds
however many there are.  In nft's words, for bridge ``boxship0`` with 172.30.0.0/16::

    table ip boxship0 {
        map bound { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }   # -p IP:PORT
        map any   { type inet_proto . inet_service : ipv4_addr . inet_service }               # -p PORT
        chain prerouting  { type nat hook prerouting priority -100
            fib daddr type local  dnat ip to ip daddr . meta l4proto . th dport map @bound
            fib daddr type local  dnat ip to meta l4proto . th dport map @any }
        chain output      { ... the same, for the host's own connections }
        chain postrouting { type nat hook postrouting priority 100
            ip saddr 172.30.0.0/16 oifname != "boxship0" masquerade
            ip saddr 127.0.0.0/8   oifname "boxship0" masquerade                    # published on loopback
            ip saddr 172.30.0.0/16 oifname "boxship0" ct status dnat masquerade }   # a container's own port
    }
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from struct import pack

from boxship.errors import NotFound

from .netlink import (
    NETLINK_NETFILTER,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Socket,
    attribute,
    attributes,
    be32,
    each_attribute,
    nested,
    string,
)

# Message types: (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_*; a batch is framed by its own two.
SUBSYSTEM = 10 << 8
BEGIN, END = 0x10, 0x11
NEWTABLE, DELTABLE, NEWCHAIN, NEWRULE, GETRULE, DELRULE, NEWSET = 0, 2, 3, 6, 7, 8, 9
NEWSETELEM, DELSETELEM = 12, 14

TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_SERVICE = 7, 12, 13  # nft(8)'s datatypes, so that it can print our maps
SET_MAP = 0x8
HOOKS = {"prerouting": 0, "forward": 2, "output": 3, "postrouting": 4}

# 32-bit registers, next to each other for concatenations
R0, R1, R2 = 8, 9, 10
REG1 = 1
VERDICT = 0
META_IIFNAME, META_OIFNAME, META_L4PROTO = 6, 7, 16
EQUAL, NOT_EQUAL = 0, 1
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
FIB_ADDRTYPE, FIB_DADDR, RTN_LOCAL = 3, 2, 2
CT_STATUS, IPS_DST_NAT = 2, 1 << 5
NAT_DNAT, NAT_MAP_IPS, NAT_PROTO = 1, 1, 2
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": 132}


@dataclass(frozen=True)
class Port:
    """A published port: connections to ``host_ip`` (0.0.0.0: any local address) go to ``ip``."""

    host_ip: IPv4Address
    host_port: int
    protocol: str
    ip: IPv4Address
    port: int


# -- expressions


def _expression(name: str, *data: bytes) -> bytes:
    return nested(1, string(1, name), nested(2, *data))


def _value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(1, data))


def _meta(key: int, register: int) -> bytes:
    return _expression("meta", be32(1, register), be32(2, key))


def _payload(base: int, offset: int, length: int, register: int) -> bytes:
    return _expression("payload", be32(1, register), be32(2, base), be32(3, offset), be32(4, length))


def _compare(register: int, operator: int, data: bytes) -> bytes:
    return _expression("cmp", be32(1, register), be32(2, operator), _value(3, data))


def _interface(key: int, operator: int, name: str) -> list[bytes]:
    return [_meta(key, REG1), _compare(REG1, operator, name.encode().ljust(16, b"\0"))]


def _source(network: IPv4Network) -> list[bytes]:
    mask = network.netmask.packed
    return [
        _payload(NETWORK_HEADER, 12, 4, REG1),
        _expression("bitwise", be32(1, REG1), be32(2, REG1), be32(3, 4), _value(4, mask), _value(5, bytes(4))),
        _compare(REG1, EQUAL, network.network_address.packed),
    ]


def _to_this_host() -> list[bytes]:
    return [
        _expression("fib", be32(1, REG1), be32(2, FIB_ADDRTYPE), be32(3, FIB_DADDR)),
        _compare(REG1, EQUAL, pack("=I", RTN_LOCAL)),
    ]


def _dnat_by_map(name: str, key: list[bytes]) -> list[bytes]:
    return [
        *_to_this_host(),
        *key,
        _expression("lookup", string(1, name), be32(2, R0), be32(3, R0)),
        _expression(
            "nat",
            be32(1, NAT_DNAT),
            be32(2, socket.AF_INET),
            be32(3, R0),
            be32(4, R0),
            be32(5, R1),
            be32(6, R1),
            be32(7, NAT_MAP_IPS | NAT_PROTO),
        ),
    ]


def _was_translated() -> list[bytes]:
    bit = pack("=I", IPS_DST_NAT)
    return [
        _expression("ct", be32(1, REG1), be32(2, CT_STATUS)),
        _expression("bitwise", be32(1, REG1), be32(2, REG1), be32(3, 4), _value(4, bit), _value(5, bytes(4))),
        _compare(REG1, NOT_EQUAL, bytes(4)),
    ]


def _masquerade() -> bytes:
    return _expression("masq")


def _accept() -> list[bytes]:
    verdict = nested(2, nested(2, be32(1, 1)))
    return [_expression("counter"), _expression("immediate", be32(1, VERDICT), verdict)]


# -- messages


def _message(kind: int, flags: int, what: str, *body: bytes) -> Message:
    generic = pack(">BBH", socket.AF_INET, 0, 0)
    return Message(SUBSYSTEM | kind, flags, generic + b"".join(body), what)


def _frame(kind: int) -> Message:
    return Message(kind, 0, pack(">BBH", socket.AF_UNSPEC, 0, 10), "nftables batch")


def _transact(messages: list[Message]) -> None:
    with Socket(NETLINK_NETFILTER) as netlink:
        netlink.run([_frame(BEGIN), *messages, _frame(END)], unacknowledged=(BEGIN, END))


def _chain(table: str, name: str, kind: str, priority: int) -> Message:
    return _message(
        NEWCHAIN,
        NLM_F_CREATE,
        f"make nftables chain {table} {name}",
        string(1, table),
        string(3, name),
        nested(4, be32(1, HOOKS[name]), be32(2, priority)),
        be32(5, 1),
        string(7, kind),
    )


def _rule(table: str, chain: str, expressions: list[bytes], *, insert: bool = False) -> Message:
    flags = NLM_F_CREATE if insert else NLM_F_CREATE | 0x800
    return _message(
        NEWRULE,
        flags,
        f"add nftables rule to {table} {chain}",
        string(1, table),
        string(2, chain),
        nested(4, *expressions),
    )


def _map(table: str, name: str, key_type: int, key_length: int, id: int) -> Message:
    return _message(
        NEWSET,
        NLM_F_CREATE,
        f"make nftables map {table} {name}",
        string(1, table),
        string(2, name),
        be32(3, SET_MAP),
        be32(4, key_type),
        be32(5, key_length),
        be32(6, TYPE_ADDRESS << 6 | TYPE_SERVICE),
        be32(7, 8),
        be32(10, id),
    )


def _element(table: str, kind: int, port: Port) -> Message:
    key = pack("B3x", PROTOCOLS[port.protocol]) + pack(">H2x", port.host_port)
    name = "any"
    if int(port.host_ip):
        name, key = "bound", port.host_ip.packed + key
    element = [_value(1, key)]
    if kind == NEWSETELEM:
        element.append(_value(2, port.ip.packed + pack(">H2x", port.port)))
    return _message(
        kind,
        NLM_F_CREATE | NLM_F_EXCL if kind == NEWSETELEM else 0,
        f"publish {port.host_ip}:{port.host_port}/{port.protocol}",
        string(1, table),
        string(2, name),
        nested(3, nested(1, *element)),
    )


def set_up(table: str, bridge: str, network: IPv4Network, ports: list[Port]) -> None:
    """Make the table anew with these ports, in one transaction: there is no moment without it."""
    by_service = [_meta(META_L4PROTO, R0), _payload(TRANSPORT_HEADER, 2, 2, R1)]
    by_address = [
        _payload(NETWORK_HEADER, 16, 4, R0),
        _meta(META_L4PROTO, R1),
        _payload(TRANSPORT_HEADER, 2, 2, R2),
    ]
    loopback = IPv4Network("127.0.0.0/8")
    pair = TYPE_PROTOCOL << 6 | TYPE_SERVICE
    name = string(1, table)
    messages = [
        _message(NEWTABLE, NLM_F_CREATE, f"make nftables table {table}", name),
        _message(DELTABLE, 0, f"clear nftables table {table}", name),
        _message(NEWTABLE, NLM_F_CREATE, f"make nftables table {table}", name),
        _map(table, "bound", TYPE_ADDRESS << 12 | pair, 12, 1),
        _map(table, "any", pair, 8, 2),
        _chain(table, "prerouting", "nat", -100),
        _chain(table, "output", "nat", -100),
        _chain(table, "postrouting", "nat", 100),
    ]
    for chain in ("prerouting", "output"):
        messages.append(_rule(table, chain, _dnat_by_map("bound", by_address)))
        messages.append(_rule(table, chain, _dnat_by_map("any", by_service)))
    out = _interface(META_OIFNAME, NOT_EQUAL, bridge)
    back = _interface(META_OIFNAME, EQUAL, bridge)
    messages += [
        _rule(table, "postrouting", rule)
        for rule in (
            [*_source(network), *out, _masquerade()],
            [*_source(loopback), *back, _masquerade()],
            [*_source(network), *back, *_was_translated(), _masquerade()],
        )
    ]
    messages += [_element(table, NEWSETELEM, port) for port in ports]
    _transact(messages)


def accept_forwarding(bridge: str) -> None:
    """Where iptables has a FORWARD chain (a dockerd sets its policy to drop), let the bridge's traffic pass.

    The rules are what ``iptables -I FORWARD -i BRIDGE -j ACCEPT`` makes, so iptables still reads the chain.
    Those of an earlier engine are replaced; `refuse_forwarding` takes them away.
    """
    try:
        _transact(
            _forwarding_withdrawn(bridge)
            + [
                _rule("filter", "FORWARD", [*_interface(key, EQUAL, bridge), *_accept()], insert=True)
                for key in (META_IIFNAME, META_OIFNAME)
            ]
        )
    except NotFound:
        return  # no iptables here, and so no policy in the way


def refuse_forwarding(bridge: str) -> None:
    """Take the rules of `accept_forwarding` away; repeated is fine."""
    try:
        if messages := _forwarding_withdrawn(bridge):
            _transact(messages)
    except NotFound:
        return  # no iptables, or somebody flushed the chain


def _forwarding_withdrawn(bridge: str) -> list[Message]:
    """What deletes our rules in iptables' chain, known by their shape and the bridge's name. Raises NotFound."""
    chain = (string(1, "filter"), string(2, "FORWARD"))
    with Socket(NETLINK_NETFILTER) as netlink:
        found = netlink.dump(SUBSYSTEM | GETRULE, pack(">BBH", socket.AF_INET, 0, 0) + b"".join(chain))
    rules = [attributes(data[4:]) for data in found]  # after the generic header
    return [
        _message(DELRULE, 0, f"delete nftables rule of {bridge}", *chain, attribute(3, rule[3]))
        for rule in rules
        if is_forwarding_rule(rule.get(4, b""), bridge)
    ]


def is_forwarding_rule(expressions: bytes, bridge: str) -> bool:
    """Whether a rule is interface, counter, verdict and nothing else, for exactly this interface."""
    parts = [attributes(value) for _, value in each_attribute(expressions)]
    names = [part.get(1, b"").rstrip(b"\0") for part in parts]
    return names == [b"meta", b"cmp", b"counter", b"immediate"] and bridge.encode().ljust(16, b"\0") in parts[1][2]


def tear_down(table: str) -> None:
    """Remove the table; one that is gone is fine."""
    try:
        _transact([_message(DELTABLE, 0, f"delete nftables table {table}", string(1, table))])
    except NotFound:
        return


def publish(table: str, ports: list[Port]) -> None:
    """Add ports, all or none; raises AlreadyExists for one that is published already."""
    if ports:
        _transact([_element(table, NEWSETELEM, port) for port in ports])


def unpublish(table: str, ports: list[Port]) -> None:
    """Remove ports; those that are gone are fine."""
    for port in ports:
        try:
            _transact([_element(table, DELSETELEM, port)])
        except NotFound:
            continue
