"""Connections that live, and what the declaration says about them."""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from ringfence.host.policy.rules import Around, address, ends, span
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
        if c.destination in self.everybody or ipaddress.ip_address(c.destination).is_multicast:
            # No answer belongs to it, so each datagram is looked at anew; and the kernel keeps an entry of what goes
            # to everybody on a bridge even when the rules drop it, as long as a container goes on sending.
            return True
        caller, callee = self.bridge_of(c.source), self.bridge_of(c.callee)
        if caller and c.callee in self.local:
            return any(self._host(entry, c, caller) for entry in self.wish["host"])
        if caller and callee:
            if c.destination != c.callee:
                return False  # by an address of the host, as what is published
            return any(self._flow(entry, c) for entry in self.wish["flows"])
        if caller:
            return any(self._egress(entry, c) for entry in self.wish["egress"])
        if callee and c.callee not in self.local:  # a segment's gateway is the host
            return any(self._published(entry, c, c.callee) for entry in self.wish["published"])
        if c.callee in self.local:  # a published port that the userland proxy answers
            same = [
                e for e in self.wish["published"] if e["proto"] == c.proto and within(c.dport, span(e["published"]))
            ]
            return not same or any(self._published(entry, c, "") for entry in same)
        ends = (ipaddress.ip_address(c.source), ipaddress.ip_address(c.callee))
        return not any(end in network for end in ends for network in self.closed)

    def _host(self, entry: dict[str, Any], c: Connection, bridge: str) -> bool:
        own = {address(entry.get("source") or ""), address(entry.get("source6") or "")} - {""}
        here = not entry.get("bridge") or entry["bridge"] == bridge
        return here and (not own or c.source in own) and self._ports(entry, c)

    def _flow(self, entry: dict[str, Any], c: Connection) -> bool:
        return (c.source, c.callee) in {pair[1:] for pair in ends(entry, "source", "destination")} and self._ports(
            entry, c
        )

    @staticmethod
    def _ports(entry: dict[str, Any], c: Connection) -> bool:
        return entry["proto"] == c.proto and within(c.callee_port, span(entry["port"]))

    def _egress(self, entry: dict[str, Any], c: Connection) -> bool:
        proto = entry.get("proto", "any")
        if proto != "any" and not (proto == c.proto and within(c.callee_port, span(entry.get("port", "any")))):
            return False
        to = ipaddress.ip_address(c.callee)
        if entry["to"] == "internet":
            there = not any(to in network for network in self.private)
        else:
            there = to in ipaddress.ip_network(entry["to"], strict=False)
        sources = [ipaddress.ip_network(source) for _, source in ends(entry, "source")]
        return there and any(ipaddress.ip_address(c.source) in source for source in sources)

    @staticmethod
    def _published(entry: dict[str, Any], c: Connection, callee: str) -> bool:
        if entry["proto"] != c.proto or not within(c.dport, span(entry["published"])):
            return False
        if callee and not (
            callee in {own for _, own in ends(entry, "destination")} and within(c.callee_port, span(entry["port"]))
        ):
            return False
        source = ipaddress.ip_address(c.source)
        return any(place == "any" or source in ipaddress.ip_network(place, strict=False) for place in entry["sources"])


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
        for c in alike(left):
            has_ports = c.proto in ("tcp", "udp", "sctp")
            kind = ("-p", c.proto) if has_ports else ()
            ports = ("--dport", c.dport, "--reply-port-src", c.callee_port) if has_ports and c.dport else ()
            layer = ("-f", "ipv6" if c.family == "v6" else "ipv4")
            result = run("conntrack", "-D", *layer, *kind, "-s", c.source, "-d", c.destination, "-r", c.callee, *ports)
            # 1 without anything deleted: it has ended by itself.
            if result.returncode in (MISSING, HUNG):
                raise Fault(f"{result.stderr}; connections that are no longer allowed live on")
    raise Fault(f"connections that are no longer allowed live on, although they were deleted: {left[0]}")
