"""What arrives at one place, whatever becomes of it: packets on its interfaces, connections at its sockets."""

from __future__ import annotations

import socket
import struct
from typing import Any

from .frames import marked, parse, probe_of
from .ledger import Ledger
from .loop import READ, Loop

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_RCVBUFFORCE = 33
BUFFER = 8 * 2**20  # bytes
AT_ONCE = 500  # packets until others get their turn


class Sniffer:
    """Counts the packets of probes that come in by any interface, before this place's own filter sees them."""

    def __init__(self, probes: dict[str, dict[str, Any]], loop: Loop, ledger: Ledger) -> None:
        self._probes = probes
        self._ledger = ledger
        for ethertype in (ETH_P_IP, ETH_P_IPV6):  # asked for by type, the kernel leaves out what goes out
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(ethertype))
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            loop.watch(sock, READ, lambda sock=sock: self._read(sock))  # type: ignore[misc]

    def _read(self, sock: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                packet, (_, _, kind, *_) = sock.recvfrom(65536)
            except BlockingIOError:
                break
            except OSError:  # the interface went down
                return
            seen = None if kind == socket.PACKET_OUTGOING else parse(packet)
            probe = probe_of(seen, self._probes) if seen else ""
            if probe:
                self._ledger.count("packets", probe)
        lost = struct.unpack("II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        if lost:
            self._ledger.count("errors", "packets not looked at", lost)


class Listener:
    """Somebody who answers at a port, and counts whose probe was let in.

    Args:
        echo: for declared connections: sends back what comes. Probes are counted there as well: through a proxy they
            have other source ports, so that only their marks tell them.
        name: what a connection is called that was let in and never said whose it is.
    """

    def __init__(self, proto: str, port: int, *, echo: bool, name: str, loop: Loop, ledger: Ledger) -> None:
        self._loop = loop
        self._ledger = ledger
        self._echo = echo
        self._name = f"? at {name} {proto}/{port}"
        sock = _bound(socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM, port)
        if proto == "tcp":
            sock.listen(4096)
        loop.watch(sock, READ, lambda: (self._accept if proto == "tcp" else self._datagrams)(sock))

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            sock.setblocking(False)
            self._loop.watch(sock, READ, lambda sock=sock, told=[]: self._data(sock, told))  # type: ignore[misc]

    def _data(self, sock: socket.socket, told: list[str]) -> None:
        """`told`: the mark of this connection, once it is known."""
        try:
            data = sock.recv(4096)
            if data and self._echo:
                sock.send(data)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        nobody = "" if data or self._echo else self._name
        if not told and (mark := marked(data) or nobody):
            told.append(mark)
            self._ledger.count("accepted", mark)
        if not data:
            self._loop.forget(sock)

    def _datagrams(self, sock: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                data = sock.recv(4096)
            except OSError:
                return
            self._ledger.count("accepted", marked(data) or self._name)


def _bound(kind: int, port: int) -> socket.socket:
    """A socket for both families; for IPv4 where there is no other."""
    try:
        sock = socket.socket(socket.AF_INET6, kind | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("::", port))
    except OSError:
        sock = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", port))
    return sock
