"""What a packet is, and which probe sent it. Pure."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any

TCP, UDP = 6, 17
# ICMP of both families; and what asks for an echo, redirects, or is neighbour discovery. All else tells of an error.
ERRORS, ASKS = (1, 58), (b"\x08", b"\x80", b"\x05", *(bytes([kind]) for kind in range(133, 138)))
ETHERTYPES = {0x0800, 0x86DD}
TAGS = {0x8100, 0x88A8}
SYN, ACK = 0x02, 0x10
MARK = b"RING "
FRAGMENT6 = 44
_SKIPPED6 = (0, 43, 60)  # hop-by-hop, routing, destination options


@dataclass(frozen=True)
class Packet:
    """The part of a packet that tells a probe; `ports` are (0, 0) behind the first fragment."""

    source: str
    proto: int
    ports: tuple[int, int]
    flags: int
    payload: bytes
    first: bool = True


def parse(packet: bytes) -> Packet | None:
    """Read an IPv4 or IPv6 packet; None for what is neither, or cut off."""
    try:
        return _parse4(packet) if packet[0] >> 4 == 4 else _parse6(packet) if packet[0] >> 4 == 6 else None
    except (IndexError, struct.error):
        return None


def _parse4(packet: bytes) -> Packet:
    length = (packet[0] & 15) * 4
    first = struct.unpack("!H", packet[6:8])[0] & 0x1FFF == 0
    return _transport(socket.inet_ntop(socket.AF_INET, packet[12:16]), packet[9], packet[length:], first)


def _parse6(packet: bytes) -> Packet:
    proto, rest, first = packet[6], packet[40:], True
    while proto in _SKIPPED6 or proto == FRAGMENT6:
        if proto == FRAGMENT6:
            first = first and struct.unpack("!H", rest[2:4])[0] >> 3 == 0
            size = 8
        else:
            size = 8 + rest[1] * 8
        proto, rest = rest[0], rest[size:]
    return _transport(socket.inet_ntop(socket.AF_INET6, packet[8:24]), proto, rest, first)


def _transport(source: str, proto: int, rest: bytes, first: bool) -> Packet:
    if not first:
        return Packet(source, proto, (0, 0), 0, rest, first=False)
    if proto == TCP:
        ports = struct.unpack("!HH", rest[:4])
        return Packet(source, proto, (ports[0], ports[1]), rest[13], rest[(rest[12] >> 4) * 4 :])
    if proto == UDP:
        ports = struct.unpack("!HH", rest[:4])
        return Packet(source, proto, (ports[0], ports[1]), 0, rest[8:])
    return Packet(source, proto, (0, 0), 0, rest)


def segment(proto: int, rest: bytes) -> Packet | None:
    """Read what follows a header of IPv6, as the kernel hands it to raw sockets; None for what is cut off."""
    try:
        return _transport("", proto, rest, first=True)
    except (IndexError, struct.error):
        return None


def inner(frame: bytes) -> tuple[int, bytes]:
    """(ethertype, payload) of a frame behind all its tags. Raises struct.error for what is cut off."""
    at = 12
    while (kind := struct.unpack_from("!H", frame, at)[0]) in TAGS:
        at += 4
    return kind, frame[at + 2 :]


def probe_in(frame: bytes, probes: dict[str, dict[str, Any]]) -> str:
    """The id of the probe that sent this frame, whatever it carries."""
    try:
        kind, payload = inner(frame)
    except struct.error:
        return ""
    if kind in ETHERTYPES:
        seen = parse(payload)
        return probe_of(seen, probes) if seen else ""
    mark = marked(payload)
    return mark if mark in probes else ""


def marked(payload: bytes) -> str:
    """The probe whose mark a payload carries, "" without one."""
    _, found, rest = payload.partition(MARK)
    return rest.split(b"\n")[0].decode(errors="replace") if found else ""


def probe_of(packet: Packet, probes: dict[str, dict[str, Any]]) -> str:
    """The id of the probe that sent this packet, "" for anything else: every attempt is one such packet.

    A datagram says it, as does an odd packet. The first packet of a connection is told by its source port: every probe
    has a range of its own, which masquerading keeps.

    Args:
        probes: {id: probe}.
    """
    if packet.first and packet.proto in ERRORS and packet.payload[:1] not in ASKS:  # an error repeats what it is about
        return ""
    mark = marked(packet.payload)
    if mark in probes and (packet.proto != TCP or probes[mark]["proto"] != "tcp"):
        return mark
    if packet.proto == TCP and packet.flags & (SYN | ACK) == SYN:
        for name, probe in probes.items():
            if probe["proto"] == "tcp" and probe["first"] <= packet.ports[0] < probe["first"] + probe["span"]:
                return name
    return ""
