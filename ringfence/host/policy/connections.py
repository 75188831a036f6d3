"""Connections that live, and what the declaration says about them."""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from ringfence.host.policy.rule import Around, address, ends, span
from ringfence.host.policy.rules import vpn_egress, vpn_of
from ringfence.host.policy.sources import link_local
from ringfence.host.running import HUNG, MISSING, Fault, must, run
from ringfence.host.tables import families


class Connection(NamedTuple):
    """An entry of connection tracking: who opened it to whom, and who answers (after DNAT: the real callee)."""

    family: str
    proto: str
    state: str
    source: str
    destination: str
    sport: str
    dport: str
    callee: str
    callee_port: str

    def __str__(self) -> str:
        there = f"{self.destination}:{self.dport}" if self.dport else self.destination
        behind = f" (which is {self.callee}:{self.callee_port})" if self.callee != self.destination else ""
        return f"{self.source} > {there}{behind} {self.proto}"


IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
MANY = 50  # connections of one end that are deleted one by one
OVER = ("TIME_WAIT", "CLOSE")  # whatever comes in such a state is looked at anew


def read_connections(listing: str, family: str) -> list[Connection]:
    """Take the output of `conntrack -L` apart; what has neither ports nor two ends is left out."""
    found = []
    for line in listing.splitlines():
        parts = line.split()
        pairs = [part.split("=", 1) for part in parts if "=" in part]
        sources, destinations, sports, dports = (
            [value for key, value in pairs if key == name] for name in ("src", "dst", "sport", "dport")
        )
        if len(sources) != 2 or len(destinations) != 2:
            continue
        state = next((part for part in parts[2:5] if part.isupper() and part.replace("_", "").isalpha()), "")
        ports = len(sports) == 2 and len(dports) == 2
        proto = {"icmpv6": "icmp6"}.get(parts[0], parts[0])
        found.append(
            Connection(
                family, proto, state, sources[0], destinations[0], sports[0] if ports else "",
                dports[0] if ports else "", sources[1], sports[1] if ports else "",
            )
        )  # fmt: skip
    return found


