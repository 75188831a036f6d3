"""Who stands where, and what is sent: pure."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from typing import NamedTuple

from ringfence.host.policy.sources import link_local

SEGMENT = {"name": "t", "bridge": "rf-t", "subnet": "172.20.0.0/24", "subnet6": "fd00:20::/64"}
OTHER = {"name": "u", "bridge": "rf-u", "subnet": "172.21.0.0/24", "subnet6": "fd00:21::/64"}


class Member(NamedTuple):
    """A container, or the bridge itself."""

    name: str
    bridge: str
    mac: str
    address: str
    address6: str


A, B, C, HOST = (
    Member(name, "rf-t", f"02:42:ac:14:00:{n:02x}", f"172.20.0.{n}", f"fd00:20::{n}")
    for name, n in (("a", 10), ("b", 11), ("c", 12), ("host", 1))
)
D, E, GUESTS = (
    Member(name, "custom0", f"02:42:ac:4d:00:{n:02x}", f"192.168.77.{n}", f"fd00:77::{n}")
    for name, n in (("d", 10), ("e", 11), ("guests", 1))
)
ELSEWHERE = Member("f", "rf-u", "02:42:ac:15:00:0a", "172.21.0.10", "fd00:21::10")
MEMBERS, BRIDGES = (A, B, C, D, E), (HOST, GUESTS)

ALL, NOBODY = "ff:ff:ff:ff:ff:ff", "02:11:22:33:44:55"
NONE = "00:00:00:00:00:00"
PORT, CALLERS_PORT = 5432, 53  # what A may ask of B, and what C and ELSEWHERE may


def flow(source: Member, port: int, proto: str) -> dict[str, object]:
    """A declared flow to B."""
    return {
        "name": f"{source.name} > b", "from_bridge": source.bridge, "to_bridge": B.bridge, "source": source.address,
        "source6": source.address6, "destination": B.address, "destination6": B.address6, "proto": proto, "port": port,
    }  # fmt: skip


FLOWS = [flow(A, PORT, "tcp"), flow(A, PORT, "udp"), flow(C, CALLERS_PORT, "udp"), flow(ELSEWHERE, CALLERS_PORT, "udp")]

# -- frames: each is made around eight bytes by which its receiver knows it

ARP, IPV4, IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
Made = Callable[[bytes], bytes]


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _sum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(to: str, by: str, kind: bytes, payload: bytes) -> bytes:
    return (_mac(to) + _mac(by) + kind + payload).ljust(60, b"\0")


def arp(operation: int, mac: str, address: str, asked: str, *, at: str = NONE) -> bytes:
    """Somebody at `mac` says to have `address`."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    own, other = ipaddress.IPv4Address(address).packed, ipaddress.IPv4Address(asked).packed
    return head + _mac(mac) + own + _mac(at) + other


def ip4(source: str, destination: str, proto: int, payload: bytes) -> bytes:
    ends = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, proto, 0) + ends
    return head[:10] + struct.pack("!H", _sum(head)) + head[12:] + payload


# Extension headers in which nothing is asked for, by their numbers: hop-by-hop, fragment (all of it), destination.
HEADERS = {0: bytes([0, 1, 4, 0, 0, 0, 0]), 44: bytes([0, 0, 0, 0, 0, 0, 1]), 60: bytes([0, 1, 4, 0, 0, 0, 0])}
HOPS, FRAGMENT, OPTIONS = HEADERS


def ip6(source: str, destination: str, proto: int, payload: bytes, behind: int | None = None) -> bytes:
    """A packet, whose payload may stand behind an extension header."""
    ends = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed
    body = payload if behind is None else bytes([proto]) + HEADERS[behind] + payload
    return struct.pack("!IHBB", 6 << 28, len(body), proto if behind is None else behind, 255) + ends + body


def _pseudo6(source: str, destination: str, proto: int, length: int) -> bytes:
    ends = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed
    return ends + struct.pack("!II", length, proto)


