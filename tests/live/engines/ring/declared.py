"""The lab that is attacked: what is declared in it, and from that what must pass and what must not."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

# Ports, on purpose below and above those that systems choose by themselves (see FIRST, LAST).
UNDECLARED = 61000  # somebody listens in every container and on the host, nobody declared it
TALK = 61001  # declared calls and egress
DATABASE = 5432  # published for the LAN
OTHER = 5433  # published for another place
PUBLISHED_UDP = 61004  # published for the LAN
HOST_UDP = 61005  # the host itself answers the LAN
ANYWHERE = 61006  # published for everybody, who are all outside

# Source ports of probes: below those that an ephemeral connection or a proxy gets.
FIRST, LAST = 2000, 32000

RESTING: dict[str, Any] = {
    "host": "atlas",
    "image": "docker.io/library/busybox:1.37",
    "command": ["sleep", "2000000000"],
    "init": True,  # or it takes no notice of being stopped
}
SEGMENTS: dict[str, Any] = {"red": {}, "blue": {}, "green": {"subnet": "172.20.201.0/24", "internet": False}}
SERVICES: dict[str, Any] = {
    # What calls, and may go out.
    "caller": {
        **RESTING,
        "segments": ["red"],
        "calls": [{"service": "db", "port": TALK}, {"service": "idler", "port": TALK}],
        "egress": [{"to": "lan", "port": TALK}],
    },
    # What may do nothing.
    "idler": {**RESTING, "segments": ["red"]},
    "db": {
        **RESTING,
        "segments": ["blue"],
        "publish": [
            {"port": DATABASE, "from": ["lan"], "allow_database": True},
            {"port": OTHER, "from": ["vpn"], "allow_database": True},
            {"port": f"{PUBLISHED_UDP}/udp", "from": ["lan"]},
            {"port": ANYWHERE, "from": ["anywhere"]},
            {"port": f"{ANYWHERE}/udp", "from": ["anywhere"]},
        ],
    },
    # In a segment without any way out.
    "vault": {**RESTING, "segments": ["green"]},
}
HOST_SERVICES = {"answers": {"port": f"{HOST_UDP}/udp", "from": ["lan"]}}


@dataclass(frozen=True)
class Probe:
    """One cell of what must not pass.

    Attributes:
        at: the place it is tried from; `bind` is its address there, where it has several.
        into: the place that it must not reach.
        first, span: its range of source ports, by which a packet without payload is known.
        times: how often in each round: what is the first to go a way is tried the most.
        frames: for the protocol "frames": what goes out by the interface `bind`, given the mark that it carries; `via`
            says what it is.
    """

    at: str
    into: str
    proto: str
    address: str
    port: int
    via: str = ""
    bind: str = ""
    first: int = 0
    span: int = 0
    times: int = 1
    frames: Callable[[bytes], list[bytes]] | None = None

    @property
    def family(self) -> int:
        return 6 if ":" in self.address else 4

    @property
    def name(self) -> str:
        if self.frames:
            return f"{self.at} > {self.into}: {self.via}"
        by = f" by {self.via}" if self.via else ""
        return f"{self.at} > {self.into}{by} {self.proto}/{self.port} v{self.family}"


@dataclass(frozen=True)
class Flow:
    """A connection that is kept up; `source` is the address that it comes from, `bind` the same where it is chosen."""

    at: str
    into: str
    source: str
    address: str
    port: int
    bind: str = ""

    @property
    def name(self) -> str:
        return f"{self.bind or self.at} > {self.into} tcp/{self.port} v{6 if ':' in self.address else 4}"


class Addresses:
    """Where everything is: both families, or IPv4 only in segments of engines that do not filter IPv6."""

    def __init__(self, variables: dict[str, Any], vantages: dict[str, Any], *, six: bool, proxy: bool) -> None:
        """`variables`: a host's, as the engines get them; `proxy`: whether Docker's userland proxy runs."""
        self.six = six
        self.published = 1 + (six or proxy)  # how many families a published port has
        keys = ("address", "address6") if six else ("address",)
        services = [service for project in variables["stack_projects"] for service in project["services"]]
        self.of = {
            service["name"]: [network[key] for network in service["networks"] for key in keys] for service in services
        }
        gateways = {n["network"]: [n[key.replace("address", "gateway")] for key in keys] for n in
                    variables["segments_networks"]}  # fmt: skip
        self.gateways = {service["name"]: gateways[service["networks"][0]["network"]] for service in services}
        self.subnets = {n["name"]: [n[key.replace("address", "subnet")] for key in keys] for n in
                        variables["segments_networks"]}  # fmt: skip
        host = variables["lab_hosts"]["atlas"]["addresses"]
        self.lan, self.wan = host[:2], host[2:4]
        self.outside = {name: [one["address"], one["address6"]] for name, one in vantages.items()}


def _forbidden(a: Addresses) -> Iterator[Probe]:
    both = ("tcp", "udp")
    # Between containers: a port that nobody declared, and one that is published for others.
    for at, into in (("idler", "db"), ("caller", "db"), ("db", "caller"), ("idler", "caller"), ("idler", "vault")):
        for address in a.of[into]:
            for proto in both:
                yield Probe(at, into, proto, address, UNDECLARED)
    for address in a.of["db"]:
        yield Probe("idler", "db", "tcp", address, DATABASE)
    # To what is published on the host, and to the host itself, by all of its addresses.
    ways = {"lan": a.lan[: 1 + a.six], "gateway": a.gateways["idler"]}
    for via, addresses in ways.items():
        for address in addresses:
            yield Probe("idler", "db", "tcp", address, DATABASE, via)
            yield Probe("idler", "db", "udp", address, PUBLISHED_UDP, via)
            for proto in both:
                yield Probe("idler", "atlas", proto, address, UNDECLARED, via)
    # From a segment without any way out, to its gateway, which is the host.
    for address in a.gateways["vault"]:
        for proto in both:
            yield Probe("vault", "atlas", proto, address, UNDECLARED, "gateway")
    # Out.
    for address in a.outside["lan"][: 1 + a.six]:
        for proto in both:
            yield Probe("idler", "outside", proto, address, UNDECLARED)
        yield Probe("caller", "outside", "udp", address, UNDECLARED)
    # In: from places that it is not declared for, and past the host's addresses.
    wan, lan = zip(a.wan, a.outside["internet"], strict=True), zip(a.lan, a.outside["lan"], strict=True)
    for number, (address, bind) in enumerate(wan):
        if number < a.published:
            yield Probe("outside", "db", "tcp", address, DATABASE, "wan", bind)
            yield Probe("outside", "db", "udp", address, PUBLISHED_UDP, "wan", bind)
        yield Probe("outside", "atlas", "tcp", address, UNDECLARED, "wan", bind)
    for number, (address, bind) in enumerate(lan):
        if number < a.published:
            yield Probe("outside", "db", "tcp", address, OTHER, "lan", bind)
        for proto in both:
            yield Probe("outside", "atlas", proto, address, UNDECLARED, "lan", bind)
    for into in ("db", "caller", "vault"):
        for address, bind in zip(a.of[into], a.outside["lan"], strict=False):
            for proto in both:
                yield Probe("outside", into, proto, address, UNDECLARED, "route", bind)
    for address, bind in zip(a.of["db"], a.outside["lan"], strict=False):
        yield Probe("outside", "db", "tcp", address, OTHER, "route", bind)


ODD = ("icmp", "ack", "synack", "null", "fin", "253", "sctp", "big")  # see agent/odd.py


def odd(a: Addresses) -> Iterator[Probe]:
    """What no ordinary program sends, without a range of ports."""
    for into in ("db", "caller"):
        for address in a.of[into]:
            for proto in ODD:
                yield Probe("idler", into, proto, address, UNDECLARED)
    # To everybody in the segment: its siblings, and the host.
    network = ipaddress.ip_network(a.subnets["red"][0])
    for address in (str(network.broadcast_address), "255.255.255.255", "224.0.0.251", *["ff02::1%eth0"] * a.six):
        yield Probe("idler", "caller", "cast", address, UNDECLARED, address)
    for address, bind in zip(a.of["db"], a.outside["lan"], strict=False):
        for proto in ODD:
            yield Probe("outside", "db", proto, address, UNDECLARED, "route", bind)


def forbidden(a: Addresses) -> list[Probe]:
    """Every cell that is tried by ordinary connections and datagrams, each with source ports of its own."""
    return numbered(_paced(_forbidden(a)))


def _paced(cells: Iterable[Probe]) -> Iterator[Probe]:
    """The first cell of each way and family twice as often as what goes the same way by another port or protocol."""
    seen = set()
    for probe in cells:
        way = (probe.at, probe.into, probe.via, probe.address, probe.bind)
        yield probe if way in seen else replace(probe, times=2)
        seen.add(way)


def numbered(cells: Iterable[Probe]) -> list[Probe]:
    """Give each cell source ports of its own."""
    probes = list(cells)
    span = (LAST - FIRST) // len(probes)
    return [replace(probe, first=FIRST + span * number, span=span) for number, probe in enumerate(probes)]


def stowaways(a: Addresses) -> list[Flow]:
    """Connections that no declaration allows, to where somebody would talk."""
    return [
        *_calls(a, "idler", "db", a.of["db"]),
        *_calls(a, "idler", "caller", a.of["caller"]),
        *_calls(a, "idler", "outside", a.outside["lan"]),
        *_from_outside(a.wan[: 1 + a.six], a.outside["internet"]),
    ]


def declared(a: Addresses) -> list[Flow]:
    """The connections that must pass, and stay."""
    return [
        *_calls(a, "caller", "db", a.of["db"]),
        *_calls(a, "caller", "idler", a.of["idler"]),
        *_calls(a, "caller", "outside", a.outside["lan"]),
        *_from_outside(a.lan[: 1 + a.six], a.outside["lan"]),
    ]


def _calls(a: Addresses, at: str, into: str, addresses: list[str]) -> list[Flow]:
    return [Flow(at, into, source, address, TALK) for source, address in zip(a.of[at], addresses, strict=False)]


def _from_outside(addresses: list[str], sources: list[str]) -> list[Flow]:
    return [
        Flow("outside", "db", source, address, DATABASE, bind=source)
        for address, source in zip(addresses, sources, strict=False)
    ]
