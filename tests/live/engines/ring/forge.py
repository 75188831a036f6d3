"""Frames as an attacker writes them, byte by byte. Pure; every builder returns what one attempt puts on the wire."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from tests.live.engines.ring.agent.odd import checksum

IP4, IP6, ARP, VLAN, SERVICE_VLAN = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
HOP_BY_HOP, ROUTING, FRAGMENT, OPTIONS = 0, 43, 44, 60
ROUTER, SOLICITATION, ADVERTISEMENT, REDIRECT = 134, 135, 136, 137
EVERYBODY = "ff:ff:ff:ff:ff:ff"
SPORT = 1000  # below every port that a listener or an ordinary probe has


@dataclass(frozen=True)
class Station:
    """An interface: its MAC address, and its addresses, "" where it has none."""

    mac: str
    four: str = ""
    six: str = ""

    @property
    def local(self) -> str:
        """The link-local address that follows from the MAC address (RFC 4291)."""
        octets = _mac(self.mac)
        identifier = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
        return socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + bytes(6) + identifier)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _address(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def mac_of_group(address: str) -> str:
    """The MAC address of a group, or of everybody for IPv4's broadcast."""
    packed = _address(address)
    if len(packed) == 16:
        return "33:33:" + packed[12:].hex(":")
    return EVERYBODY if packed[0] >= 240 else f"01:00:5e:{packed[1] & 127:02x}:{packed[2]:02x}:{packed[3]:02x}"


def ether(to: str, source: str, kind: int, payload: bytes, *tags: tuple[int, int]) -> bytes:
    """A frame; `tags`: (ethertype, VLAN) from the outside in."""
    between = b"".join(struct.pack("!HH", *tag) for tag in tags)
    return (_mac(to) + _mac(source) + between + struct.pack("!H", kind) + payload).ljust(60, b"\0")


def packet(source: str, to: str, proto: int, body: bytes, *, hops: int = 64, fragment: int = 0) -> bytes:
    """An IPv4 or IPv6 packet; `fragment`: IPv4's flags and offset."""
    if ":" in to:
        return struct.pack("!IHBB", 6 << 28, len(body), proto, hops) + _address(source) + _address(to) + body

    def header(total: int) -> bytes:
        start = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 4646, fragment, hops, proto, total)
        return start + _address(source) + _address(to)

    return header(checksum(header(0))) + body


def _sum(source: str, to: str, proto: int, body: bytes) -> int:
    form = "!II" if ":" in to else "!HH"
    return checksum(_address(source) + _address(to) + struct.pack(form, proto, len(body)) + body)


def datagram(source: str, to: str, port: int, mark: bytes, sport: int = SPORT) -> bytes:
    """A UDP header and what it carries."""
    head = struct.pack("!HHH", sport, port, 8 + len(mark))
    total = _sum(source, to, UDP, head + b"\0\0" + mark)
    return head + struct.pack("!H", total or 0xFFFF) + mark


def syn(source: str, to: str, port: int, mark: bytes, sport: int = SPORT) -> bytes:
    """The first segment of a connection, with data in it."""

    def header(total: int) -> bytes:
        return struct.pack("!HHIIBBHHH", sport, port, 1, 0, 5 << 4, 2, 8192, total, 0) + mark

    return header(_sum(source, to, TCP, header(0)))


def icmp6(source: str, to: str, kind: int, body: bytes) -> bytes:
    """A message of ICMPv6, type `kind` and code 0."""
    total = _sum(source, to, ICMP6, bytes([kind, 0, 0, 0]) + body)
    return struct.pack("!BBH", kind, 0, total) + body


def echo(mark: bytes) -> bytes:
    """A request for an echo, IPv4."""
    body = bytes([8, 0, 0, 0]) + struct.pack("!HH", 1, 1) + mark
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def redirect4(source: str, victim: str, gateway: str, mark: bytes) -> bytes:
    """ICMP redirect: what the victim sends to `source` had better go by `gateway`."""
    about = packet(victim, source, UDP, datagram(victim, source, 9, mark))
    body = bytes([5, 1, 0, 0]) + _address(gateway) + about
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def arp(operation: int, sender: tuple[str, str], target: tuple[str, str], mark: bytes) -> bytes:
    """`sender` and `target`: (MAC address, IPv4 address). The mark stands where frames are padded."""
    ends = b"".join(_mac(mac) + _address(four) for mac, four in (sender, target))
    return struct.pack("!HHBBH", 1, IP4, 6, 4, operation) + ends + mark


def _option(kind: int, data: bytes) -> bytes:
    data = data.ljust((len(data) + 2 + 7) // 8 * 8 - 2, b"\0")
    return bytes([kind, (len(data) + 2) // 8]) + data


def _marked(mark: bytes) -> bytes:
    return _option(253, mark)  # RFC 4727: for experiments, so that receivers skip it


def advertisement(of: str, mac: str, mark: bytes) -> bytes:
    """Neighbour advertisement, unsolicited and overriding: `of` is at `mac`."""
    return struct.pack("!I", 0x20000000) + _address(of) + _option(2, _mac(mac)) + _marked(mark)


def solicitation(target: str, mac: str, mark: bytes) -> bytes:
    """Neighbour solicitation; without a MAC address, as one who looks for duplicates asks."""
    return bytes(4) + _address(target) + (_option(1, _mac(mac)) if mac else b"") + _marked(mark)


def router(prefix: str, mark: bytes) -> bytes:
    """Router advertisement: an address of `prefix` for a few seconds, and no default route, which would last."""
    information = struct.pack("!BBIII", 64, 0xC0, 10, 10, 0) + _address(prefix)
    return struct.pack("!BBHII", 64, 0, 0, 0, 0) + _option(3, information) + _marked(mark)


def redirect6(to: str, target: str, mac: str, mark: bytes) -> bytes:
    """What goes to `to` had better go to `target`."""
    return bytes(4) + _address(target) + _address(to) + _option(2, _mac(mac)) + _marked(mark)


def behind(proto: int, body: bytes, *kinds: int) -> tuple[int, bytes]:
    """(first header, what follows) of a body behind IPv6's extension headers, from the outside in."""
    for kind in reversed(kinds):
        if kind == FRAGMENT:  # of a whole, RFC 6946
            head = struct.pack("!BBHI", proto, 0, 0, 4646)
        elif kind == ROUTING:
            head = bytes([proto, 0, 0, 0, 0, 0, 0, 0])
        else:
            head = bytes([proto, 0, 1, 4, 0, 0, 0, 0])
        proto, body = kind, head + body
    return proto, body


def fragments(source: str, to: str, proto: int, body: bytes, size: int = 8) -> list[bytes]:
    """A packet in two: the first fragment has `size` bytes, so that ports may stand in it and no more."""
    parts = [(0, body[:size], 1), (size, body[size:], 0)]
    if ":" not in to:
        return [packet(source, to, proto, part, fragment=more << 13 | at // 8) for at, part, more in parts]
    return [
        packet(source, to, FRAGMENT, struct.pack("!BBHI", proto, 0, at | more, 4646) + part) for at, part, more in parts
    ]