def udp(source: str, destination: str, port: int, mark: bytes, behind: int | None = None) -> bytes:
    """A whole datagram, of either family."""
    head = struct.pack("!HHH", 40000, port, 8 + len(mark))
    if ":" not in source:
        return ip4(source, destination, 17, head + b"\0\0" + mark)
    check = _sum(_pseudo6(source, destination, 17, 8 + len(mark)) + head + b"\0\0" + mark)
    return ip6(source, destination, 17, head + struct.pack("!H", check) + mark, behind)


def icmp6(
    source: str, destination: str, kind: int, body: bytes, mark: bytes, *, flags: int = 0, behind: int | None = None
) -> bytes:
    """A message of neighbour discovery (RFC 4861) with an option that nobody knows, which receivers pass over."""
    rest = struct.pack("!I", flags) + body + bytes([253, 2, 0, 0, 0, 0, 0, 0]) + mark
    check = _sum(_pseudo6(source, destination, 58, 4 + len(rest)) + bytes([kind, 0, 0, 0]) + rest)
    return ip6(source, destination, 58, struct.pack("!BBH", kind, 0, check) + rest, behind)


def _link(option: int, mac: str) -> bytes:
    return bytes([option, 1]) + _mac(mac)


def _packed(address: str) -> bytes:
    return ipaddress.IPv6Address(address).packed


def asks(source: str, target: str, mac: str, mark: bytes) -> bytes:
    """A neighbour solicitation."""
    to = str(ipaddress.IPv6Address(_packed("ff02::1:ff00:0")[:13] + _packed(target)[13:]))
    return icmp6(source, to, 135, _packed(target) + (b"" if source == "::" else _link(1, mac)), mark)


def tells(source: str, target: str, mac: str, mark: bytes, behind: int | None = None) -> bytes:
    """A neighbour advertisement to all that overrides what they know."""
    return icmp6(source, "ff02::1", 136, _packed(target) + _link(2, mac), mark, flags=0x20000000, behind=behind)


def leads(source: str, mac: str, mark: bytes, behind: int | None = None) -> bytes:
    """A router advertisement."""
    body = struct.pack("!II", 0, 0) + _link(1, mac)
    return icmp6(source, "ff02::1", 134, body, mark, flags=0x40000708, behind=behind)


def redirects(source: str, mark: bytes) -> bytes:
    return icmp6(source, B.address6, 137, _packed(source) + _packed("fd00:99::1"), mark)


def redirects4(mark: bytes) -> bytes:
    """A says to B: what is for 192.0.2.1 goes to A."""
    rest = ipaddress.IPv4Address(A.address).packed + udp(B.address, "192.0.2.1", 7, mark)
    return ip4(A.address, B.address, 1, struct.pack("!BBH", 5, 1, _sum(b"\x05\x01\0\0" + rest)) + rest)


A6 = link_local(A.mac)
TAG, NO_VLAN, PROVIDER = b"\x81\x00\x00\x05", b"\x81\x00\x00\x00", b"\x88\xa8\x00\x07"
PRIVATE = b"\x88\xb5"  # IEEE's for local experiments


def others(by: Member, to: Member) -> dict[str, Made]:
    """Frames that are neither ARP nor a plain packet, though what is in some of them may be asked."""

    def call(mark: bytes) -> bytes:
        return udp(by.address, to.address, PORT, mark)

    return {
        "VLAN": lambda m: frame(to.mac, by.mac, TAG + IPV4, call(m)),
        "VLAN, IPv6": lambda m: frame(to.mac, by.mac, TAG + IPV6, udp(by.address6, to.address6, PORT, m)),
        "priority tag": lambda m: frame(to.mac, by.mac, NO_VLAN + IPV4, call(m)),
        "provider tag": lambda m: frame(to.mac, by.mac, PROVIDER + IPV4, call(m)),
        "QinQ": lambda m: frame(to.mac, by.mac, PROVIDER + TAG + IPV4, call(m)),
        "two tags of one kind": lambda m: frame(to.mac, by.mac, TAG + TAG + IPV4, call(m)),
        "tagged ARP": lambda m: frame(ALL, by.mac, NO_VLAN + ARP, arp(1, by.mac, by.address, to.address) + m),
        "tagged router advertisement": lambda m: frame(
            ALL, by.mac, NO_VLAN + IPV6, leads(link_local(by.mac), by.mac, m)
        ),
        "private ethertype": lambda m: frame(to.mac, by.mac, PRIVATE, m),
        "private ethertype to all, another's MAC": lambda m: frame(ALL, NOBODY, PRIVATE, m),
        "PPPoE": lambda m: frame(to.mac, by.mac, b"\x88\x64", b"\x11\0\0\1\0\x1e\0\x21" + call(m)),
        "LLC": lambda m: frame(to.mac, by.mac, b"\x00\x2e", b"\xf0\xf0\x03" + m),
        "LLC with SNAP": lambda m: frame(to.mac, by.mac, b"\x00\x2e", b"\xaa\xaa\x03\0\0\0" + IPV4 + call(m)),
        "RARP": lambda m: frame(ALL, by.mac, b"\x80\x35", arp(3, by.mac, by.address, to.address) + m),
    }  # fmt: skip


