"""What arrives at one place, whatever becomes of it: packets on its interfaces, connections at its sockets."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from .frames import TCP, UDP, marked, parse, probe_in, probe_of, segment
from .ledger import Ledger
from .loop import READ, Loop

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6, ETH_P_ARP, ETH_P_PRIVATE = 0x0003, 0x0800, 0x86DD, 0x0806, 0x88B5
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_RCVBUFFORCE = 33
BUFFER = 8 * 2**20  # bytes
AT_ONCE = 500  # packets until others get their turn


class Sniffer:
    """Counts what probes send and what comes in by any interface.

    Args:
        what: "packets": IPv4 and IPv6, before this place's own filter sees them; "frames": everything, likewise;
            "behind the filter": packets that passed it, and on bridges the frames that are no packets.
    """

    def __init__(self, what: str, probes: dict[str, dict[str, Any]], loop: Loop, ledger: Ledger) -> None:
        self._ledger = ledger
        self._groups: _Groups | None = None

        def of_packet(data: bytes) -> str:
            seen = parse(data)
            return probe_of(seen, probes) if seen else ""

        def of_frame(data: bytes) -> str:
            return probe_in(data, probes)

        def of_segment(proto: int) -> Callable[[bytes], str]:
            def read(data: bytes) -> str:
                seen = segment(proto, data)
                return probe_of(seen, probes) if seen else ""

            return read

        def watch(family: int, kind: int, proto: int, read: Callable[[bytes], str]) -> None:
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, proto)
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            loop.watch(sock, READ, lambda: self._read(sock, read))

        if what == "packets":  # asked for by type, the kernel leaves out what goes out
            for ethertype in (ETH_P_IP, ETH_P_IPV6):
                watch(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ethertype), of_packet)
        elif what == "frames":
            watch(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL), of_frame)
        else:
            for ethertype in (ETH_P_ARP, ETH_P_PRIVATE):  # by type: what a port hands to its bridge is seen once, there
                watch(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype), of_frame)
            for proto in (UDP, TCP, socket.IPPROTO_ICMP):
                watch(socket.AF_INET, socket.SOCK_RAW, proto, of_packet)
            for proto in (UDP, TCP, socket.IPPROTO_ICMPV6):
                watch(socket.AF_INET6, socket.SOCK_RAW, proto, of_segment(proto))
            self._groups = _Groups()
            self._groups.turn()

    def _read(self, sock: socket.socket, read: Callable[[bytes], str]) -> None:
        wire = sock.family == socket.AF_PACKET
        if self._groups:  # something comes all the time
            self._groups.turn()
        for _ in range(AT_ONCE):
            try:
                packet, address = sock.recvfrom(65536)
            except BlockingIOError:
                break
            except OSError:  # the interface went down
                return
            probe = "" if wire and address[2] == socket.PACKET_OUTGOING else read(packet)
            if probe:
                self._ledger.count("packets", probe)
        lost = struct.unpack("II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1] if wire else 0
        if lost:
            self._ledger.count("errors", "packets not looked at", lost)


class _Groups:
    """Membership in the groups that hosts listen to (mDNS, SSDP), on every interface that there is."""

    FOUR, SIX = ("224.0.0.251", "239.255.255.250"), ("ff02::fb", "ff02::c")

    def __init__(self) -> None:
        self._members: dict[tuple[int, str], list[socket.socket]] = {}
        self._due = 0.0

    def turn(self) -> None:
        """Join where an interface has come."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + 0.2
        there = set(socket.if_nameindex())
        for gone in self._members.keys() - there:
            for sock in self._members.pop(gone):
                sock.close()
        for interface in there - self._members.keys():
            four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            with contextlib.suppress(OSError):  # it has no multicast, or is gone
                for group in self.FOUR:
                    member = socket.inet_aton(group) + bytes(4) + struct.pack("i", interface[0])
                    four.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
                for group in self.SIX:
                    member = socket.inet_pton(socket.AF_INET6, group) + struct.pack("i", interface[0])
                    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
            self._members[interface] = [four, six]


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
