"""What passes between the hosts of a lab outside of their tunnels, as this machine sees it: it is the wire."""

from __future__ import annotations

import ipaddress
import socket
import struct
import subprocess
import threading
from collections import Counter
from types import TracebackType

from lab.networks import get
from tests.live.labs import Lab

ALL = 3  # ETH_P_ALL
SOL_PACKET, ADD_MEMBERSHIP, PROMISCUOUS = 263, 1, 1  # of linux/if_packet.h
RCVBUFFORCE, BUFFER = 33, 32 * 2**20  # bytes
IPV4, IPV6, HEADER = 0x0800, 0x86DD, 14  # types of frames, and the length of what is before a packet
UDP, TCP, ICMP, ICMP6 = 17, 6, 1, 58
UNREACHABLE = {(ICMP, b"\3"), (ICMP6, b"\1")}  # errors, which quote the packet that they are about
NEIGHBOURS = range(133, 138)  # types of ICMPv6 that say who has which address on a link

# (sender, receiver, protocol, port): of the two ports, the lower one.
Packet = tuple[str, str, int, int]


class Underlay:
    """Counts the packets between hosts, by who sends them to whom: `with Underlay(lab) as underlay: …`.

    Attributes:
        packets: what passed, with the names of the hosts; of what has an address that belongs inside, that address.
    """

    def __init__(self, lab: Lab) -> None:
        self.instance = get(lab.name)
        self.packets: Counter[Packet] = Counter()
        self._names = {
            address: host.name
            for host in self.instance.hosts
            for side in self.instance.sides_of(host.name)
            for address in side.addresses(host.name)
        }
        self._inside = [
            ipaddress.ip_network(network)
            for host in lab.variables()["lab_hosts"]
            for network in lab.variables(host)["policy_vpn"]["networks"]
        ]
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._listen, args=(bridge,), daemon=True) for bridge in self._bridges()
        ]
        self._ready = threading.Barrier(len(self._threads) + 1)

    def _bridges(self) -> list[str]:
        names = [self.instance.network(side) for side in self.instance.sides]
        said = subprocess.run(
            ["docker", "network", "inspect", "-f", "{{.Id}}", *names], capture_output=True, text=True, check=True
        )
        return [f"br-{one[:12]}" for one in said.stdout.split()]

    def __enter__(self) -> Underlay:
        for thread in self._threads:
            thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def outside_the_tunnels(self, port: int = 51820) -> Counter[Packet]:
        """What hosts sent each other otherwise than by WireGuard; what the machines of the world sent is their own."""
        return Counter(
            {packet: n for packet, n in self.packets.items() if packet[2:] != (UDP, port) and "outside" not in packet}
        )

    def _listen(self, bridge: str) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL)) as ears:
            ears.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, BUFFER)
            ears.bind((bridge, 0))
            # What a bridge passes from one port to another it shows only to who listens to everything.
            everything = struct.pack("IHH8s", socket.if_nametoindex(bridge), PROMISCUOUS, 0, b"")
            ears.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, everything)
            ears.settimeout(0.2)
            self._ready.wait(10)
            while not self._stop.is_set():
                try:
                    self._take(ears.recv(65536))
                except TimeoutError:
                    continue

    def _take(self, frame: bytes) -> None:
        seen = parse(frame)
        if seen is None:
            return
        source, destination, proto, port = seen
        between = source in self._names and destination in self._names
        # Whatever else a host sends, to a mirror or to the controller, which is this machine, is not asked about.
        if between or self._belongs_inside(source) or self._belongs_inside(destination):
            self.packets[self._names.get(source, source), self._names.get(destination, destination), proto, port] += 1

    def _belongs_inside(self, address: str) -> bool:
        return any(ipaddress.ip_address(address) in network for network in self._inside)


def parse(frame: bytes) -> Packet | None:
    """Return a frame's addresses, protocol and lower port; None for what concerns neighbours on a link only."""
    kind = int.from_bytes(frame[12:14], "big")
    packet = frame[HEADER:]
    if kind == IPV4 and len(packet) >= 20:
        source, destination = (str(ipaddress.IPv4Address(packet[at : at + 4])) for at in (12, 16))
        proto, rest = packet[9], packet[(packet[0] & 15) * 4 :]
    elif kind == IPV6 and len(packet) >= 40:
        source, destination = (str(ipaddress.IPv6Address(packet[at : at + 16])) for at in (8, 24))
        proto, rest = packet[6], packet[40:]
        if destination.startswith("ff") or proto == 0 or (proto == ICMP6 and rest[:1] and rest[0] in NEIGHBOURS):
            return None
    else:
        return None
    if (proto, rest[:1]) in UNREACHABLE and (quoted := parse(frame[:12] + frame[12:14] + rest[8:])):
        return source, destination, *quoted[2:]  # it tells no more than what it quotes
    ports = struct.unpack(">HH", rest[:4]) if proto in (UDP, TCP) and len(rest) >= 4 else (0,)
    return source, destination, proto, min(ports)