# What A tries: everything that no neighbour, and not the host, may believe or answer.
LIES: dict[str, Made] = {
    **others(A, B),
    "ARP answer for the gateway": lambda m: frame(B.mac, A.mac, ARP, arp(2, A.mac, HOST.address, B.address) + m),
    "ARP question for the gateway": lambda m: frame(ALL, A.mac, ARP, arp(1, A.mac, HOST.address, B.address) + m),
    "ARP for the gateway, another's MAC": lambda m: frame(
        ALL, NOBODY, ARP, arp(1, NOBODY, HOST.address, B.address) + m
    ),
    "ARP for the gateway, another's MAC inside": lambda m: frame(
        ALL, A.mac, ARP, arp(2, NOBODY, HOST.address, B.address) + m
    ),
    "ARP for the gateway, another's MAC outside": lambda m: frame(
        ALL, NOBODY, ARP, arp(2, A.mac, HOST.address, B.address) + m
    ),
    "ARP for oneself, another's MAC inside": lambda m: frame(ALL, A.mac, ARP, arp(1, NOBODY, A.address, B.address) + m),
    "ARP for oneself, a neighbour's MAC inside": lambda m: frame(
        ALL, A.mac, ARP, arp(1, C.mac, A.address, B.address) + m
    ),
    "ARP answer for a neighbour": lambda m: frame(B.mac, A.mac, ARP, arp(2, A.mac, C.address, B.address) + m),
    "ARP announcement for a neighbour": lambda m: frame(ALL, A.mac, ARP, arp(1, A.mac, C.address, C.address) + m),
    "ARP for an address of nobody": lambda m: frame(ALL, A.mac, ARP, arp(1, A.mac, "172.20.0.99", B.address) + m),
    "ARP for another segment's": lambda m: frame(ALL, A.mac, ARP, arp(1, A.mac, ELSEWHERE.address, B.address) + m),
    "ARP with another segment's pair": lambda m: frame(
        ALL, ELSEWHERE.mac, ARP, arp(1, ELSEWHERE.mac, ELSEWHERE.address, B.address) + m
    ),
    "ARP of other hardware": lambda m: frame(
        ALL, A.mac, ARP, b"\x00\x06" + arp(1, A.mac, HOST.address, B.address)[2:] + m
    ),
    "NA for the gateway": lambda m: frame(ALL, A.mac, IPV6, tells(A6, HOST.address6, A.mac, m)),
    "NA for the gateway, behind a header of hops": lambda m: frame(
        ALL, A.mac, IPV6, tells(A6, HOST.address6, A.mac, m, HOPS)
    ),
    "NA for the gateway, behind options": lambda m: frame(
        ALL, A.mac, IPV6, tells(A6, HOST.address6, A.mac, m, OPTIONS)
    ),
    "NA for the gateway, as a fragment": lambda m: frame(
        ALL, A.mac, IPV6, tells(A6, HOST.address6, A.mac, m, FRAGMENT)
    ),
    "NA for a neighbour": lambda m: frame(ALL, A.mac, IPV6, tells(A.address6, C.address6, A.mac, m)),
    "NA from a neighbour's address": lambda m: frame(ALL, A.mac, IPV6, tells(C.address6, C.address6, A.mac, m)),
    "NA, another's MAC": lambda m: frame(ALL, NOBODY, IPV6, tells(A6, HOST.address6, NOBODY, m)),
    "NS from a neighbour's address": lambda m: frame(ALL, A.mac, IPV6, asks(C.address6, B.address6, A.mac, m)),
    "NS from the gateway's address": lambda m: frame(ALL, A.mac, IPV6, asks(HOST.address6, B.address6, A.mac, m)),
    "NS that tries a neighbour's address": lambda m: frame(ALL, A.mac, IPV6, asks("::", C.address6, A.mac, m)),
    "router advertisement": lambda m: frame(ALL, A.mac, IPV6, leads(A6, A.mac, m)),
    "router advertisement, behind a header of hops": lambda m: frame(ALL, A.mac, IPV6, leads(A6, A.mac, m, HOPS)),
    "router advertisement, behind options": lambda m: frame(ALL, A.mac, IPV6, leads(A6, A.mac, m, OPTIONS)),
    "router advertisement, as a fragment": lambda m: frame(ALL, A.mac, IPV6, leads(A6, A.mac, m, FRAGMENT)),
    "router advertisement, another's MAC": lambda m: frame(ALL, NOBODY, IPV6, leads(link_local(NOBODY), NOBODY, m)),
    "router solicitation": lambda m: frame(ALL, A.mac, IPV6, icmp6(A6, "ff02::2", 133, b"", m)),
    "redirect, IPv6": lambda m: frame(B.mac, A.mac, IPV6, redirects(A6, m)),
    "redirect, IPv4": lambda m: frame(B.mac, A.mac, IPV4, redirects4(m)),
    "a caller's address": lambda m: frame(B.mac, A.mac, IPV4, udp(C.address, B.address, CALLERS_PORT, m)),
    "a caller's address, IPv6": lambda m: frame(B.mac, A.mac, IPV6, udp(C.address6, B.address6, CALLERS_PORT, m)),
    "another segment's caller": lambda m: frame(B.mac, A.mac, IPV4, udp(ELSEWHERE.address, B.address, CALLERS_PORT, m)),
    "another segment's caller, IPv6": lambda m: frame(
        B.mac, A.mac, IPV6, udp(ELSEWHERE.address6, B.address6, CALLERS_PORT, m)
    ),
    "another segment's caller, its MAC": lambda m: frame(
        B.mac, ELSEWHERE.mac, IPV4, udp(ELSEWHERE.address, B.address, CALLERS_PORT, m)
    ),
    "the gateway's address": lambda m: frame(B.mac, A.mac, IPV4, udp(HOST.address, B.address, PORT, m)),
    "the gateway's address, IPv6": lambda m: frame(B.mac, A.mac, IPV6, udp(HOST.address6, B.address6, PORT, m)),
    "an address of nobody": lambda m: frame(B.mac, A.mac, IPV4, udp("198.51.100.7", B.address, PORT, m)),
    "own address, another's MAC": lambda m: frame(B.mac, NOBODY, IPV4, udp(A.address, B.address, PORT, m)),
    "own address, another's MAC, IPv6": lambda m: frame(B.mac, NOBODY, IPV6, udp(A.address6, B.address6, PORT, m)),
    "undeclared port": lambda m: frame(B.mac, A.mac, IPV4, udp(A.address, B.address, 5433, m)),
    "undeclared port, IPv6": lambda m: frame(B.mac, A.mac, IPV6, udp(A.address6, B.address6, 5433, m)),
    "undeclared port, behind options": lambda m: frame(
        B.mac, A.mac, IPV6, udp(A.address6, B.address6, 5433, m, OPTIONS)
    ),
    "undeclared port, as a fragment": lambda m: frame(
        B.mac, A.mac, IPV6, udp(A.address6, B.address6, 5433, m, FRAGMENT)
    ),
}  # fmt: skip

