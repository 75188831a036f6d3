"""One try of each protocol, in plain words."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from pathlib import Path

from ringfence.verify.remote.outcomes import (
    ECHO_REPLY,
    ECHO_REPLY6,
    ECHO_REQUEST,
    ECHO_REQUEST6,
    checksum,
    outcome,
)
from ringfence.verify.remote.spaces import inside


async def connect_tcp(sock: socket.socket, target: tuple[str, int], seconds: float) -> str:
    """open, refused, timeout, or why nothing could be sent."""
    try:
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, target), seconds)
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return outcome(error)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT on busy hosts
    return "open"


async def send_udp(sock: socket.socket, target: tuple[str, int], payload: bytes, seconds: float) -> str:
    """open (somebody answered), refused (port unreachable came back), timeout (says nothing: ask the listener)."""
    loop = asyncio.get_running_loop()
    try:
        sock.connect(target)
        for pause in (0.15, 0.35, max(seconds - 0.5, 0.1)):  # a lost datagram is not a closed port
            await loop.sock_sendall(sock, payload)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(loop.sock_recv(sock, 2048), pause)
                return "open"
    except OSError as error:
        return outcome(error)
    return "timeout"


async def ask_echo(sock: socket.socket, target: str, payload: bytes, seconds: float) -> str:
    """open (an echo came back), timeout (says nothing: ask the listener)."""
    loop = asyncio.get_running_loop()
    kind = ECHO_REQUEST if sock.family == socket.AF_INET else ECHO_REQUEST6
    head = struct.pack("!BBHHH", kind, 0, 0, os.getpid() & 0xFFFF, 1)
    if sock.family == socket.AF_INET:  # the kernel fills in the sum of ICMPv6 only
        head = head[:2] + struct.pack("!H", checksum(head + payload)) + head[4:]
    try:
        sock.connect((target, 0))
        for pause in (0.15, 0.35, max(seconds - 0.5, 0.1)):
            await loop.sock_sendall(sock, head + payload)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(echoed(sock, payload), pause)
                return "open"
    except OSError as error:
        return outcome(error)
    return "timeout"


async def echoed(sock: socket.socket, payload: bytes) -> None:
    """Wait until an echo with this payload comes back; whatever else a raw socket sees is passed over."""
    reply = ECHO_REPLY if sock.family == socket.AF_INET else ECHO_REPLY6
    while True:
        seen = await asyncio.get_running_loop().sock_recv(sock, 2048)
        body = seen[(seen[0] & 15) * 4 :] if sock.family == socket.AF_INET else seen
        if body[:1] == bytes([reply]) and payload in body:
            return


def leave_by(sock: socket.socket, through: str, space: int | None) -> None:
    """Have what a socket sends to a group leave by the interface that has an address."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(through))
        return
    wanted = socket.inet_pton(socket.AF_INET6, through).hex()
    with inside(space):
        table = Path("/proc/thread-self/net/if_inet6").read_text(encoding="ascii")
    for line in table.splitlines():
        if line.split()[0] == wanted:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, int(line.split()[1], 16))