class Allowed:
    """What the declaration says about a connection that lives: read from the wish alone, not from any rule."""

    def __init__(self, wish: dict[str, Any], around: Around, local: Iterable[str]) -> None:
        """local: the host's own addresses. What the host itself opens is not the policy's matter."""
        self.wish = wish
        self.local = set(local)
        self.subnets = [
            (ipaddress.ip_network(segment[key]), segment["bridge"])
            for segment in wish["segments"]
            for key in ("subnet", "subnet6")
            if segment.get(key)
        ]
        self.closed = [ipaddress.ip_network(s) for s in around.subnets] if wish["unmanaged"] == "close" else []
        self.private = [ipaddress.ip_network(network, strict=False) for network in wish["private"] if network]
        self.everybody = {"255.255.255.255"} | {str(n.broadcast_address) for n, _ in self.subnets if n.version == 4}
        # A container's own link-local address tells its segment, which the network does not.
        self.bridge: dict[str, str] = {link_local(entry["mac"]): entry["bridge"] for entry in wish["endpoints"]}
        # Read once: a container can open as many connections as connection tracking has room for.
        self.flows: dict[tuple[str, str, str], list[str]] = {}
        for entry in wish["flows"]:
            for _, source, callee in ends(entry, "source", "destination"):
                self.flows.setdefault((source, callee, entry["proto"]), []).append(span(entry["port"]))
        self.egress: dict[str, list[tuple[str, str, IpNetwork | None]]] = {}
        for entry in (*wish["egress"], *vpn_egress(wish)):
            to = None if entry["to"] == "internet" else ipaddress.ip_network(entry["to"], strict=False)
            for _, source in ends(entry, "source"):
                way = (entry.get("proto", "any"), span(entry.get("port", "any")), to)
                self.egress.setdefault(source, []).append(way)
        self.published = [_Door.of(entry) for entry in wish["published"]]
        vpn = vpn_of(wish)
        self.far = [ipaddress.ip_network(network) for network in vpn.get("networks", ())]
        self.transit: list[tuple[dict[str, Any], IpNetwork, IpNetwork]] = [
            (entry, ipaddress.ip_network(source), ipaddress.ip_network(destination))
            for entry in vpn.get("transit", ())
            for _, source, destination in ends(entry, "source", "destination")
        ]
        self.known: dict[Connection, bool] = {}

    def bridge_of(self, one: str) -> str:
        """The bridge of the segment in which an address is; "" for none."""
        if one not in self.bridge:
            found = ipaddress.ip_address(one)
            self.bridge[one] = next((bridge for network, bridge in self.subnets if found in network), "")
        return self.bridge[one]

    def allows(self, c: Connection) -> bool:
        """Whether a declaration allows it, or it is none of a segment's, or nothing that could live on."""
        if c.source in self.local or c.state in OVER:
            return True
        like = c._replace(sport="", state="")
        if like not in self.known:
            self.known[like] = self._allows(like)
        return self.known[like]

    def _allows(self, c: Connection) -> bool:
        if c.destination in self.everybody or ipaddress.ip_address(c.destination).is_multicast:
            # No answer belongs to it, so each datagram is looked at anew; and the kernel keeps an entry of what goes
            # to everybody on a bridge even when the rules drop it, as long as a container goes on sending.
            return True
        caller, callee = self.bridge_of(c.source), self.bridge_of(c.callee)
        if caller and c.callee in self.local:
            return any(self._host(entry, c, caller) for entry in self.wish["host"])
        if caller and callee:
            return self._called(c)
        if caller:
            return self._called(c) or any(self._leads(way, c) for way in self.egress.get(c.source, ()))
        if callee and self._is_far(c.source) and self._called(c):
            return True
        if callee and c.callee not in self.local:  # a segment's gateway is the host
            return any(door.answers(c) and door.is_of(c) and door.is_for(c) for door in self.published)
        if c.callee in self.local:  # a published port that the userland proxy answers
            same = [door for door in self.published if door.answers(c)]
            return not same or any(door.is_for(c) for door in same)
        if self._is_far(c.source) and self._is_far(c.callee):
            return any(self._passes(entry, source, to, c) for entry, source, to in self.transit)
        if self._is_far(c.source):
            return any(self._leads(way, c) for way in self.egress.get(c.source, ()))
        ends = (ipaddress.ip_address(c.source), ipaddress.ip_address(c.callee))
        return not any(end in network for end in ends for network in self.closed)

    def _called(self, c: Connection) -> bool:
        """Whether it is a declared call; by an address of the host, as what is published, it is none."""
        ports = self.flows.get((c.source, c.callee, c.proto), ()) if c.destination == c.callee else ()
        return any(within(c.callee_port, declared) for declared in ports)

    def _is_far(self, one: str) -> bool:
        found = ipaddress.ip_address(one)
        return any(found in network for network in self.far)

    def _passes(self, entry: dict[str, Any], source: IpNetwork, destination: IpNetwork, c: Connection) -> bool:
        own = ipaddress.ip_address(c.source) in source and ipaddress.ip_address(c.callee) in destination
        return own and self._ports(entry, c)

    def _host(self, entry: dict[str, Any], c: Connection, bridge: str) -> bool:
        own = {address(entry.get("source") or ""), address(entry.get("source6") or "")} - {""}
        here = not entry.get("bridge") or entry["bridge"] == bridge
        return here and (not own or c.source in own) and self._ports(entry, c)

    @staticmethod
    def _ports(entry: dict[str, Any], c: Connection) -> bool:
        return entry["proto"] == c.proto and within(c.callee_port, span(entry["port"]))

    def _leads(self, way: tuple[str, str, IpNetwork | None], c: Connection) -> bool:
        proto, ports, to = way
        if proto == "icmp":
            if c.proto not in ("icmp", "icmp6"):
                return False
        elif proto != "any" and not (proto == c.proto and within(c.callee_port, ports)):
            return False
        callee = ipaddress.ip_address(c.callee)
        return callee in to if to else not any(callee in network for network in self.private)