# What A tries on the host itself.
LIES_TO_HOST: dict[str, Made] = {
    **{f"{name}, to the host": made for name, made in others(A, HOST).items()},
    "ARP answer for a neighbour, to the host": lambda m: frame(
        HOST.mac, A.mac, ARP, arp(2, A.mac, C.address, HOST.address) + m
    ),
    "ARP of nobody, to the host": lambda m: frame(
        HOST.mac, NOBODY, ARP, arp(1, NOBODY, "172.20.0.99", HOST.address) + m
    ),
}

# What A must be able to send.
OWN: dict[str, Made] = {
    "own ARP question": lambda m: frame(ALL, A.mac, ARP, arp(1, A.mac, A.address, B.address) + m),
    "own ARP answer": lambda m: frame(B.mac, A.mac, ARP, arp(2, A.mac, A.address, B.address, at=B.mac) + m),
    "own ARP probe": lambda m: frame(ALL, A.mac, ARP, arp(1, A.mac, "0.0.0.0", A.address) + m),
    "own ARP announcement": lambda m: frame(ALL, A.mac, ARP, arp(1, A.mac, A.address, A.address) + m),
    "own NS": lambda m: frame(ALL, A.mac, IPV6, asks(A.address6, B.address6, A.mac, m)),
    "own NS, link-local": lambda m: frame(ALL, A.mac, IPV6, asks(A6, B.address6, A.mac, m)),
    "own NA": lambda m: frame(ALL, A.mac, IPV6, tells(A.address6, A.address6, A.mac, m)),
    "own NA, link-local": lambda m: frame(ALL, A.mac, IPV6, tells(A6, A6, A.mac, m)),
    "own address is tried": lambda m: frame(ALL, A.mac, IPV6, asks("::", A.address6, A.mac, m)),
    "own link-local address is tried": lambda m: frame(ALL, A.mac, IPV6, asks("::", A6, A.mac, m)),
    "declared flow": lambda m: frame(B.mac, A.mac, IPV4, udp(A.address, B.address, PORT, m)),
    "declared flow, IPv6": lambda m: frame(B.mac, A.mac, IPV6, udp(A.address6, B.address6, PORT, m)),
}

