"""Packets that say they come from somebody else."""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
from typing import Any

from ringfence.verify.remote.looking import addresses
from ringfence.verify.remote.outcomes import checksum, outcome
from ringfence.verify.remote.slices import Maker
from ringfence.verify.remote.spaces import inside

SPORT = 46464  # of forged packets


def forged_packet(claim: str, address: str, proto: str, port: int, payload: bytes) -> bytes:
    """A datagram, or the first segment of a connection with data, that says it comes from `claim`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    ends = socket.inet_pton(family, claim) + socket.inet_pton(family, address)
    number = socket.IPPROTO_TCP if proto == "tcp" else socket.IPPROTO_UDP

    def body(total: int) -> bytes:
        if proto == "tcp":
            return struct.pack("!HHIIBBHHH", SPORT, port, 1, 0, 5 << 4, 0x02, 8192, total, 0) + payload
        return struct.pack("!HHHH", SPORT, port, 8 + len(payload), total) + payload

    size = len(body(0))
    total = checksum(ends + struct.pack("!II" if family == socket.AF_INET6 else "!HH", number, size) + body(0))
    content = body(total or 0xFFFF)
    if family == socket.AF_INET6:
        return struct.pack("!IHBB", 6 << 28, size, number, 64) + ends + content

    def header(total: int) -> bytes:
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0, 64, number, total) + ends

    return header(checksum(header(0))) + content


@functools.cache
def interface(address: str) -> str:
    """The host's interface that has an address, "" if none; asked for once, not for every packet."""
    return next((str(a["device"]) for a in addresses() if a["address"] == address), "")


async def send_forged(cell: list[Any], space: int | None, payload: bytes, maker: Maker | None = None) -> list[str]:
    """Send a packet with another's address, three times; nothing comes back to its sender, so ask the listener."""
    _, _, address, proto, port, _, claim, through = cell
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    device = interface(through) if through else ""
    try:
        with inside(space):
            sock = (maker.socket if maker else socket.socket)(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with sock:
            if device:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            for pause in (0.15, 0.35, 0):
                sock.sendto(forged_packet(claim, address, proto, port, payload), (address, 0))
                await asyncio.sleep(pause)
    except OSError as error:
        return [outcome(error), ""]
    return ["timeout", claim]
