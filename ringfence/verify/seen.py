"""What the probe program saw on each host before anything was probed."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ringfence.verify.declared import Service, matches
from ringfence.verify.own_rules import covers

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Container:
    """A running container. ``networks``: network → (IPv4 address, IPv6 address), "" where there is none.

    ``published`` are (protocol, published port, container port); ``mode`` is Docker's network mode where it has none of
    its own: "host", "none", "container:ID"; ``task``: the swarm service whose task it is; ``groups``: the control
    groups of its processes where it is in the host's network, that of the first one first.
    """

    name: str
    pid: int
    space: int
    project: str
    service: str
    networks: Mapping[str, tuple[str, str]]
    published: tuple[tuple[str, int, int], ...] = ()
    mode: str = ""
    task: str = ""
    groups: tuple[str, ...] = ()

    def addresses(self) -> list[tuple[str, str]]:
        """Return (network, address) of every address, both families."""
        return [(network, address) for network, both in sorted(self.networks.items()) for address in both if address]

    def strays(self, home: str) -> list[str]:
        """Return the control groups of its processes that are not below a given one."""
        return [group for group in self.groups if group != home and not group.startswith(f"{home}/")]


@dataclass(frozen=True)
class Other:
    """What containers there are besides Docker's own: of podman, or a swarm service that publishes ports."""

    name: str
    kind: str
    published: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Allow:
    """What a rule of UFW's or beside it lets in, whoever made it: UFW's notation of ports, networks or "any", "" for
    every interface; by: what lets in, and what the user has said of it."""

    proto: str
    ports: str
    source: str
    destination: str = "any"
    interface: str = ""
    by: str = "a UFW rule of the host (ufw_foreign: keep)"


@dataclass(frozen=True)
class Seen:
    """One host.

    Attributes:
        addresses: (device, address, prefix length).
        sockets: (protocol, port, process).
        routes: (network, gateway, device), without those that are everything.
        clock: its time, in seconds since 1970.
        fenced: services in its own network that the live policy tells from itself.
        filters: proxy of Docker's socket → (what it lets through, why it could not be asked).
        profiles: application profile of UFW's → its (ports, protocol).
    """

    host: str
    addresses: tuple[tuple[str, str, int], ...] = ()
    sockets: tuple[tuple[str, int, str], ...] = ()
    containers: tuple[Container, ...] = ()
    internal: frozenset[str] = frozenset()
    unmanaged: tuple[str, ...] = ()
    allows: tuple[Allow, ...] = ()
    engine: str = ""
    complaints: tuple[str, ...] = ()
    routes: tuple[tuple[str, str, str], ...] = ()
    clock: float = 0.0
    others: tuple[Other, ...] = ()
    fenced: frozenset[str] = frozenset()
    filters: Mapping[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)
    profiles: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    def find(self, service: Service) -> Container | None:
        """Return the running container of a declared service."""
        for container in self.containers:
            if (container.project, container.service) == (service.project, service.name):
                return container
        return None

    def next_to(self, address: str, device_of: Seen) -> list[str]:
        """Return this host's addresses in the network in which another host has ``address``."""
        prefix = next((length for _, own, length in device_of.addresses if own == address), None)
        if prefix is None:
            return []
        network = ipaddress.ip_network(f"{address}/{prefix}", strict=False)
        return [own for _, own, _ in self.addresses if ipaddress.ip_address(own) in network]

    @cached_property
    def _ways(self) -> list[tuple[Network, str, str]]:
        """The routes, the narrowest first: it decides."""
        ways = [(ipaddress.ip_network(network), gateway, device) for network, gateway, device in self.routes]
        return sorted(ways, key=lambda way: -way[0].prefixlen)

    def goes_by(self, address: str) -> tuple[str, str] | None:
        """Return gateway ("" for a neighbour) and device of the route to an address; None by one for everything."""
        target = ipaddress.ip_address(address)
        return next(((gateway, device) for network, gateway, device in self._ways if target in network), None)

    def hands_on(self, address: str, to: Seen, tunnel: str = "") -> bool:
        """Whether this host's routes (but not one for everything) lead to an address by way of a given host.

        Args:
            tunnel: the interface of the lab's VPN, behind which nobody else's networks are.
        """
        way = self.goes_by(address)
        if way is None:
            return False
        gateway, device = way
        return (tunnel != "" and device == tunnel) or any((gateway or address) == own for _, own, _ in to.addresses)

    def kept_rule(
        self, proto: str, port: int, source: str, destination: str, devices: Collection[str] = ()
    ) -> Allow | None:
        """Return a rule on the host, whoever made it, that lets an address in to a port of one of the host's.

        Args:
            devices: interfaces by which it comes; none where that is not known.
        """
        for rule in self.allows:
            if (
                rule.proto in (proto, "any")
                and covers(rule.ports, port)
                and matches([rule.source], source)
                and matches([rule.destination], destination)
                and (not rule.interface or not devices or rule.interface in devices)
            ):
                return rule
        return None


def read(host: str, answer: Mapping[str, Any]) -> Seen:
    """Read the answer of the probe program's ``prepare``."""
    return Seen(
        host=host,
        addresses=tuple((a["device"], a["address"], a["prefix"]) for a in answer["addresses"]),
        sockets=tuple(_once((s["proto"], s["port"], s["process"]) for s in answer["sockets"])),
        containers=tuple(
            Container(
                c["name"], c["pid"], c["space"], c["project"], c["service"],
                {name: (n["address"], n["address6"]) for name, n in c["networks"].items()},
                tuple(_once((p["proto"], p["published"], p["port"]) for p in c["published"])),
                c.get("mode", ""), c.get("task", ""), tuple(c.get("groups", ())),
            )
            for c in answer["containers"]
        ),
        internal=frozenset(n["name"] for n in answer["networks"] if n["internal"]),
        unmanaged=tuple(sorted(n["name"] for n in answer["networks"] if not n["segment"] and n["name"] != "bridge")),
        allows=tuple(
            Allow(r["proto"], r["port"], r["source"], r["destination"], r["interface"], r["by"]) for r in answer["ufw"]
        ),
        engine=answer["engine"],
        complaints=tuple(answer["complaints"]),
        routes=tuple((r["network"], r["gateway"], r["device"]) for r in answer["routes"]),
        clock=float(answer["time"]),
        others=tuple(
            Other(o["name"], o["kind"], tuple((p["proto"], p["port"]) for p in o["published"]))
            for o in answer.get("others", ())
        ),
        fenced=frozenset(answer.get("fenced", ())),
        filters={name: (tuple(f["passed"]), f["error"]) for name, f in answer.get("filters", {}).items()},
        profiles={
            name: tuple((ports, proto) for ports, proto in parts) for name, parts in answer.get("profiles", {}).items()
        },
    )  # fmt: skip


def _once(items: Iterable[tuple[str, int, Any]]) -> list[tuple[str, int, Any]]:
    """Keep one item per (protocol, port): listeners on several addresses are one port."""
    found: dict[tuple[str, int], tuple[str, int, Any]] = {}
    for item in items:
        found.setdefault(item[:2], item)
    return sorted(found.values())