D6 = link_local(D.mac)
# What D sends to E, on a bridge that is none of ours: whatever it is, it is not ours to judge.
FOREIGN: dict[str, Made] = {
    **others(D, E),
    "own ARP question": lambda m: frame(ALL, D.mac, ARP, arp(1, D.mac, D.address, E.address) + m),
    "own ARP answer": lambda m: frame(E.mac, D.mac, ARP, arp(2, D.mac, D.address, E.address, at=E.mac) + m),
    "ARP for the gateway, another's MAC": lambda m: frame(
        ALL, NOBODY, ARP, arp(2, NOBODY, GUESTS.address, E.address) + m
    ),
    "ARP for a segment's address": lambda m: frame(ALL, D.mac, ARP, arp(1, D.mac, C.address, E.address) + m),
    "own NS": lambda m: frame(ALL, D.mac, IPV6, asks(D.address6, E.address6, D.mac, m)),
    "NA for the gateway": lambda m: frame(ALL, D.mac, IPV6, tells(D6, GUESTS.address6, D.mac, m)),
    "router advertisement": lambda m: frame(ALL, D.mac, IPV6, leads(D6, D.mac, m)),
    "UDP": lambda m: frame(E.mac, D.mac, IPV4, udp(D.address, E.address, 7, m)),
    "UDP, IPv6": lambda m: frame(E.mac, D.mac, IPV6, udp(D.address6, E.address6, 7, m)),
}  # fmt: skip


class Round(NamedTuple):
    """Frames of one sender.

    Attributes:
        aim: who is to get them.
        control: name of the one that passes whatever is loaded: when it has arrived, all before it have or never will.
    """

    by: Member
    aim: Member
    frames: dict[str, Made]
    control: Made


ROUNDS = {
    "own": Round(A, B, OWN, OWN["own ARP question"]),
    "lies": Round(A, B, LIES, OWN["own ARP question"]),
    "to the host": Round(A, HOST, LIES_TO_HOST, OWN["own ARP question"]),
    "foreign": Round(D, E, FOREIGN, FOREIGN["own ARP question"]),
}
