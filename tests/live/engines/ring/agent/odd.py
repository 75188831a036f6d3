"""Packets that no ordinary program sends, each with its probe's mark. Needs root in the namespace."""

from __future__ import annotations

import socket
import struct
from typing import Any

UNASSIGNED = 253  # RFC 3692: for experiments
SCTP = 132
BIG = 4000  # bytes: more than one Ethernet frame
FLAGS = {"ack": 0x10, "synack": 0x12, "null": 0x00, "fin": 0x01}


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def segment(source: str, destination: str, ports: tuple[int, int], flags: int, payload: bytes) -> bytes:
    """A TCP segment with a right checksum, so that connection tracking looks at it."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, destination)

    def header(total: int) -> bytes:
        return struct.pack("!HHIIBBHHH", *ports, 1, 1, 5 << 4, flags, 8192, total, 0) + payload

    pseudo = ends + struct.pack("!II" if ":" in source else "!HH", socket.IPPROTO_TCP, len(header(0)))
    return header(checksum(pseudo + header(0)))


def send(probe: dict[str, Any], mark: bytes, port: int) -> None:
    """Send one; `port` is the source port where there is one. Raises OSError."""
    family = socket.AF_INET if probe["family"] == 4 else socket.AF_INET6
    target = (probe["address"], 0)
    kind = probe["proto"]
    if kind in ("big", "cast"):  # datagrams: of several fragments, to a group or to everybody
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.bind((probe["bind"], port))
            sock.sendto(mark.ljust(BIG if kind == "big" else 0, b"."), (probe["address"], probe["port"]))
        return
    numbers = {"icmp": socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6, "253": UNASSIGNED,
               "sctp": SCTP}  # fmt: skip
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, numbers.get(kind, socket.IPPROTO_TCP)) as sock:
        if probe["bind"]:
            sock.bind((probe["bind"], 0))
        if kind == "icmp":  # the kernel fills in the checksum of ICMPv6 only
            request = struct.pack("!BBHHH", 8 if family == socket.AF_INET else 128, 0, 0, port, 1) + mark
            sock.sendto(request[:2] + struct.pack("!H", checksum(request)) + request[4:], target)
        elif kind in FLAGS:
            sock.connect(target)
            data = segment(sock.getsockname()[0], probe["address"], (port, probe["port"]), FLAGS[kind], mark)
            sock.send(data)
        else:
            ports = struct.pack("!HH", port, probe["port"]) + bytes(8)
            sock.sendto(ports + mark, target)