class _Door(NamedTuple):
    """A published port. `sources` is None for any, `on` the address of the host, "" for every one."""

    proto: str
    published: str
    port: str
    addresses: frozenset[str]
    sources: list[IpNetwork] | None
    on: str = ""

    @classmethod
    def of(cls, entry: dict[str, Any]) -> _Door:
        places = entry["sources"]
        networks = None if "any" in places else [ipaddress.ip_network(place, strict=False) for place in places]
        addresses = frozenset(own for _, own in ends(entry, "destination"))
        on = address(entry.get("host_address") or "")
        return cls(entry["proto"], span(entry["published"]), span(entry["port"]), addresses, networks, on)

    def answers(self, c: Connection) -> bool:
        return self.proto == c.proto and within(c.dport, self.published) and self.on in ("", c.destination)

    def is_of(self, c: Connection) -> bool:
        return c.callee in self.addresses and within(c.callee_port, self.port)

    def is_for(self, c: Connection) -> bool:
        return self.sources is None or any(ipaddress.ip_address(c.source) in place for place in self.sources)


def within(port: str, ports: str) -> bool:
    """Whether a port is the declared one, or in the declared range; "" is any."""
    if not ports or not port:
        return not ports
    first, _, last = ports.partition("-")
    return int(first) <= int(port) <= int(last or first)


def local_addresses() -> set[str]:
    """The host's own addresses, both families."""
    found = {"127.0.0.1", "::1"}
    for interface in json.loads(must("ip", "-j", "address", "show") or "[]"):
        found |= {entry["local"] for entry in interface.get("addr_info", []) if entry.get("local")}
    return found


def connections() -> list[Connection]:
    """All tracked connections.

    Raises:
        Fault: they cannot be listed, so nobody knows what lives on.
    """
    found = []
    for family in families():
        listing = must("conntrack", "-L", "-f", "ipv6" if family == "v6" else "ipv4", timeout=60)
        found += read_connections(listing, family)
    return found


def undeclared(wish: dict[str, Any], around: Around) -> list[Connection]:
    """Connections that live and that no declaration allows."""
    allowed = Allowed(wish, around, local_addresses())
    return [connection for connection in connections() if not allowed.allows(connection)]


def alike(connections: Iterable[Connection]) -> dict[Connection, int]:
    """Connections that differ in the caller's port only are one, {it: how many}: whoever scans opens thousands."""
    return Counter(connection._replace(sport="", state="") for connection in connections)


def deletions(connections: Iterable[Connection]) -> list[tuple[str, ...]]:
    """What conntrack is told to delete, command by command.

    Each command looks through all connections. Where one end has very many, they go by that end's address: what is
    allowed among them goes on as a new connection with its next packet.
    """
    once = list(alike(connections))
    per_source = Counter((c.family, c.source) for c in once)
    per_callee = Counter((c.family, c.callee) for c in once)
    found = []
    for c in once:
        layer = ("-f", "ipv6" if c.family == "v6" else "ipv4")
        has_ports = c.proto in ("tcp", "udp", "sctp")
        kind = ("-p", c.proto) if has_ports else ()
        ports = ("--dport", c.dport, "--reply-port-src", c.callee_port) if has_ports and c.dport else ()
        if per_source[c.family, c.source] > MANY:
            found.append((*layer, "-s", c.source))
        elif per_callee[c.family, c.callee] > MANY:
            found.append((*layer, "-r", c.callee))
        else:
            found.append((*layer, *kind, "-s", c.source, "-d", c.destination, "-r", c.callee, *ports))
    return list(dict.fromkeys(found))


def cut(wish: dict[str, Any], around: Around) -> int:
    """Delete what no declaration allows, whoever opened the way; returns how many were there.

    An established connection is not looked at again by any rule, so only this ends it.

    Raises:
        Fault: they cannot be listed or deleted.
    """
    count = 0
    for _ in range(5):
        left = undeclared(wish, around)
        count = count or len(left)
        if not left:
            return count
        for words in deletions(left):
            result = run("conntrack", "-D", *words)
            # 1 without anything deleted: it has ended by itself.
            if result.returncode in (MISSING, HUNG):
                raise Fault(f"{result.stderr}; connections that are no longer allowed live on")
    raise Fault(f"connections that are no longer allowed live on, although they were deleted: {left[0]}")
